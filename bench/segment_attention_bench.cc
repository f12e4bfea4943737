// Rates of the segment attention kernel, as JSON lines.
//
// One line per case: milliseconds and GFLOP/s (4 * D per query-key pair forward, 2.5 times that
// backward, selected pairs only). With one thread, time is the thread's own CPU time, so that other
// programs on the machine disturb it little; with more, wall time. Best of --repetitions.
#include <time.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "base/philox.h"
#include "kernels/aligned_buffer.h"
#include "kernels/isa.h"
#include "kernels/segment_attention.h"

namespace sprocket::kernels {
namespace {

struct Case {
  int length = 0;
  int heads = 1;
  int head_dim = 64;
  int block = 64;
  double density = 1;
  int threads = 1;
  int repetitions = 5;
};

double seconds(int threads) {
  timespec now{};
  clock_gettime(threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &now);
  return now.tv_sec + 1e-9 * now.tv_nsec;
}

// A random set of blocks per row, always with the row's own.
SegmentTable make_table(const Case& c, int blocks) {
  if (c.density >= 1) return make_dense_table(1, c.heads, blocks, blocks);
  const int selected = std::max(1, static_cast<int>(std::lround(c.density * blocks)));
  SegmentTable table{1, c.heads, blocks, blocks, {0}, {}};
  for (int row = 0; row < c.heads * blocks; ++row) {
    const RandomStream random(7, 0, row, RandomPurpose::kTest);
    std::vector<std::pair<uint32_t, int>> keyed(blocks);
    for (int i = 0; i < blocks; ++i) keyed[i] = {i == row % blocks ? 0 : random.bits(i), i};
    std::nth_element(keyed.begin(), keyed.begin() + selected - 1, keyed.end());
    std::vector<int> ids(selected);
    std::transform(keyed.begin(), keyed.begin() + selected, ids.begin(),
                   [](const auto& pair) { return pair.second; });
    std::sort(ids.begin(), ids.end());
    table.kv_block.insert(table.kv_block.end(), ids.begin(), ids.end());
    table.row_offsets.push_back(static_cast<int64_t>(table.kv_block.size()));
  }
  return table;
}

template <class T>
std::vector<T> random_values(int64_t count, int stream) {
  std::vector<float> values(count);
  RandomStream(11, 0, stream, RandomPurpose::kTest).normal(values);
  return {values.begin(), values.end()};
}
template <>
std::vector<BFloat16> random_values(int64_t count, int stream) {
  std::vector<BFloat16> result;
  for (float value : random_values<float>(count, stream)) result.emplace_back(value);
  return result;
}

template <class Run>
double best_of(const Case& c, Run run) {
  double best = 1e30;
  for (int i = 0; i <= c.repetitions; ++i) {
    const double start = seconds(c.threads);
    run();
    if (i > 0) best = std::min(best, seconds(c.threads) - start);
  }
  return best;
}

template <class T>
void measure(const Case& c) {
  const int64_t size = int64_t{c.length} * c.heads * c.head_dim;
  const auto q = random_values<T>(size, 1), k = random_values<T>(size, 2),
             v = random_values<T>(size, 3), dout = random_values<T>(size, 4);
  std::vector<float> out(size), lse(int64_t{c.length} * c.heads), delta(lse.size());
  std::vector<float> dq(size), dk(size), dv(size);
  const int blocks = (c.length + c.block - 1) / c.block;
  std::vector<int64_t> offsets(blocks + 1);
  KvBlockMap map{blocks, false, {}};
  for (int i = 0; i < blocks; ++i) {
    offsets[i + 1] = std::min<int64_t>(c.length, (i + 1) * int64_t{c.block});
    map.blocks.push_back({0, static_cast<int32_t>(offsets[i + 1] - offsets[i]), offsets[i], 0});
  }
  const SegmentTable table = make_table(c, blocks);
  const auto view = [&](auto* data) {
    return contiguous_view(data, c.length, c.heads, c.head_dim);
  };
  const KvBuffer<T> kv{view(k.data()), view(v.data())};
  const KvGradBuffer<T> dkv{view(dk.data()), view(dv.data())};
  const SegmentAttentionProblem<T> problem{
      c.head_dim, 1 / std::sqrt(c.head_dim), view(q.data()), offsets, {&kv, 1}, &table, &map,
      c.threads};
  AlignedBuffer<std::byte> memory;
  const auto workspace_for = [&](Direction direction) -> std::span<std::byte> {
    const int64_t bytes = segment_attention_workspace_bytes(problem, direction);
    return {memory.reserve(bytes), static_cast<size_t>(bytes)};
  };
  const auto forward_workspace = workspace_for(Direction::kForward);
  const double forward = best_of(c, [&] {
    segment_attention_forward<T>(problem, view(out.data()), lse.data(), false, forward_workspace);
  });
  const auto backward_workspace = workspace_for(Direction::kBackward);
  const double backward = best_of(c, [&] {
    for (auto* gradient : {&dq, &dk, &dv}) std::fill(gradient->begin(), gradient->end(), 0.0f);
    segment_attention_delta<T>(view(const_cast<const float*>(out.data())), view(dout.data()), 1,
                               c.length, c.heads, c.head_dim, delta.data(), c.threads);
    segment_attention_backward<T>(problem, view(dout.data()), lse.data(), delta.data(),
                                  view(dq.data()), {&dkv, 1}, backward_workspace);
  });
  double pairs = 0;
  for (int64_t row = 0; row < table.rows(); ++row) {
    const int i = static_cast<int>(row % blocks);
    for (int64_t at = table.row_offsets[row]; at < table.row_offsets[row + 1]; ++at) {
      pairs += double(offsets[i + 1] - offsets[i]) * map.blocks[table.kv_block[at]].rows;
    }
  }
  const double gflop = 4e-9 * c.head_dim * pairs;
  std::printf(
      "{\"dtype\":\"%s\",\"isa\":\"%s\",\"D\":%d,\"L\":%d,\"H\":%d,\"block\":%d,\"density\":%.4f,"
      "\"threads\":%d,\"forward_ms\":%.2f,\"forward_gflops\":%.1f,\"backward_ms\":%.2f,"
      "\"backward_gflops\":%.1f,\"total_gflops\":%.1f}\n",
      std::string(name_of(kDTypeOf<T>)).c_str(), std::string(name_of(current_isa())).c_str(),
      c.head_dim, c.length, c.heads, c.block, table.density(), c.threads, forward * 1e3,
      gflop / forward, backward * 1e3, 2.5 * gflop / backward, 3.5 * gflop / (forward + backward));
  std::fflush(stdout);
}

}  // namespace
}  // namespace sprocket::kernels

