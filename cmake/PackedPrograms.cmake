# Of the libraries that others bring along only what is used: a pack for another machine is made of such programs.
# libstdc++ comes first, because mold takes what is a template's from whoever has it first: from a member of an
# archive, with all that this member brings along, if that is before libstdc++.
function(sprocket_links_for_a_pack name)
  target_link_options(${name} PRIVATE -Wl,--as-needed -lstdc++)
endfunction()
