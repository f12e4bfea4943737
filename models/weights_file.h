// A model's parameters from and to safetensors, under the names that a file gives them.
#pragma once

#include <functional>
#include <string>

#include "models/parameter_store.h"
#include "models/safetensors/tensor_set.h"

namespace sprocket::models {

// The name in a file of the tensor that the store calls so.
using NameInFile = std::function<std::string(const std::string& parameter)>;

// Whether a tensor belongs to a gate of VSA's branches (…to_gate_compress, …to_gate_fine).
bool is_of_gate(const std::string& name);

struct ReadWeights {
  int tensors = 0;      // read
  int fresh_gates = 0;  // gate tensors that the file does not have
};

// Fills every tensor of the store; elements F64, F32, F16 or BF16. Gates of VSA's branches
// (…to_gate_compress, …to_gate_fine) of which a file has nothing start at 0 (coarse) or 1 (fine),
// and that is logged. Throws InputError that lists every missing, unexpected and wrongly shaped
// tensor at once and calls the file's names `scheme`; the store is untouched then.
ReadWeights read_weights(const safetensors::TensorSet& set, const char* scheme,
                         const NameInFile& name_in_file, ParameterStore& parameters);

// Writes one file, fp32 (fp64 for a store of fp64). Throws OutputError.
void write_weights(const std::string& path, const ParameterStore& parameters,
                   const NameInFile& name_in_file);

}  // namespace sprocket::models
