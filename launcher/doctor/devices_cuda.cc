#include <cuda_runtime_api.h>

#include "launcher/doctor/devices.h"
#include "parallel/comm/nccl_version.h"

namespace sprocket::launcher {

std::vector<Finding> check_devices() {
  DeviceFacts facts;
  facts.cuda_headers = CUDART_VERSION;
  cudaRuntimeGetVersion(&facts.cuda_runtime);
  cudaDriverGetVersion(&facts.cuda_driver);
  const comm::NcclVersions nccl = comm::nccl_versions();
  facts.nccl_headers = nccl.headers;
  facts.nccl_library = nccl.loaded;
  int count = 0;
  const cudaError_t code = cudaGetDeviceCount(&count);
  if (code != cudaSuccess) facts.error = cudaGetErrorString(code);
  for (int device = 0; code == cudaSuccess && device < count; ++device) {
    cudaDeviceProp properties{};
    const bool known = cudaGetDeviceProperties(&properties, device) == cudaSuccess;
    facts.devices.emplace_back(known ? properties.name : "one that does not answer");
  }
  return judge_devices(facts);
}

}  // namespace sprocket::launcher
