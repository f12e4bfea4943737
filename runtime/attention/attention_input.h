// The input of `sprocket attention` (docs/attention_command.md): q, k, v [B, L, H, D] and, where
// they are needed, gate, gate_fine and grad_out of the same shape, all F64, F32 or BF16.
#pragma once

#include <array>
#include <span>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "models/safetensors/safetensors.h"
#include "parallel/attention_spec.h"
#include "parallel/token_layout.h"

namespace sprocket::runtime {

// Which tensors a call reads.
std::vector<std::string> needed_tensors(const parallel::AttentionSpec& spec, bool backward);

// A file mapped read-only; a rank touches no more than its own tokens.
class AttentionInput {
 public:
  // Throws InputError unless the file holds a q of four non-empty dims and a legal type.
  static AttentionInput open(const std::string& path);

  const std::string& path() const { return file_.path(); }
  int64_t batch() const { return q_->shape[0]; }
  int64_t tokens() const { return q_->shape[1]; }
  int64_t heads() const { return q_->shape[2]; }
  int64_t head_dim() const { return q_->shape[3]; }

  // Throws InputError unless all of `needed` are there, of q's shape and type, for a sequence of
  // `grid` and `prefix`. Returns what is worth a warning: tensors that are not read.
  std::vector<std::string> check(const std::vector<std::string>& needed,
                                 const parallel::TokenLayoutSpec& sequence) const;

  // Names, types, shapes and places of all tensors: equal on ranks that see the same file.
  std::string description() const;

  // Tokens `places` of a tensor: [B, places, H, D] in `type`.
  at::Tensor tokens_of(const std::string& name, std::span<const int64_t> places,
                       at::ScalarType type) const;

  // "k[b 0, token 17, h 3, d 5] = nan", for the element with this row-major index.
  std::string element_text(const std::string& name, int64_t index) const;

 private:
  explicit AttentionInput(safetensors::File file);

  safetensors::File file_;
  const safetensors::TensorInfo* q_;
};

// The smallest row-major index, in the whole [B, tokens, H, D] input, of a value that is NaN or
// infinite in x, whose tokens stand at `places` there (ascending); or -1.
int64_t first_non_finite(const at::Tensor& x, std::span<const int64_t> places, int64_t tokens);

}  // namespace sprocket::runtime
