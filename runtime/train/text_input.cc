#include "runtime/train/text_input.h"

#include <ATen/ops/zeros.h>

#include <algorithm>

#include "base/error.h"

namespace sprocket::runtime {

void check_text(const config::Model& model, const data::TextInfo& text, const std::string& source) {
  if (text.dim == model.text_dim() && text.tokens <= model.text_tokens()) return;
  throw InputError(
      fmt::format("{}: its text embeddings are {} x {} (tokens x dim); the model takes at most {} "
                  "tokens of {} (model.text_tokens, model.text_dim)",
                  source, text.tokens, text.dim, model.text_tokens(), model.text_dim()));
}

at::Tensor text_tensor(const config::Model& model, std::span<const float> embedding) {
  at::Tensor text = at::zeros({1, model.text_tokens(), model.text_dim()}, at::kFloat);
  SPROCKET_CHECK_LE(std::ssize(embedding), text.numel());
  std::copy(embedding.begin(), embedding.end(), text.data_ptr<float>());
  return text;
}

}  // namespace sprocket::runtime