int main(int argc, char** argv) {
  using namespace sprocket;
  kernels::Case given;
  std::vector<int> lengths = {4096, 8192};
  std::vector<int> head_dims = {64, 128};
  std::vector<double> densities = {1, 0.125};
  std::vector<std::string> dtypes = {"fp32", "bf16"};
  CLI::App app("Rates of the segment attention kernel, as JSON lines");
  app.add_option("--length", lengths, "Tokens");
  app.add_option("--head-dim", head_dims, "Elements of a head");
  app.add_option("--density", densities, "Share of the KV blocks that a query block selects");
  app.add_option("--dtype", dtypes)->check(CLI::IsMember({"fp32", "bf16"}));
  app.add_option("--heads", given.heads);
  app.add_option("--block", given.block, "Rows of a block");
  app.add_option("--threads", given.threads);
  app.add_option("--repetitions", given.repetitions);
  CLI11_PARSE(app, argc, argv);
  for (const std::string& dtype : dtypes) {
    for (int head_dim : head_dims) {
      for (int length : lengths) {
        for (double density : densities) {
          kernels::Case c = given;
          c.length = length;
          c.head_dim = head_dim;
          c.density = density;
          if (dtype == "fp32") kernels::measure<float>(c);
          if (dtype == "bf16") kernels::measure<BFloat16>(c);
        }
      }
    }
  }
}
