#include "runtime/data/finite_floats.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"

namespace sprocket::data {

std::vector<float> finite_floats(const safetensors::File& file,
                                 const safetensors::TensorInfo& tensor) {
  std::vector<float> values = file.floats(tensor);
  const auto bad =
      std::find_if(values.begin(), values.end(), [](float value) { return !std::isfinite(value); });
  if (bad != values.end()) {
    throw InputError(fmt::format("{}: tensor \"{}\": element {} is {}, expected finite numbers",
                                 file.path(), tensor.name, bad - values.begin(), *bad));
  }
  return values;
}

}  // namespace sprocket::data
