// A layer's tensors in a parameter store.
#pragma once

#include <string>

#include "models/autograd/linear.h"
#include "models/parameter_store.h"

namespace sprocket::models {

// The tensors of prefix.weight and prefix.bias, and their copies if the store keeps any.
Affine affine_of(const ParameterStore& parameters, const std::string& prefix);

}  // namespace sprocket::models
