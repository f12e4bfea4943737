// Segment attention on a device, through kernels/cuda/segment_attention.h.
#include <algorithm>

#include <ATen/ops/empty.h>
#include <cuda_runtime_api.h>

#include "base/cuda_stream.h"
#include "base/error.h"
#include "kernels/cuda/inverse_table.h"
#include "kernels/cuda/segment_attention.h"
#include "parallel/attention/dense_pass_device.h"
#include "parallel/attention/device_query.h"
#include "parallel/attention/segment_pass_device.h"
#include "parallel/device/cuda_tensor.h"
#include "parallel/device/host_copy.h"

namespace sprocket::parallel {
namespace {

namespace kc = kernels::cuda;

// Gradients of scores of one backward: more is not faster, a group already fills the device.
constexpr int64_t kBackwardWorkspaceBytes = int64_t{1} << 30;

kc::DeviceTable view_of(const kernels::SegmentTable& table, const DeviceTableTensors& tensors) {
  kc::DeviceTable view;
  view.batch = table.batch;
  view.heads = table.heads;
  view.query_blocks = table.query_blocks;
  view.kv_blocks = table.kv_blocks;
  view.max_pairs = tensors.kv_block.numel();
  view.row_offsets = cuda::in<int32_t>(tensors.row_offsets);
  view.kv_block = cuda::in<int32_t>(tensors.kv_block);
  return view;
}

// Adds the inverse of tensors.row_offsets and kv_block to them.
void invert(const kernels::SegmentTable& table, DeviceTableTensors& tensors) {
  const kc::DeviceTable view = view_of(table, tensors);
  const auto options = tensors.kv_block.options();
  tensors.column_offsets = at::empty({view.columns() + 1}, options);
  tensors.query_block = at::empty({view.max_pairs}, options);
  tensors.pair = at::empty({view.max_pairs}, options);
  const cuda::CallWorkspace workspace(kc::inverse_table_workspace_bytes(view), tensors.kv_block);
  kc::build_inverse_table(
      view,
      {cuda::out<int32_t>(tensors.column_offsets), cuda::out<int32_t>(tensors.query_block),
       cuda::out<int32_t>(tensors.pair)},
      workspace.data(), stream_of(tensors.kv_block));
}

kc::KernelFamily family_of(const at::Device& device) {
  int major = 0, minor = 0;
  check_cuda(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device.index()),
             "cudaDeviceGetAttribute");
  check_cuda(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device.index()),
             "cudaDeviceGetAttribute");
  return kc::kernel_family(major, minor);
}

kc::Element element_of(at::ScalarType type) {
  if (type == at::kBFloat16) return kc::Element::kBFloat16;
  if (type == at::kHalf) return kc::Element::kFloat16;
  throw InternalError(
      fmt::format("attention on a device: expected bf16 or fp16, found {}", at::toString(type)));
}

template <class T>
kc::DeviceRows<T> rows_of(const at::Tensor& x_BLHD) {
  SPROCKET_CHECK_EQ(x_BLHD.dim(), 4);
  SPROCKET_CHECK(x_BLHD.stride(3) == 1, "rows of a head must be contiguous");
  return {static_cast<T*>(x_BLHD.data_ptr()), x_BLHD.stride(0), x_BLHD.stride(1), x_BLHD.stride(2)};
}

// A map in device memory for one pass.
class DeviceMap {
 public:
  DeviceMap(const kernels::KvBlockMap& map, const at::Device& device)
      : per_head_(map.per_head), max_rows_(longest_block(map)) {
    std::vector<kc::DeviceKvBlock> blocks;
    blocks.reserve(map.blocks.size());
    for (const kernels::KvBlock& block : map.blocks) {
      blocks.push_back({block.buffer, block.rows, block.first_row, static_cast<float>(block.bias)});
    }
    memory_ = bytes_on(std::span<const kc::DeviceKvBlock>(blocks), device);
  }

  kc::DeviceBlockMap view() const {
    return {per_head_, static_cast<const kc::DeviceKvBlock*>(memory_.const_data_ptr())};
  }
  int max_rows() const { return max_rows_; }

 private:
  bool per_head_;
  int max_rows_;
  at::Tensor memory_;
};

const DeviceQuery& device_form(const QuerySide& query) {
  SPROCKET_CHECK(query.device != nullptr, "the query side has no place for its device form");
  std::shared_ptr<const DeviceQuery>& made = query.device->made;
  if (!made) {
    made = upload_query(*query.table, query.query_offsets, query.query_rows, query.q_BLHD.device());
  }
  return *made;
}

