// A model's parameters: an ordered list of named leaf tensors over one flat buffer, and, unless
// they are frozen, their gradients over another one; on request their bf16 copies over a third one.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include <ATen/core/Tensor.h>

#include "models/parameter_spec.h"

namespace sprocket::models {

class ParameterStore {
 public:
  enum class Copies { kNone, kBFloat16 };
  enum class Use { kTrained, kFrozen };
  // Allocates parameters and, of trained ones, gradients on `device`, both zero. dtype: kFloat
  // (master weights) or kDouble (proofs). Copies are of fp32 parameters on a device.
  explicit ParameterStore(std::vector<ParameterSpec> specs, at::ScalarType dtype = at::kFloat,
                          const at::Device& device = at::kCPU, Copies copies = Copies::kNone,
                          Use use = Use::kTrained);
  ParameterStore(const ParameterStore&) = delete;
  ParameterStore& operator=(const ParameterStore&) = delete;

  int size() const { return static_cast<int>(specs_.size()); }
  const ParameterSpec& spec(int index) const { return specs_[index]; }
  const std::vector<ParameterSpec>& specs() const { return specs_; }
  // Elements of all tensors, without the padding of the flat buffers.
  int64_t elements() const { return elements_; }

  bool trained() const { return gradients_.defined(); }
  // A leaf. A trained one requires a gradient; its grad() is always defined and shares
  // flat_gradients(), so that a backward pass adds to it. Never assign another gradient tensor;
  // write through flat_gradients().
  const at::Tensor& tensor(int index) const { return tensors_[index]; }
  at::Tensor gradient(int index) const { return tensors_[index].grad(); }
  // Throws InternalError when there is no such name.
  const at::Tensor& tensor(std::string_view name) const { return tensors_[index_of(name)]; }
  // The parameter rounded to bf16, as of the last refresh_copies or update that wrote copies;
  // undefined without copies. Requires no gradient.
  const at::Tensor& copy(std::string_view name) const { return copies_[index_of(name)]; }
  int index_of(std::string_view name) const;
  bool contains(std::string_view name) const;

  // One-dimensional, all tensors in order. Tensors start at multiples of 16 elements; the elements
  // between them are zero in both buffers and stay so under elementwise updates of zero gradients.
  // Neither requires a gradient. Write to them outside of forward and backward only. Frozen
  // parameters have no gradients: undefined.
  const at::Tensor& flat_parameters() const { return parameters_; }
  const at::Tensor& flat_gradients() const { return gradients_; }
  // In the same order; undefined without copies.
  const at::Tensor& flat_copies() const { return flat_copies_; }
  // Rounds the parameters to their copies if LibTorch has written to them, or to a view of them,
  // since the last time; every forward begins with it. Who writes to their memory past LibTorch
  // writes the copies too: on a device that is the optimizer's kernel alone.
  void refresh_copies() const;
  // First element of a tensor in the flat buffers.
  int64_t offset(int index) const { return offsets_[index]; }

  void zero_gradients();

  // Every tensor by its rule. Element e of tensor i is a function of (seed, i, e) only, computed in
  // fp32 whatever the dtype, on the host whatever the device.
  void initialise(uint64_t seed);

 private:
  void fill_host(const at::Tensor& flat, uint64_t seed) const;

  std::vector<ParameterSpec> specs_;
  std::vector<int64_t> offsets_;
  int64_t elements_ = 0;
  at::Tensor parameters_, gradients_, flat_copies_;
  std::vector<at::Tensor> tensors_, copies_;
  // LibTorch's count of writes to the parameters when they were copied; all views share it.
  mutable uint32_t copied_version_ = 0;
  std::unordered_map<std::string, int> index_;
};

}  // namespace sprocket::models
