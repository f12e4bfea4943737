#include "models/layer_parameters.h"

namespace sprocket::models {

Affine affine_of(const ParameterStore& parameters, const std::string& prefix) {
  const std::string weight = prefix + ".weight", bias = prefix + ".bias";
  return {parameters.tensor(weight), parameters.tensor(bias), parameters.copy(weight),
          parameters.copy(bias)};
}

}  // namespace sprocket::models