kc::SegmentAttentionProblem problem_of(const QuerySide& query, const std::vector<KvTensors>& kv,
                                       const DeviceMap& map,
                                       const std::optional<kernels::HeadRange>& heads) {
  SPROCKET_CHECK(kv.size() <= kc::kMaxKvBuffers,
                 "attention on a device reads at most {} buffers of keys, found {}",
                 kc::kMaxKvBuffers, kv.size());
  const DeviceQuery& side = device_form(query);
  const at::Tensor& q = query.q_BLHD;
  kc::SegmentAttentionProblem problem;
  problem.family = family_of(q.device());
  problem.element = element_of(q.scalar_type());
  problem.head_dim = static_cast<int>(q.size(3));
  problem.scale = static_cast<float>(query.scale);
  problem.table = view_of(*query.table, side.table);
  problem.map = map.view();
  const int all_heads = query.table->batch * query.table->heads;
  problem.first_head = heads ? static_cast<int>(heads->first) : 0;
  problem.last_head = heads ? static_cast<int>(heads->last) : all_heads;
  problem.queries = q.size(1);
  problem.query_offsets = cuda::in<int32_t>(side.query_offsets);
  if (side.query_rows.defined()) problem.query_rows = cuda::in<int32_t>(side.query_rows);
  problem.max_query_rows = side.max_query_rows;
  problem.max_kv_rows = map.max_rows();
  problem.max_row_pairs = side.max_row_pairs;
  problem.q = rows_of<const void>(q);
  problem.kv_buffers = static_cast<int>(kv.size());
  for (size_t i = 0; i < kv.size(); ++i) {
    // The own rank's place among fetched buffers may be empty: no block of the map is there.
    if (!kv[i].k.defined()) continue;
    problem.kv[i] = {rows_of<const void>(kv[i].k), rows_of<const void>(kv[i].v)};
  }
  return problem;
}

}  // namespace

std::shared_ptr<const DeviceQuery> upload_query(const kernels::SegmentTable& table,
                                                const std::vector<int64_t>& query_offsets,
                                                const std::vector<int32_t>& query_rows,
                                                const at::Device& device) {
  auto query = std::make_shared<DeviceQuery>();
  query->table.row_offsets = ints_on(narrowed(table.row_offsets), device);
  query->table.kv_block = ints_on(table.kv_block, device);
  invert(table, query->table);
  query->query_offsets = ints_on(narrowed(query_offsets), device);
  if (!query_rows.empty()) query->query_rows = ints_on(query_rows, device);
  query->max_query_rows = longest_block(query_offsets);
  query->max_row_pairs = longest_row(table);
  return query;
}

namespace device {

void forward_pass(const QuerySide& query, const std::vector<KvTensors>& kv,
                  const kernels::KvBlockMap& map, PassOutput& output,
                  const std::optional<kernels::HeadRange>& heads) {
  if (const auto rows = dense_rows(query, map, heads)) {
    return dense_forward(query, kv, *rows, output);
  }
  output.untouched = false;
  const DeviceMap device_map(map, query.q_BLHD.device());
  kc::SegmentAttentionOutput sums;
  sums.out = rows_of<void>(output.out_BLHD);
  sums.lse = cuda::out<float>(output.lse_BHL);
  sums.accumulate = true;
  kc::segment_attention_forward(problem_of(query, kv, device_map, heads), sums,
                                stream_of(query.q_BLHD));
}

at::Tensor row_delta(const at::Tensor& out_BLHD, const at::Tensor& dout_BLHD) {
  at::Tensor delta =
      at::empty({out_BLHD.size(0), out_BLHD.size(2), out_BLHD.size(1)}, out_BLHD.options());
  kc::SegmentAttentionDelta problem;
  problem.element = element_of(dout_BLHD.scalar_type());
  problem.batch = static_cast<int>(out_BLHD.size(0));
  problem.heads = static_cast<int>(out_BLHD.size(2));
  problem.head_dim = static_cast<int>(out_BLHD.size(3));
  problem.rows = out_BLHD.size(1);
  problem.out = rows_of<const void>(out_BLHD);
  problem.dout = rows_of<const void>(dout_BLHD);
  problem.delta = cuda::out<float>(delta);
  kc::segment_attention_delta(problem, stream_of(out_BLHD));
  return delta;
}

void backward_pass(const QuerySide& query, const std::vector<KvTensors>& kv,
                   const kernels::KvBlockMap& map, const OutputSide& output,
                   const at::Tensor& dq_BLHD, const std::vector<KvTensors>& dkv,
                   const std::optional<kernels::HeadRange>& heads) {
  if (output.out_BLHD.defined()) {
    if (const auto rows = dense_rows(query, map, heads)) {
      return dense_backward(query, kv, *rows, output, dq_BLHD, dkv);
    }
  }
  const DeviceMap device_map(map, query.q_BLHD.device());
  const kc::SegmentAttentionProblem problem = problem_of(query, kv, device_map, heads);
  const DeviceTableTensors& table = device_form(query).table;
  kc::SegmentAttentionGradients gradients;
  gradients.inverse = {cuda::in<int32_t>(table.column_offsets),
                       cuda::in<int32_t>(table.query_block), cuda::in<int32_t>(table.pair)};
  gradients.dout = rows_of<const void>(output.dout_BLHD);
  gradients.lse = cuda::in<float>(output.lse_BHL);
  gradients.delta = cuda::in<float>(output.delta_BHL);
  gradients.dq = rows_of<float>(dq_BLHD);
  for (size_t i = 0; i < dkv.size(); ++i) {
    if (!dkv[i].k.defined()) continue;
    gradients.dkv[i] = {rows_of<float>(dkv[i].k), rows_of<float>(dkv[i].v)};
  }
  const kc::SegmentAttentionBackwardPlan plan =
      kc::plan_segment_attention_backward(problem, kBackwardWorkspaceBytes);
  const cuda::CallWorkspace workspace(plan.workspace_bytes, query.q_BLHD);
  kc::segment_attention_backward(problem, gradients, plan, workspace.data(),
                                 stream_of(query.q_BLHD));
}

}  // namespace device
}  // namespace sprocket::parallel
