// Text embeddings as the model takes them.
#pragma once

#include <span>

#include <ATen/core/Tensor.h>

#include "configs/job.pb.h"
#include "runtime/data/index.h"

namespace sprocket::runtime {

// Throws InputError when the data set's embeddings do not fit model.text_dim and model.text_tokens.
void check_text(const config::Model& model, const data::TextInfo& text, const std::string& source);

// Throws InputError, naming both, when `text` is not of the embedder of `expected`: another name or
// version, or other extents. A model understands the embedder that it was trained with alone.
void check_same_embedder(const data::TextInfo& text, const std::string& source,
                         const data::TextInfo& expected, const std::string& expected_source);

// An embedding [tokens, dim] as one zero-padded row of the batch [1, text_tokens, text_dim]. An
// empty span is the empty text: zeros.
at::Tensor text_tensor(const config::Model& model, std::span<const float> embedding);

}  // namespace sprocket::runtime
