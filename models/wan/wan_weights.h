// A Wan model's parameters from and to safetensors.
#pragma once

#include <string>

#include "models/parameter_store.h"
#include "models/tensor_names.h"

namespace sprocket::models {

struct LoadedWeights {
  NameScheme scheme = NameScheme::kOfficial;
  int tensors = 0;      // read
  int fresh_gates = 0;  // gate tensors that the checkpoint does not have
};

// Fills every tensor of the store, which holds wan_parameters(), from a *.safetensors file, a
// *.safetensors.index.json or a folder with one of them; names of either scheme, elements F64, F32,
// F16 or BF16. Gates of which a checkpoint has nothing start at 0 (coarse)
// or 1 (fine), and that is logged.
// Throws InputError that lists every missing, unexpected and wrongly shaped tensor at once; the
// store is untouched then.
LoadedWeights load_wan_weights(const std::string& path, ParameterStore& parameters);

// Writes one file, fp32 (fp64 for a store of fp64). Throws OutputError.
void save_wan_weights(const std::string& path, const ParameterStore& parameters, NameScheme scheme);

}  // namespace sprocket::models
