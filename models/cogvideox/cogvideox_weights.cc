#include "models/cogvideox/cogvideox_weights.h"

namespace sprocket::models {
namespace {

std::string same_name(const std::string& parameter) { return parameter; }

}  // namespace

ReadWeights load_cogvideox_weights(const std::string& path, ParameterStore& parameters) {
  return read_weights(safetensors::TensorSet::open(path), "diffusers", same_name, parameters);
}

void save_cogvideox_weights(const std::string& path, const ParameterStore& parameters) {
  write_weights(path, parameters, same_name);
}

}  // namespace sprocket::models
