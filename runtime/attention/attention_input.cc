#include "runtime/attention/attention_input.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <numeric>

#include <ATen/ops/empty.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/error.h"
#include "parallel/tensor_buffer.h"

namespace sprocket::runtime {
namespace {

using safetensors::ElementType;

constexpr std::array<const char*, 6> kKnown = {"q", "k", "v", "gate", "gate_fine", "grad_out"};

// Of a legal type.
at::ScalarType scalar_type(ElementType type) {
  if (type == ElementType::kF64) return at::kDouble;
  return type == ElementType::kF32 ? at::kFloat : at::kBFloat16;
}

bool is_legal(ElementType type) {
  return type == ElementType::kF64 || type == ElementType::kF32 || type == ElementType::kBF16;
}

std::string shape_text(const safetensors::TensorInfo& tensor) {
  return fmt::format("[{}]", fmt::join(tensor.shape, ", "));
}

double element(std::span<const std::byte> data, ElementType type, int64_t index) {
  const std::byte* at = data.data() + index * static_cast<int64_t>(size_of(type));
  if (type == ElementType::kF64) {
    double value;
    std::memcpy(&value, at, sizeof value);
    return value;
  }
  float value;
  safetensors::convert_to_float(type, {at, size_of(type)}, {&value, 1});
  return value;
}

// All exponent bits set: NaN or infinite.
template <class Bits>
bool has_non_finite(const void* values, int64_t count, Bits exponent) {
  const auto* bits = static_cast<const Bits*>(values);
  bool found = false;
  for (int64_t i = 0; i < count; ++i) found |= (bits[i] & exponent) == exponent;
  return found;
}

bool has_non_finite(double, const void* values, int64_t count) {
  return has_non_finite<uint64_t>(values, count, uint64_t{0x7ff} << 52);
}
bool has_non_finite(float, const void* values, int64_t count) {
  return has_non_finite<uint32_t>(values, count, 0x7f800000u);
}
bool has_non_finite(BFloat16, const void* values, int64_t count) {
  return has_non_finite<uint16_t>(values, count, 0x7f80u);
}

}  // namespace

std::vector<std::string> needed_tensors(const parallel::AttentionSpec& spec, bool backward) {
  std::vector<std::string> names = {"q", "k", "v"};
  if (spec.coarse_gated()) names.push_back("gate");
  if (spec.fine_gated()) names.push_back("gate_fine");
  if (backward) names.push_back("grad_out");
  return names;
}

AttentionInput::AttentionInput(safetensors::File file)
    : file_(std::move(file)), q_(&file_.at("q")) {}

AttentionInput AttentionInput::open(const std::string& path) {
  AttentionInput input(safetensors::File::open(path));
  const safetensors::TensorInfo& q = *input.q_;
  const bool four = q.shape.size() == 4;
  if (!four || std::find(q.shape.begin(), q.shape.end(), 0) != q.shape.end()) {
    throw InputError(
        fmt::format("{}: q: expected the shape [B, L, H, D] without empty dims, found {}", path,
                    shape_text(q)));
  }
  if (!is_legal(q.type)) {
    throw InputError(
        fmt::format("{}: q: expected F64, F32 or BF16, found {}", path, name_of(q.type)));
  }
  return input;
}

std::vector<std::string> AttentionInput::check(const std::vector<std::string>& needed,
                                               const parallel::TokenLayoutSpec& sequence) const {
  const int64_t prefix =
      std::accumulate(sequence.prefix.begin(), sequence.prefix.end(), int64_t{0});
  const int64_t expected = sequence.grid.tokens() + prefix;
  if (tokens() != expected) {
    throw InputError(fmt::format(
        "{}: q: expected {} tokens (problem.grid: {} x {} x {} = {}, and {} of problem.prefix), "
        "found {} in the shape {}",
        path(), expected, sequence.grid.t, sequence.grid.h, sequence.grid.w, sequence.grid.tokens(),
        prefix, tokens(), shape_text(*q_)));
  }
  for (const std::string& name : needed) {
    const safetensors::TensorInfo* tensor = file_.find(name);
    if (tensor == nullptr) {
      const char* why = name == "gate"        ? " (attention.vsa.coarse: GATED needs it)"
                        : name == "gate_fine" ? " (attention.vsa.fine_gate: true needs it)"
                        : name == "grad_out"  ? " (--backward needs it)"
                                              : "";
      throw InputError(fmt::format("{}: expected a tensor \"{}\"{}, found {} others", path(), name,
                                   why, file_.tensors().size()));
    }
    if (tensor->shape != q_->shape) {
      throw InputError(fmt::format("{}: {}: expected the shape of q, {}, found {}", path(), name,
                                   shape_text(*q_), shape_text(*tensor)));
    }
    if (tensor->type != q_->type) {
      throw InputError(fmt::format("{}: {}: expected the type of q, {}, found {}", path(), name,
                                   name_of(q_->type), name_of(tensor->type)));
    }
  }
  std::vector<std::string> warnings;
  for (const safetensors::TensorInfo& tensor : file_.tensors()) {
    const bool read = std::find(needed.begin(), needed.end(), tensor.name) != needed.end();
    if (read || tensor.name == "grad_out") continue;
    const bool known = std::find(kKnown.begin(), kKnown.end(), tensor.name) != kKnown.end();
    warnings.push_back(fmt::format("{}: the tensor \"{}\" is not read{}", path(), tensor.name,
                                   known ? ": this method has no such gate"
                                         : "; known are q, k, v, gate, gate_fine and grad_out"));
  }
  return warnings;
}

std::string AttentionInput::description() const {
  std::string text;
  for (const safetensors::TensorInfo& tensor : file_.tensors()) {
    text += fmt::format("{} {} {} at byte {}\n", tensor.name, name_of(tensor.type),
                        shape_text(tensor), tensor.offset);
  }
  return text;
}

at::Tensor AttentionInput::tokens_of(const std::string& name, std::span<const int64_t> places,
                                     at::ScalarType type) const {
  const safetensors::TensorInfo& tensor = file_.at(name);
  const auto data = file_.data(tensor);
  at::Tensor raw = at::empty({batch(), std::ssize(places), heads(), head_dim()},
                             at::TensorOptions(scalar_type(tensor.type)));
  const size_t bytes = heads() * head_dim() * size_of(tensor.type);
  auto* to = static_cast<std::byte*>(raw.data_ptr());
  for (int64_t b = 0; b < batch(); ++b) {
    for (const int64_t place : places) {
      std::memcpy(to, data.data() + (b * tokens() + place) * bytes, bytes);
      to += bytes;
    }
  }
  return raw.to(type);
}

std::string AttentionInput::element_text(const std::string& name, int64_t index) const {
  const safetensors::TensorInfo& tensor = file_.at(name);
  const int64_t d = index % head_dim(), row = index / head_dim();
  const double value = element(file_.data(tensor), tensor.type, index);
  return fmt::format("{}[b {}, token {}, h {}, d {}] = {}{}", name, row / heads() / tokens(),
                     row / heads() % tokens(), row % heads(), d, value,
                     std::isfinite(value) ? ", beyond the range of compute.precision" : "");
}

int64_t first_non_finite(const at::Tensor& x, std::span<const int64_t> places, int64_t tokens) {
  const int64_t row = x.size(2) * x.size(3);
  int64_t found = -1;
  parallel::dispatch_compute_type(x.scalar_type(), [&](auto zero) {
    using T = decltype(zero);
    const T* values = static_cast<const T*>(x.data_ptr());
    for (int64_t b = 0; b < x.size(0) && found < 0; ++b) {
      for (size_t i = 0; i < places.size() && found < 0; ++i, values += row) {
        if (!has_non_finite(T{}, values, row)) continue;
        int64_t element = 0;
        while (!has_non_finite(T{}, values + element, 1)) ++element;
        found = (b * tokens + places[i]) * row + element;
      }
    }
  });
  return found;
}

}  // namespace sprocket::runtime
