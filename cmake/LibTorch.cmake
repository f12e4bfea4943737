# LibTorch from the pinned PyPI wheel in SPROCKET_TORCH_DIR (scripts/setup puts it there).
#
# The order of these steps matters:
#  1. protobuf must be found before Torch, or its library drops off the link line;
#  2. the wheel's CMake files ask for CUDA::nvToolsExt, which CMake no longer provides with CUDA 13;
#  3. the wheel carries its own old protobuf and fmt headers, which would win over the system's: a
#     folder of links to the system's headers goes first on the include path.
find_package(Protobuf REQUIRED)

set(shadow_dir ${CMAKE_BINARY_DIR}/system_headers)
file(MAKE_DIRECTORY ${shadow_dir})
foreach(library google fmt)
  if(EXISTS /usr/include/${library} AND NOT EXISTS ${shadow_dir}/${library})
    file(CREATE_LINK /usr/include/${library} ${shadow_dir}/${library} SYMBOLIC)
  endif()
endforeach()
target_include_directories(sprocket_options BEFORE INTERFACE ${shadow_dir})

if(NOT EXISTS ${SPROCKET_TORCH_DIR}/lib/libtorch_cpu.so)
  message(FATAL_ERROR "LibTorch: expected the torch 2.11.0 wheel in ${SPROCKET_TORCH_DIR}, found "
                      "none; run scripts/setup, or set SPROCKET_TORCH_DIR to a site-packages/torch")
endif()

# Torch's own package file insists on a CUDA toolkit. The libraries and headers are named directly
# instead, so that a build without CUDA needs none and no stray flags or run paths arrive.
add_library(sprocket_torch INTERFACE)
target_include_directories(
  sprocket_torch SYSTEM INTERFACE ${SPROCKET_TORCH_DIR}/include
                                  ${SPROCKET_TORCH_DIR}/include/torch/csrc/api/include)
target_link_libraries(sprocket_torch INTERFACE ${SPROCKET_TORCH_DIR}/lib/libtorch_cpu.so
                                               ${SPROCKET_TORCH_DIR}/lib/libc10.so)
if(SPROCKET_CUDA)
  # Streams and the caching allocator, which need libcudart alone. The operators (libtorch_cuda.so and
  # the 3 GB that it needs) are loaded when a job asks for a device.
  add_library(sprocket_torch_cuda INTERFACE)
  target_link_libraries(sprocket_torch_cuda INTERFACE ${SPROCKET_TORCH_DIR}/lib/libc10_cuda.so)
endif()
set(CMAKE_BUILD_RPATH ${SPROCKET_TORCH_DIR}/lib)
