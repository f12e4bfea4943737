#include "tests/runtime/cuda/dense_operators.h"

#include <ATen/Context.h>
#include <ATen/Functions.h>
#include <ATen/TensorOperators.h>
#include <torch/library.h>

#include <atomic>
#include <tuple>

namespace sprocket::testing {
namespace {

using at::Tensor;

std::atomic<int> forward_calls{0}, backward_calls{0};

Tensor in_fp32(const Tensor& x) { return x.cpu().to(at::kFloat); }

// As the operator lays it out: like its input.
Tensor like(const Tensor& input, const Tensor& host) {
  return at::empty_like(input).copy_(host.to(input.scalar_type()));
}

void check_inputs(const Tensor& q, const Tensor& k, const Tensor& v) {
  for (const Tensor& x : {q, k, v}) {
    TORCH_CHECK(x.is_cuda() && x.dim() == 4 && x.stride(3) == 1, "expected rows of heads");
    TORCH_CHECK(x.scalar_type() == at::kBFloat16 || x.scalar_type() == at::kHalf);
    TORCH_CHECK(x.size(0) == q.size(0) && x.size(1) == q.size(1) && x.size(3) == q.size(3));
    TORCH_CHECK(x.size(2) > 0, "expected rows");
  }
  TORCH_CHECK(k.sizes() == v.sizes());
}

Tensor scores_of(const Tensor& q, const Tensor& k, const std::optional<double>& scale) {
  TORCH_CHECK(scale.has_value(), "the scale is the caller's");
  return at::matmul(in_fp32(q), in_fp32(k).transpose(2, 3)).mul_(*scale);
}

std::tuple<Tensor, Tensor, Tensor, Tensor, c10::SymInt, c10::SymInt, Tensor, Tensor, Tensor>
cudnn_attention(const Tensor& q, const Tensor& k, const Tensor& v,
                const std::optional<Tensor>& attn_bias, bool compute_log_sumexp, double dropout_p,
                bool is_causal, bool return_debug_mask, std::optional<double> scale) {
  check_inputs(q, k, v);
  TORCH_CHECK(!attn_bias.has_value() && dropout_p == 0 && !is_causal && !return_debug_mask);
  TORCH_CHECK(compute_log_sumexp, "without the LSE there is nothing to merge by");
  TORCH_CHECK(k.size(2) > 1, "cuDNN takes two keys or more");
  ++forward_calls;
  const Tensor scores = scores_of(q, k, scale);
  const Tensor lse = at::logsumexp(scores, {3}, /*keepdim=*/true);
  const Tensor out = at::matmul((scores - lse).exp_(), in_fp32(v));
  return {like(q, out), lse.to(q.device()), {}, {}, q.size(2), k.size(2), {}, {}, {}};
}

std::tuple<Tensor, Tensor, Tensor> flash_attention_backward(
    const Tensor& dout, const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& out,
    const Tensor& lse, const Tensor& cum_seq_q, const Tensor& cum_seq_k, c10::SymInt max_q,
    c10::SymInt max_k, double dropout_p, bool is_causal, const Tensor&, const Tensor&,
    std::optional<double> scale) {
  check_inputs(q, k, v);
  TORCH_CHECK(!cum_seq_q.defined() && !cum_seq_k.defined() && dropout_p == 0 && !is_causal);
  TORCH_CHECK(max_q == q.size(2) && max_k == k.size(2));
  for (const Tensor& x : {dout, out}) {
    TORCH_CHECK(x.sizes() == q.sizes() && x.scalar_type() == q.scalar_type() && x.stride(3) == 1);
  }
  TORCH_CHECK(lse.is_contiguous() && lse.scalar_type() == at::kFloat);
  TORCH_CHECK(lse.sizes().equals({q.size(0), q.size(1), q.size(2)}));
  TORCH_CHECK(at::globalContext().deterministicAlgorithms() &&
                  !at::globalContext().deterministicAlgorithmsWarnOnly(),
              "dQ is summed in one order only when LibTorch is told to be deterministic");
  ++backward_calls;
  const Tensor p = (scores_of(q, k, scale) - in_fp32(lse).unsqueeze(3)).exp_();
  const Tensor dout_host = in_fp32(dout);
  const Tensor delta = (dout_host * in_fp32(out)).sum(3, /*keepdim=*/true);
  const Tensor dp = at::matmul(dout_host, in_fp32(v).transpose(2, 3));
  const Tensor ds = (p * (dp - delta)).mul_(*scale);
  return {like(q, at::matmul(ds, in_fp32(k))), like(k, at::matmul(ds.transpose(2, 3), in_fp32(q))),
          like(v, at::matmul(p.transpose(2, 3), dout_host))};
}

TORCH_LIBRARY_IMPL(aten, CUDA, library) {
  library.impl("_scaled_dot_product_cudnn_attention", TORCH_FN(cudnn_attention));
  library.impl("_scaled_dot_product_flash_attention_backward", TORCH_FN(flash_attention_backward));
}

}  // namespace

DenseCalls dense_calls() { return {forward_calls, backward_calls}; }

void reset_dense_calls() { forward_calls = backward_calls = 0; }

}  // namespace sprocket::testing
