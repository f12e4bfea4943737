# sprocket_cuda_sources(TARGET SOURCES a_cuda.cc … LIBS sprocket_cuda_…): C++ sources that call the CUDA
# runtime or device kernels. They alone see CUDA's headers: every other object of the target is the
# one of a build without CUDA, and ccache has it.
function(sprocket_cuda_sources target)
  cmake_parse_arguments(arg "" "" "SOURCES;LIBS" ${ARGN})
  target_sources(${target} PRIVATE ${arg_SOURCES})
  foreach(folder ${CUDAToolkit_INCLUDE_DIRS})
    set_property(SOURCE ${arg_SOURCES} APPEND PROPERTY COMPILE_OPTIONS -isystem ${folder})
  endforeach()
  foreach(library ${arg_LIBS} CUDA::cudart)
    target_link_libraries(${target} INTERFACE $<LINK_ONLY:${library}>)
  endforeach()
endfunction()
