// CUDA devices as a process finds them, and the libraries between it and them.
#pragma once

#include <string>
#include <vector>

#include "launcher/doctor/finding.h"

namespace sprocket::launcher {

// Versions as the libraries count them: CUDA 13.0 is 13000, NCCL 2.28.9 is 22809.
struct DeviceFacts {
  int cuda_headers = 0;
  int cuda_runtime = 0;
  int cuda_driver = 0;  // the newest CUDA that it knows; 0: there is no driver
  int nccl_headers = 0;
  int nccl_library = 0;
  std::vector<std::string> devices;  // their names
  std::string error;                 // of looking for devices, in the runtime's words
};

// Nothing in builds without CUDA.
std::vector<Finding> check_devices();

// Of a build with CUDA.
std::vector<Finding> judge_devices(const DeviceFacts& facts);

}  // namespace sprocket::launcher
