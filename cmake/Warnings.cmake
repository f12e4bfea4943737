# Every target of the project links sprocket_options: language level, warnings and include root.
add_library(sprocket_options INTERFACE)
target_compile_features(sprocket_options INTERFACE cxx_std_20)
target_include_directories(sprocket_options INTERFACE ${PROJECT_SOURCE_DIR})
target_compile_options(
  sprocket_options
  INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wall -Wextra -Wno-unused-parameter -Wno-missing-field-initializers>
            # -Wrestrict: false alarms of GCC 12 on std::string (GCC bug 105329).
            "$<$<AND:$<COMPILE_LANGUAGE:CXX>,$<BOOL:${SPROCKET_WERROR}>>:-Werror;-Wno-restrict>")
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_GREATER_EQUAL 13)
  # False alarms of GCC 13 inside fmt 9 and on std::vector<bool>.
  target_compile_options(
    sprocket_options INTERFACE $<$<COMPILE_LANGUAGE:CXX>:-Wno-dangling-reference -Wno-array-bounds>)
endif()
if(SPROCKET_SANITIZE)
  if(SPROCKET_SANITIZE MATCHES fuzzer)
    # libFuzzer saves the input that ends the process, and no other.
    set(no_recovery -fno-sanitize-recover=undefined)
  endif()
  target_compile_options(sprocket_options INTERFACE -fsanitize=${SPROCKET_SANITIZE}
                                                    ${no_recovery} -fno-omit-frame-pointer)
  target_link_options(sprocket_options INTERFACE -fsanitize=${SPROCKET_SANITIZE})
endif()
