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

void check_same_embedder(const data::TextInfo& text, const std::string& source,
                         const data::TextInfo& expected, const std::string& expected_source) {
  if (text == expected) return;
  const auto name = [](const data::TextInfo& info) {
    return fmt::format("\"{}\" version {} of {} x {} (tokens x dim)", info.name, info.version,
                       info.tokens, info.dim);
  };
  throw InputError(fmt::format("{}: its text embeddings were made by {}; {} was trained with {}",
                               source, name(text), expected_source, name(expected)));
}

at::Tensor text_tensor(const config::Model& model, std::span<const float> embedding) {
  at::Tensor text = at::zeros({1, model.text_tokens(), model.text_dim()}, at::kFloat);
  SPROCKET_CHECK_LE(std::ssize(embedding), text.numel());
  std::copy(embedding.begin(), embedding.end(), text.data_ptr<float>());
  return text;
}

}  // namespace sprocket::runtime
