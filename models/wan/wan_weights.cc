#include "models/wan/wan_weights.h"

#include "base/error.h"
#include "models/weights_file.h"

namespace sprocket::models {
namespace {

std::string in_scheme(const std::string& official, NameScheme scheme) {
  switch (scheme) {
    case NameScheme::kOfficial:
      return official;
    case NameScheme::kDiffusers: {
      const auto name = to_diffusers(official);
      SPROCKET_CHECK(name.has_value(), "{} is no Wan tensor", official);
      return *name;
    }
  }
  throw InternalError("unknown name scheme");
}

NameInFile names_of(NameScheme scheme) {
  return [scheme](const std::string& official) { return in_scheme(official, scheme); };
}

}  // namespace

LoadedWeights load_wan_weights(const std::string& path, ParameterStore& parameters) {
  const auto set = safetensors::TensorSet::open(path);
  const NameScheme scheme = detect_name_scheme(set.names(), set.path());
  const ReadWeights read = read_weights(set, name_of(scheme), names_of(scheme), parameters);
  return {scheme, read.tensors, read.fresh_gates};
}

void save_wan_weights(const std::string& path, const ParameterStore& parameters,
                      NameScheme scheme) {
  write_weights(path, parameters, names_of(scheme));
}

}  // namespace sprocket::models
