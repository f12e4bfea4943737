#include <mutex>

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/_scaled_dot_product_cudnn_attention.h>
#include <ATen/ops/_scaled_dot_product_flash_attention_backward.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/logaddexp.h>

#include "parallel/attention/dense_pass_device.h"

namespace sprocket::parallel::device {
namespace {

constexpr double kNoDropout = 0;
constexpr bool kNotCausal = false;

at::Tensor heads_first(const at::Tensor& x_BLHD) { return x_BLHD.transpose(1, 2); }

at::Tensor heads_inside(const at::Tensor& x_BHLD) { return x_BHLD.transpose(1, 2); }

at::Tensor part_of(const at::Tensor& x_BLHD, const DenseRows& rows) {
  return x_BLHD.narrow(1, rows.first, rows.count);
}

void merge(const at::Tensor& out_BLHD, const at::Tensor& lse_BHL, PassOutput& into) {
  if (into.untouched) {
    into.out_BLHD.copy_(out_BLHD);
    into.lse_BHL.copy_(lse_BHL);
    into.untouched = false;
    return;
  }
  // Finite, since this part has keys: rows that no former pass reached weigh exp(-inf) = 0.
  const at::Tensor sum_BHL = at::logaddexp(into.lse_BHL, lse_BHL);
  const auto weight_BLH1 = [&](const at::Tensor& part_BHL) {
    return (part_BHL - sum_BHL).exp_().transpose(1, 2).unsqueeze(-1);
  };
  into.out_BLHD.mul_(weight_BLH1(into.lse_BHL)).addcmul_(out_BLHD, weight_BLH1(lse_BHL));
  into.lse_BHL.copy_(sum_BHL);
}

// LibTorch's deterministic forms, for as long as this lives. The setting is the process's, and
// other operators refuse to run under it, so it holds for one call at a time.
class DeterministicForms {
 public:
  DeterministicForms()
      : lock_(mutex()),
        context_(at::globalContext()),
        algorithms_(context_.deterministicAlgorithms()),
        warn_only_(context_.deterministicAlgorithmsWarnOnly()),
        fill_(context_.deterministicFillUninitializedMemory()) {
    context_.setDeterministicAlgorithms(true, /*warn_only=*/false);
    // Otherwise every new tensor is filled, the workspace first of all.
    context_.setDeterministicFillUninitializedMemory(false);
  }
  ~DeterministicForms() {
    context_.setDeterministicFillUninitializedMemory(fill_);
    context_.setDeterministicAlgorithms(algorithms_, warn_only_);
  }
  DeterministicForms(const DeterministicForms&) = delete;
  DeterministicForms& operator=(const DeterministicForms&) = delete;

 private:
  static std::mutex& mutex() {
    static std::mutex mutex;
    return mutex;
  }

  const std::lock_guard<std::mutex> lock_;
  at::Context& context_;
  const bool algorithms_, warn_only_, fill_;
};

}  // namespace

void dense_forward(const QuerySide& query, const std::vector<KvTensors>& kv,
                   const std::vector<DenseRows>& rows, PassOutput& output) {
  const at::Tensor q_BHLD = heads_first(query.q_BLHD);
  for (const DenseRows& part : rows) {
    const KvTensors& keys = kv[part.buffer];
    const auto result = at::_scaled_dot_product_cudnn_attention(
        q_BHLD, heads_first(part_of(keys.k, part)), heads_first(part_of(keys.v, part)),
        /*attn_bias=*/{}, /*compute_log_sumexp=*/true, kNoDropout, kNotCausal,
        /*return_debug_mask=*/false, query.scale);
    merge(heads_inside(std::get<0>(result)), std::get<1>(result).reshape(output.lse_BHL.sizes()),
          output);
  }
}

void dense_backward(const QuerySide& query, const std::vector<KvTensors>& kv,
                    const std::vector<DenseRows>& rows, const OutputSide& output,
                    const at::Tensor& dq_BLHD, const std::vector<KvTensors>& dkv) {
  const at::Tensor& q_BLHD = query.q_BLHD;
  const at::Tensor out_BLHD = output.out_BLHD.to(q_BLHD.scalar_type());
  const at::Tensor no_random_state = at::empty({2}, q_BLHD.options().dtype(at::kUInt64));
  const at::Tensor one_length;
  for (const DenseRows& part : rows) {
    const KvTensors &keys = kv[part.buffer], &gradients = dkv[part.buffer];
    const auto [dq, dk, dv] = [&] {
      const DeterministicForms deterministic;
      return at::_scaled_dot_product_flash_attention_backward(
          heads_first(output.dout_BLHD), heads_first(q_BLHD), heads_first(part_of(keys.k, part)),
          heads_first(part_of(keys.v, part)), heads_first(out_BLHD), output.lse_BHL, one_length,
          one_length, q_BLHD.size(1), part.count, kNoDropout, kNotCausal, no_random_state,
          no_random_state, query.scale);
    }();
    dq_BLHD.add_(heads_inside(dq));
    part_of(gradients.k, part).add_(heads_inside(dk));
    part_of(gradients.v, part).add_(heads_inside(dv));
  }
}

}  // namespace sprocket::parallel::device
