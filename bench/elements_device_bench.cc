// Time of the element-wise device kernels on the activations of one transformer layer, against a
// device-to-device copy in the same run, as JSON lines.
//
// `gb_per_s` counts the bytes that a kernel must move (docs/device_elements.md), read and written;
// `of_copy` is that rate over the copy's. Kernels and copy take turns; medians count.
#include <cuda_runtime_api.h>
#include <fmt/format.h>
#include <CLI/CLI.hpp>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "base/bfloat16.h"
#include "base/cuda_stream.h"
#include "bench/device_memory.h"
#include "kernels/cuda/branch_combine.h"
#include "kernels/cuda/elementwise.h"
#include "kernels/cuda/optimizer.h"
#include "kernels/cuda/row_pack.h"

namespace sprocket {
namespace {

using namespace kernels::cuda;
using bench::Memory;
using kernels::HeadView;
using kernels::RowRun;
using T = __nv_bfloat16;

constexpr int kRounds = 7;
constexpr int kHeadDim = 128;
constexpr int kBlockRows = 64;

struct Case {
  std::string name;
  int64_t bytes;
  std::function<void(StreamView)> call;
  std::vector<double> seconds = {};
};

void report(int64_t rows, int64_t dim, std::vector<Case> cases) {
  CudaStream stream;
  bench::DeviceClock clock;
  for (int round = -2; round < kRounds; ++round) {
    clock.mark(stream.view());
    for (const Case& c : cases) {
      c.call(stream.view());
      clock.mark(stream.view());
    }
    const std::vector<double> seconds = clock.take_seconds();
    for (size_t i = 0; round >= 0 && i < cases.size(); ++i) cases[i].seconds.push_back(seconds[i]);
  }
  double copy_rate = 0;
  for (Case& c : cases) {
    std::sort(c.seconds.begin(), c.seconds.end());
    const double median = c.seconds[kRounds / 2];
    const double rate = median > 0 ? static_cast<double>(c.bytes) / median * 1e-9 : 0;
    if (c.name == "copy") copy_rate = rate;
    fmt::print(
        "{{\"bench\": \"elements\", \"kernel\": \"{}\", \"rows\": {}, \"dim\": {}, \"dtype\": "
        "\"bf16\", \"microseconds\": {:.2f}, \"fastest\": {:.2f}, \"slowest\": {:.2f}, "
        "\"gb_per_s\": {:.1f}, \"of_copy\": {:.3f}}}\n",
        c.name, rows, dim, median * 1e6, c.seconds.front() * 1e6, c.seconds.back() * 1e6, rate,
        copy_rate > 0 ? rate / copy_rate : 0);
  }
}

void run(int64_t rows, int64_t dim) {
  const int64_t count = rows * dim;
  const int heads = static_cast<int>(dim / kHeadDim);
  const bench::NormalNumbers<float> numbers(0);
  const bench::NormalNumbers<BFloat16> rounded(0);
  const Memory<float> x(count, numbers), dx(count, numbers), square(count),
      parameter(count, numbers), vectors(4 * dim, numbers), angles(rows * kHeadDim, numbers);
  const Memory<T> y(count, rounded), dy(count, rounded), gate(count, rounded), out(count);
  Memory<char> memory(layer_norm_backward_workspace_bytes(1, rows, dim) +
                      sum_of_squares_workspace_bytes(count));
  const Workspace workspace{memory.get(), layer_norm_backward_workspace_bytes(1, rows, dim) +
                                              sum_of_squares_workspace_bytes(count)};
  // The variance of AdamW is not negative.
  check_cuda(cudaMemset(square.get(), 0, count * sizeof(float)), "cudaMemset");
  float *scale = vectors.get(), *shift = scale + dim, *dscale = shift + dim, *dshift = dscale + dim;
  const kernels::RowAffine<float> affine{scale, shift, dim, 1};
  const kernels::Rotation<float> rotation{angles.get(), angles.get() + rows * kHeadDim / 2,
                                          kHeadDim};
  const Memory<AdamWTensor<T>> tensors(std::vector<AdamWTensor<T>>{
      {dx.get(), parameter.get(), x.get(), square.get(), out.get(), count}});
  const auto chunk_list = tensor_chunks({count});
  const Memory<TensorChunk> chunks(chunk_list);
  const Memory<double> sum(1);
  kernels::AdamWStep step;
  step.learning_rate = 1e-6;

  std::vector<int64_t> offsets;
  for (int64_t row = 0; row < rows; row += kBlockRows) offsets.push_back(row);
  offsets.push_back(rows);
  const int blocks = static_cast<int>(offsets.size()) - 1;
  const Memory<int64_t> device_offsets(offsets);
  const Memory<float> coarse(static_cast<int64_t>(blocks) * dim, numbers);
  const auto view = [&](auto* data) {
    return HeadView<std::remove_pointer_t<decltype(data)>>{data, count, dim, kHeadDim};
  };
  Branches<T> branches;
  branches.fine = view(static_cast<const float*>(x.get()));
  branches.fine_gate = view(static_cast<const T*>(gate.get()));
  branches.coarse = coarse.get();
  branches.coarse_gate = view(static_cast<const T*>(y.get()));
  branches.offsets = device_offsets.get();
  branches.blocks = blocks;
  branches.batch = 1;
  branches.heads = heads;
  branches.head_dim = kHeadDim;

  // Every second block of every head.
  std::vector<RowRun> run_list;
  int64_t packed_rows = 0;
  for (int head = 0; head < heads; ++head) {
    for (int block = head % 2; block < blocks; block += 2) {
      const int64_t length = offsets[block + 1] - offsets[block];
      run_list.push_back({0, head, offsets[block], length, packed_rows});
      packed_rows += length;
    }
  }
  const Memory<RowRun> run_memory(run_list);
  const DeviceRowRuns runs{run_memory.get(), static_cast<int64_t>(run_list.size()), kBlockRows};

  std::vector<Case> cases;
  cases.push_back({"copy", 8 * count, [&](StreamView s) {
                     check_cuda(cudaMemcpyAsync(dx.get(), x.get(), count * sizeof(float),
                                                cudaMemcpyDeviceToDevice,
                                                static_cast<cudaStream_t>(s.cuda_handle())),
                                "cudaMemcpyAsync");
                   }});
  cases.push_back({"layer_norm", 6 * count, [&](StreamView s) {
                     layer_norm<T>(x.get(), affine, 1, rows, dim, 1e-6, out.get(), s);
                   }});
  cases.push_back({"layer_norm_backward", 14 * count, [&](StreamView s) {
                     layer_norm_backward<T>(dy.get(), x.get(), affine, 1, rows, dim, 1e-6, dx.get(),
                                            dscale, dshift, workspace, s);
                   }});
  cases.push_back({"rms_norm_rotate", 4 * count, [&](StreamView s) {
                     rms_norm_rotate<T>(y.get(), scale, rotation, 1, rows, dim, 1e-6, out.get(), s);
                   }});
  cases.push_back({"rms_norm_rotate_backward", 6 * count, [&](StreamView s) {
                     rms_norm_rotate_backward<T>(dy.get(), y.get(), scale, rotation, 1, rows, dim,
                                                 1e-6, out.get(), dscale, workspace, s);
                   }});
  cases.push_back({"add_gated", 10 * count, [&](StreamView s) {
                     add_gated<T>(y.get(), scale, 0, 1, rows, dim, dx.get(), s);
                   }});
  cases.push_back({"add_gated_backward", 8 * count, [&](StreamView s) {
                     add_gated_backward<T>(dx.get(), y.get(), scale, 0, 1, rows, dim, out.get(),
                                           dscale, workspace, s);
                   }});
  cases.push_back(
      {"gelu_tanh", 4 * count, [&](StreamView s) { gelu_tanh<T>(y.get(), count, out.get(), s); }});
  cases.push_back({"gelu_tanh_backward", 6 * count, [&](StreamView s) {
                     gelu_tanh_backward<T>(dy.get(), y.get(), count, out.get(), s);
                   }});
  cases.push_back({"combine_branches", 10 * count,
                   [&](StreamView s) { combine_branches<T>(branches, view(out.get()), s); }});
  cases.push_back({"pack_rows", 4 * packed_rows * kHeadDim, [&](StreamView s) {
                     pack_rows<T>(view(static_cast<const T*>(y.get())), runs, kHeadDim, out.get(),
                                  s);
                   }});
  cases.push_back({"add_packed_rows", 10 * packed_rows * kHeadDim, [&](StreamView s) {
                     add_packed_rows<T>(y.get(), runs, kHeadDim, view(dx.get()), s);
                   }});
  cases.push_back({"sum_of_squares", 4 * count, [&](StreamView s) {
                     sum_of_squares(parameter.get(), count, sum.get(), workspace, s);
                   }});
  cases.push_back({"adamw_update", 30 * count, [&](StreamView s) {
                     adamw_update<T>(step, tensors.get(), chunks.get(),
                                     static_cast<int64_t>(chunk_list.size()), nullptr, s);
                   }});
  report(rows, dim, std::move(cases));
}

}  // namespace
}  // namespace sprocket

int main(int argc, char** argv) {
  CLI::App app("Time of the element-wise device kernels, as JSON lines");
  int64_t rows = 32760;
  std::vector<int64_t> dims{1536, 5120};
  app.add_option("--rows", rows, "Tokens")->check(CLI::PositiveNumber);
  app.add_option("--dims", dims, "Channels, multiples of 128");
  bool smoke = false;
  app.add_flag("--smoke", smoke,
               "One tiny shape, as a simulator can do it: its times mean nothing");
  CLI11_PARSE(app, argc, argv);
  if (smoke) {
    rows = 70;
    dims = {128};
  }
  if (!sprocket::bench::has_device()) {
    fmt::print(stderr, "elements_device_bench: expected a CUDA device, found none\n");
    return sprocket::bench::kNoDevice;
  }
  for (const int64_t dim : dims) sprocket::run(rows, dim);
  return 0;
}
