#include "runtime/data/embedding_file.h"

#include "base/error.h"
#include "models/safetensors/safetensors.h"
#include "runtime/data/finite_floats.h"

namespace sprocket::data {

std::vector<float> read_embedding(const std::string& path, TextInfo* text) {
  const auto file = safetensors::File::open(path);
  const safetensors::TensorInfo& tensor = file.at("embedding");
  const bool known = text->tokens > 0;
  if (tensor.shape.size() != 2 || tensor.shape[0] < 1 || tensor.shape[1] < 1 ||
      (known && (tensor.shape[0] != text->tokens || tensor.shape[1] != text->dim))) {
    throw InputError(fmt::format(
        "{}: tensor \"embedding\": expected the shape {}, found [{}]", path,
        known ? fmt::format("[{}, {}] as the others", text->tokens, text->dim) : "[tokens, dim]",
        fmt::join(tensor.shape, ", ")));
  }
  text->tokens = tensor.shape[0];
  text->dim = tensor.shape[1];
  return finite_floats(file, tensor);
}

}  // namespace sprocket::data
