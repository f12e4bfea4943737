# Tests of device code. In builds with CUDA.
add_custom_target(device_tests)

# sprocket_device_test(NAME [SIMULATED_ONLY | GPU_ONLY] [ARCHITECTURE 80|90a] [CAPABILITIES 8.0 9.0] [SEEDS n …]
#                      [TIMEOUT s] SOURCES a_device_test.cc … LIBS a_cuda_library …)
#   One GoogleTest binary over the shared CUDA runtime, with .cu sources (compiled for ARCHITECTURE, default
#   80) or without. Label `simulated`: each test, for each capability (default 8.0), on the simulator of
#   tests/cuda_simulator; and the whole binary in one test for each seed of the simulator's schedule, at the
#   last capability. Label `gpu`: the same binary on a GPU, with SPROCKET_GPU_TESTS.
function(sprocket_device_test name)
  cmake_parse_arguments(arg "SIMULATED_ONLY;GPU_ONLY" "ARCHITECTURE;TIMEOUT" "CAPABILITIES;SEEDS;SOURCES;LIBS" ${ARGN})
  if(NOT arg_ARCHITECTURE)
    set(arg_ARCHITECTURE 80)
  endif()
  if(NOT arg_CAPABILITIES)
    set(arg_CAPABILITIES 8.0)
  endif()
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 120)
  endif()
  add_executable(${name} ${arg_SOURCES})
  set_target_properties(${name} PROPERTIES CUDA_ARCHITECTURES ${arg_ARCHITECTURE} CUDA_STANDARD 17
                                           CUDA_RUNTIME_LIBRARY Shared)
  target_include_directories(${name} SYSTEM PRIVATE ${SPROCKET_CUTLASS_DIR})
  target_compile_options(${name} PRIVATE
    $<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr --compress-mode=none -Xcompiler=-Wall>
    "$<$<AND:$<COMPILE_LANGUAGE:CUDA>,$<BOOL:${SPROCKET_WERROR}>>:-Werror=all-warnings>")
  target_link_libraries(${name} PRIVATE sprocket_options ${arg_LIBS} CUDA::cudart GTest::gtest GTest::gmock
                                        GTest::gtest_main)
  sprocket_links_for_a_pack(${name})
  add_dependencies(${name} cuda_simulator)
  add_dependencies(device_tests ${name})
  if(arg_GPU_ONLY)
    set(arg_CAPABILITIES)
  endif()
  foreach(capability ${arg_CAPABILITIES})
    gtest_discover_tests(
      ${name} DISCOVERY_MODE PRE_TEST DISCOVERY_TIMEOUT 60 TEST_PREFIX ${name}.simulated_${capability}. TEST_LIST ${name}_${capability}
      PROPERTIES LABELS simulated TIMEOUT ${arg_TIMEOUT}
                 ENVIRONMENT CUDA_SIMULATOR=capability=${capability}
                 ENVIRONMENT_MODIFICATION LD_LIBRARY_PATH=path_list_prepend:$<TARGET_FILE_DIR:cuda_simulator>)
  endforeach()
  foreach(seed ${arg_SEEDS})
    list(GET arg_CAPABILITIES -1 last_capability)
    set(test ${name}.simulated_${last_capability}.seed_${seed})
    add_test(NAME ${test} COMMAND ${name} --gtest_brief=1)
    set_tests_properties(${test} PROPERTIES
      LABELS simulated TIMEOUT ${arg_TIMEOUT}
      ENVIRONMENT CUDA_SIMULATOR=capability=${last_capability},seed=${seed}
      ENVIRONMENT_MODIFICATION LD_LIBRARY_PATH=path_list_prepend:$<TARGET_FILE_DIR:cuda_simulator>)
  endforeach()
  if(SPROCKET_GPU_TESTS AND NOT arg_SIMULATED_ONLY)
    gtest_discover_tests(${name} DISCOVERY_MODE PRE_TEST DISCOVERY_TIMEOUT 60 TEST_PREFIX ${name}.gpu. TEST_LIST ${name}_gpu
                         PROPERTIES LABELS gpu TIMEOUT ${arg_TIMEOUT})
  endif()
endfunction()
