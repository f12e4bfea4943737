// A CogVideoX model's parameters from and to safetensors. The program's names are diffusers'.
#pragma once

#include <string>

#include "models/weights_file.h"

namespace sprocket::models {

// Fills every tensor of the store, which holds cogvideox_parameters(), from a *.safetensors file, a
// *.safetensors.index.json or a folder with one of them; see read_weights.
ReadWeights load_cogvideox_weights(const std::string& path, ParameterStore& parameters);

// Throws OutputError.
void save_cogvideox_weights(const std::string& path, const ParameterStore& parameters);

}  // namespace sprocket::models
