find_package(Python3 REQUIRED COMPONENTS Interpreter)

# sprocket_test(NAME unit_or_multirank SOURCES a_test.cc … LIBS sprocket_base …)
#   One GoogleTest binary; every test in it gets the label and a time limit.
function(sprocket_test name label)
  cmake_parse_arguments(arg "" "TIMEOUT" "SOURCES;LIBS" ${ARGN})
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 120)
  endif()
  add_executable(${name} ${arg_SOURCES})
  target_link_libraries(${name} PRIVATE sprocket_options ${arg_LIBS} GTest::gtest GTest::gmock GTest::gtest_main)
  gtest_discover_tests(${name} DISCOVERY_MODE PRE_TEST DISCOVERY_TIMEOUT 60 TEST_PREFIX ${name}.
                       PROPERTIES LABELS ${label} TIMEOUT ${arg_TIMEOUT})
endfunction()

# sprocket_mpi_test(NAME RANKS n SOURCES … LIBS … [LABEL gpu] [OWN_MAIN])
#   One binary, run once under mpirun for each number of ranks. Its main is tests/mpi_main.cc, or, with
#   OWN_MAIN, among its sources. Label `gpu` needs SPROCKET_GPU_TESTS; without, the binary is only built.
function(sprocket_mpi_test name)
  cmake_parse_arguments(arg "OWN_MAIN" "TIMEOUT;LABEL" "RANKS;SOURCES;LIBS" ${ARGN})
  if(NOT arg_TIMEOUT)
    set(arg_TIMEOUT 300)
  endif()
  if(NOT arg_LABEL)
    set(arg_LABEL mpi)
  endif()
  if(NOT arg_OWN_MAIN)
    list(APPEND arg_SOURCES ${PROJECT_SOURCE_DIR}/tests/mpi_main.cc)
  endif()
  add_executable(${name} ${arg_SOURCES} ${PROJECT_SOURCE_DIR}/tests/mpi_tests.cc)
  target_link_libraries(${name} PRIVATE sprocket_options ${arg_LIBS} MPI::MPI_CXX GTest::gtest GTest::gmock)
  target_compile_definitions(${name} PRIVATE OMPI_SKIP_MPICXX)
  if(arg_LABEL STREQUAL gpu AND NOT SPROCKET_GPU_TESTS)
    return()
  endif()
  foreach(ranks ${arg_RANKS})
    add_test(NAME ${name}.np${ranks}
             COMMAND mpirun --oversubscribe --mca mpi_yield_when_idle 1 -np ${ranks} $<TARGET_FILE:${name}>)
    set_tests_properties(${name}.np${ranks} PROPERTIES
      LABELS ${arg_LABEL} TIMEOUT ${arg_TIMEOUT} PROCESSORS 2
      ENVIRONMENT "OMPI_ALLOW_RUN_AS_ROOT=1;OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1;OMP_NUM_THREADS=1")
  endforeach()
endfunction()

# sprocket_python_test(NAME LABEL arguments of the interpreter …)
#   A test written in Python, run in its own folder. Label `peer` takes the interpreter that has PyTorch
#   and diffusers (scripts/setup --with-peers), every other label the system's.
function(sprocket_python_test name label)
  set(interpreter ${Python3_EXECUTABLE})
  if(label STREQUAL peer)
    set(interpreter ${PROJECT_SOURCE_DIR}/.deps/python/bin/python)
  endif()
  add_test(NAME ${name} COMMAND ${interpreter} ${ARGN} WORKING_DIRECTORY ${CMAKE_CURRENT_SOURCE_DIR})
  set_tests_properties(${name} PROPERTIES LABELS ${label} TIMEOUT 300 ENVIRONMENT PYTHONDONTWRITEBYTECODE=1)
endfunction()
