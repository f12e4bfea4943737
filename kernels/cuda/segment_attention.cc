#include "kernels/cuda/segment_attention.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "kernels/cuda/segment_attention_launch.h"
#include "kernels/cuda/segment_attention_tiles.h"

namespace sprocket::kernels::cuda {
namespace {

void check_head_dim(int head_dim) {
  if (head_dim == 64 || head_dim == 128) return;
  throw ConfigError(fmt::format(
      "attention on a CUDA device: head dimension {} has no kernel; 64 and 128 have", head_dim));
}

template <class T>
void check_rows(const DeviceRows<T>& rows, int64_t element_bytes, const char* what) {
  const auto aligned = [&](int64_t stride) { return stride * element_bytes % 16 == 0; };
  SPROCKET_CHECK(
      reinterpret_cast<uintptr_t>(rows.data) % 16 == 0 && aligned(rows.batch_stride) &&
          aligned(rows.row_stride) && aligned(rows.head_stride),
      "{} lies at {} with strides {}, {}, {} of {} bytes; multiples of 16 bytes are legal", what,
      fmt::ptr(rows.data), rows.batch_stride, rows.row_stride, rows.head_stride, element_bytes);
}

void check_problem(const SegmentAttentionProblem& problem) {
  const DeviceTable& table = problem.table;
  check_head_dim(problem.head_dim);
  SPROCKET_CHECK(problem.scale > 0 && std::isfinite(problem.scale), "the scale is {}",
                 problem.scale);
  SPROCKET_CHECK(problem.max_query_rows >= 0 && problem.max_query_rows <= kMaxBlockRows &&
                     problem.max_kv_rows >= 0 && problem.max_kv_rows <= kMaxBlockRows,
                 "blocks of {} query rows and {} KV rows; at most {} are legal",
                 problem.max_query_rows, problem.max_kv_rows, kMaxBlockRows);
  SPROCKET_CHECK(problem.kv_buffers >= 0 && problem.kv_buffers <= kMaxKvBuffers,
                 "{} KV buffers; at most {} are legal", problem.kv_buffers, kMaxKvBuffers);
  SPROCKET_CHECK(table.max_pairs >= 0 && table.max_pairs < int64_t{1} << 31,
                 "a table of {} pairs; below 2^31 are legal", table.max_pairs);
  SPROCKET_CHECK(problem.queries >= 0 && problem.queries < int64_t{1} << 31, "{} query rows",
                 problem.queries);
  SPROCKET_CHECK(0 <= problem.first_head && problem.first_head <= problem.last_head &&
                     problem.last_head <= int64_t{table.batch} * table.heads,
                 "heads {} to {} of {}", problem.first_head, problem.last_head,
                 int64_t{table.batch} * table.heads);
  // The grids are one-dimensional; a KV block is at most two tiles.
  const int64_t heads = problem.last_head - problem.first_head;
  SPROCKET_CHECK(heads * std::max(table.query_blocks, 2 * table.kv_blocks) < int64_t{1} << 31,
                 "{} heads of {} query blocks and {} KV blocks", heads, table.query_blocks,
                 table.kv_blocks);
  check_rows(problem.q, 2, "q");
  for (int i = 0; i < problem.kv_buffers; ++i) {
    check_rows(problem.kv[i].k, 2, "k");
    check_rows(problem.kv[i].v, 2, "v");
  }
}

CUstream_st* handle_of(StreamView stream) {
  SPROCKET_CHECK(!stream.is_host(), "device kernels need a CUDA stream");
  return static_cast<CUstream_st*>(stream.cuda_handle());
}

// visit.operator()<Element, head dimension>()
template <class Visit>
void with_kernel(Element element, int head_dim, const Visit& visit) {
  switch (element) {
    case Element::kBFloat16:
      return head_dim == 64 ? visit.template operator()<Element::kBFloat16, 64>()
                            : visit.template operator()<Element::kBFloat16, 128>();
    case Element::kFloat16:
      return head_dim == 64 ? visit.template operator()<Element::kFloat16, 64>()
                            : visit.template operator()<Element::kFloat16, 128>();
  }
}

void launch_forward(const ForwardArguments& arguments, CUstream_st* stream) {
  const SegmentAttentionProblem& problem = arguments.problem;
  with_kernel(problem.element, problem.head_dim, [&]<Element kElement, int kHeadDim>() {
    switch (problem.family) {
      case KernelFamily::kSm80:
        return launch_forward_sm80<kElement, kHeadDim>(arguments, stream);
      case KernelFamily::kSm90:
        return launch_forward_sm90<kElement, kHeadDim>(arguments, stream);
    }
  });
}

void launch_backward(const BackwardArguments& arguments, CUstream_st* stream) {
  const SegmentAttentionProblem& problem = arguments.problem;
  with_kernel(problem.element, problem.head_dim, [&]<Element kElement, int kHeadDim>() {
    switch (problem.family) {
      case KernelFamily::kSm80:
        launch_key_gradients_sm80<kElement, kHeadDim>(arguments, stream);
        return launch_query_gradients_sm80<kElement, kHeadDim>(arguments, stream);
      case KernelFamily::kSm90:
        launch_key_gradients_sm90<kElement, kHeadDim>(arguments, stream);
        return launch_query_gradients_sm90<kElement, kHeadDim>(arguments, stream);
    }
  });
}

}  // namespace

KernelFamily kernel_family(int major, int minor) {
  if (major == 9 && minor == 0) return KernelFamily::kSm90;
  if (major >= 8) return KernelFamily::kSm80;
  throw ConfigError(fmt::format(
      "attention on a CUDA device: compute capability {}.{} has no kernel; 8.0 and above "
      "have",
      major, minor));
}

void segment_attention_forward(const SegmentAttentionProblem& problem,
                               const SegmentAttentionOutput& output, StreamView stream) {
  check_problem(problem);
  const bool is_float = output.type == OutputType::kFloat32;
  check_rows(output.out, is_float ? 4 : 2, "out");
  SPROCKET_CHECK(is_float || !output.accumulate, "a pass continues a former one in fp32 only");
  if (problem.first_head == problem.last_head || problem.table.query_blocks == 0) return;
  launch_forward({problem, output.out, output.lse, is_float, output.accumulate}, handle_of(stream));
}

void segment_attention_delta(const SegmentAttentionDelta& problem, StreamView stream) {
  check_head_dim(problem.head_dim);
  check_rows(problem.out, problem.type == OutputType::kFloat32 ? 4 : 2, "out");
  check_rows(problem.dout, 2, "dout");
  const int64_t rows = problem.batch * problem.rows * problem.heads;
  SPROCKET_CHECK(rows >= 0 && rows < int64_t{1} << 31, "delta of {} rows", rows);
  if (rows == 0) return;
  launch_delta({problem.element, problem.type == OutputType::kFloat32, problem.head_dim,
                problem.heads, static_cast<int>(problem.rows), static_cast<int>(rows), problem.out,
                problem.dout, problem.delta},
               handle_of(stream));
}

void segment_attention_backward(const SegmentAttentionProblem& problem,
                                const SegmentAttentionGradients& gradients,
                                const SegmentAttentionBackwardPlan& plan, void* workspace,
                                StreamView stream) {
  check_problem(problem);
  check_rows(gradients.dout, 2, "dout");
  check_rows(gradients.dq, 4, "dq");
  for (int i = 0; i < problem.kv_buffers; ++i) {
    check_rows(gradients.dkv[i].dk, 4, "dk");
    check_rows(gradients.dkv[i].dv, 4, "dv");
  }
  if (plan.slots == 0) return;
  SPROCKET_CHECK(reinterpret_cast<uintptr_t>(workspace) % 16 == 0, "the workspace lies at {}",
                 fmt::ptr(workspace));
  SPROCKET_CHECK(
      plan.query_blocks_per_group == problem.table.query_blocks || plan.heads_per_group == 1,
      "groups of {} of {} query blocks and {} heads", plan.query_blocks_per_group,
      problem.table.query_blocks, plan.heads_per_group);
  BackwardArguments group{problem,
                          gradients.inverse,
                          gradients.dout,
                          gradients.lse,
                          gradients.delta,
                          gradients.dq,
                          {},
                          0,
                          0,
                          workspace,
                          plan.slots};
  std::copy_n(gradients.dkv, problem.kv_buffers, group.dkv);
  for (int head = problem.first_head; head < problem.last_head; head += plan.heads_per_group) {
    group.problem.first_head = head;
    group.problem.last_head = std::min(head + plan.heads_per_group, problem.last_head);
    const int blocks = problem.table.query_blocks;
    for (int block = 0; block < blocks; block += plan.query_blocks_per_group) {
      group.first_query_block = block;
      group.last_query_block = std::min(block + plan.query_blocks_per_group, blocks);
      launch_backward(group, handle_of(stream));
    }
  }
}

}  // namespace sprocket::kernels::cuda
