#pragma once

#include <vector>

#include "models/safetensors/safetensors.h"

namespace sprocket::data {

// A tensor of `file` as float. Throws InputError naming both for a type that is no floating-point
// one and for the first value that is not finite.
std::vector<float> finite_floats(const safetensors::File& file,
                                 const safetensors::TensorInfo& tensor);

}  // namespace sprocket::data
