#include "models/parameter_store.h"

#include <algorithm>
#include <cmath>

#include <ATen/ops/zeros.h>

#include "base/error.h"
#include "base/philox.h"

namespace sprocket::models {
namespace {

constexpr int64_t kAlignment = 16;   // elements
constexpr int64_t kChunk = 1 << 14;  // elements per task of the initialisation

double xavier_bound(const ParameterSpec& spec) {
  const double fan_out = static_cast<double>(spec.shape.at(0));
  const double fan_in = static_cast<double>(spec.elements()) / fan_out;
  return std::sqrt(6.0 / (fan_in + fan_out));
}

// Elements [first, first + out.size()) of a tensor.
void fill(const ParameterSpec& spec, const RandomStream& stream, int64_t first,
          std::span<float> out) {
  switch (spec.rule) {
    case InitialRule::kZeros:
      std::fill(out.begin(), out.end(), 0.0f);
      return;
    case InitialRule::kOnes:
      std::fill(out.begin(), out.end(), 1.0f);
      return;
    case InitialRule::kXavierUniform: {
      const float bound = static_cast<float>(xavier_bound(spec));
      for (size_t i = 0; i < out.size(); ++i) {
        out[i] = bound * (2 * stream.uniform(first + i) - 1);
      }
      return;
    }
    case InitialRule::kNormal:
      stream.normal(out, first);
      for (float& value : out) value *= static_cast<float>(spec.scale);
      return;
  }
}

}  // namespace

ParameterStore::ParameterStore(std::vector<ParameterSpec> specs, at::ScalarType dtype,
                               const at::Device& device, Copies copies, Use use)
    : specs_(std::move(specs)) {
  SPROCKET_CHECK(dtype == at::kFloat || dtype == at::kDouble, "found {}", at::toString(dtype));
  // The processor's code writes to parameters past LibTorch, which counts writes for the copies.
  SPROCKET_CHECK(copies == Copies::kNone || (dtype == at::kFloat && !device.is_cpu()),
                 "copies of {} on {}", at::toString(dtype), device.str());
  int64_t end = 0;
  for (const auto& spec : specs_) {
    const bool added = index_.emplace(spec.name, static_cast<int>(offsets_.size())).second;
    SPROCKET_CHECK(added, "two parameters are called {}", spec.name);
    offsets_.push_back(end);
    elements_ += spec.elements();
    end += (spec.elements() + kAlignment - 1) / kAlignment * kAlignment;
  }
  const at::TensorOptions options = at::TensorOptions(dtype).device(device);
  parameters_ = at::zeros({end}, options);
  if (use == Use::kTrained) gradients_ = at::zeros({end}, options);
  if (copies == Copies::kBFloat16) flat_copies_ = at::zeros({end}, options.dtype(at::kBFloat16));
  copied_version_ = static_cast<uint32_t>(parameters_._version());
  for (int i = 0; i < size(); ++i) {
    const auto part = [&](const at::Tensor& flat) {
      return flat.narrow(0, offsets_[i], specs_[i].elements()).view(specs_[i].shape).detach();
    };
    tensors_.push_back(part(parameters_));
    if (trained()) {
      tensors_.back().set_requires_grad(true);
      tensors_.back().mutable_grad() = part(gradients_);
    }
    copies_.push_back(flat_copies_.defined() ? part(flat_copies_) : at::Tensor());
  }
}

int ParameterStore::index_of(std::string_view name) const {
  const auto found = index_.find(std::string(name));
  SPROCKET_CHECK(found != index_.end(), "no parameter is called {}", name);
  return found->second;
}

bool ParameterStore::contains(std::string_view name) const {
  return index_.contains(std::string(name));
}

void ParameterStore::refresh_copies() const {
  const auto version = static_cast<uint32_t>(parameters_._version());
  if (!flat_copies_.defined() || version == copied_version_) return;
  flat_copies_.copy_(parameters_);
  copied_version_ = version;
}

void ParameterStore::zero_gradients() {
  SPROCKET_CHECK(trained(), "frozen parameters have no gradients");
  gradients_.zero_();
}

void ParameterStore::initialise(uint64_t seed) {
  if (parameters_.is_cpu()) return fill_host(parameters_, seed);
  const at::Tensor host = at::zeros(parameters_.sizes(), parameters_.scalar_type());
  fill_host(host, seed);
  parameters_.copy_(host);
}

void ParameterStore::fill_host(const at::Tensor& flat, uint64_t seed) const {
  for (int i = 0; i < size(); ++i) {
    const ParameterSpec& spec = specs_[i];
    const RandomStream stream(seed, 0, static_cast<uint64_t>(i), RandomPurpose::kInitialisation);
    const int64_t chunks = (spec.elements() + kChunk - 1) / kChunk;
    const bool wide = flat.scalar_type() == at::kDouble;
#pragma omp parallel for schedule(static) if (chunks > 1)
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      const int64_t first = chunk * kChunk, count = std::min(kChunk, spec.elements() - first);
      std::vector<float> values(count);
      fill(spec, stream, first, values);
      if (wide) {
        std::copy(values.begin(), values.end(), flat.data_ptr<double>() + offsets_[i] + first);
      } else {
        std::copy(values.begin(), values.end(), flat.data_ptr<float>() + offsets_[i] + first);
      }
    }
  }
}

}  // namespace sprocket::models
