// The PTX that nvcc embeds in a binary.
#pragma once

#include <string>
#include <vector>

namespace sprocket::cuda_simulator {

// Texts of PTX in the structure that __cudaRegisterFatBinary gets. Throws DeviceError if one is
// compressed.
std::vector<std::string> ptx_of_fatbin(const void* wrapper);

// Which of the targets ("80", "90a", …) a device of a capability (80, 90) runs: its own with the
// architecture's suffix, else the highest one without a suffix that is not above it. -1: none.
int choose_target(const std::vector<std::string>& targets, int capability);

// The target that PTX names.
std::string ptx_target(const std::string& text);

}  // namespace sprocket::cuda_simulator
