// Rates of the segment attention kernel, as JSON lines.
//
// One line per case: milliseconds and GFLOP/s (4 * D per query-key pair forward, 2.5 times that
// backward, listed pairs only). With one thread, time is the thread's own CPU time, so that other
// programs on the machine disturb it little; with more, wall time. Best of --repetitions.
//
// --breakdown measures the parts instead, each alone on one tile of 64 x 64 in cache: where a
// pair's time goes.
#include <time.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "base/dtype.h"
#include "bench/attention_problem.h"
#include "bench/machine_peaks.h"
#include "kernels/isa.h"
#include "kernels/packed_query.h"

namespace sprocket::bench {
namespace {

struct Case {
  AttentionShape shape;
  double density = 1;
  bool uneven = false;
  int repetitions = 5;
};

double seconds(int threads) {
  timespec now{};
  clock_gettime(threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// A random set of blocks per row. Uneven: from a quarter of the average to seven times as many,
// as thresholds give.
kernels::SegmentTable make_table(const Case& c) {
  const int rows = c.shape.blocks(), blocks = c.shape.kv_blocks();
  if (c.density >= 1) return kernels::make_dense_table(1, c.shape.heads, rows, blocks);
  kernels::SegmentTable table{1, c.shape.heads, rows, blocks, {0}, {}};
  const RandomStream sizes(8, 0, 0, RandomPurpose::kTest);
  for (int row = 0; row < c.shape.heads * rows; ++row) {
    const double spread = !c.uneven ? 1 : sizes.uniform(row) < 0.9 ? 0.33 : 7;
    const int selected =
        std::clamp(static_cast<int>(std::lround(spread * c.density * blocks)), 1, blocks);
    const RandomStream random(7, 0, row, RandomPurpose::kTest);
    std::vector<std::pair<uint32_t, int>> keyed(blocks);
    for (int i = 0; i < blocks; ++i) keyed[i] = {random.bits(i), i};
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

// After one run that is not counted.
template <class Run>
double best_of(int repetitions, int threads, Run run) {
  double best = 1e30;
  for (int i = 0; i <= repetitions; ++i) {
    const double start = seconds(threads);
    run();
    if (i > 0) best = std::min(best, seconds(threads) - start);
  }
  return best;
}

template <class T>
void measure(const Case& c) {
  AttentionProblem<T> problem(c.shape, make_table(c));
  problem.fill_randomly();
  const double forward = best_of(c.repetitions, c.shape.threads, [&] { problem.forward(); });
  const double backward = best_of(c.repetitions, c.shape.threads, [&] { problem.backward(); });
  const double gflop = problem.forward_gflop();
  std::printf(
      "{\"dtype\":\"%s\",\"isa\":\"%s\",\"D\":%d,\"L\":%d,\"H\":%d,\"block\":%d,\"kv_block\":%d,"
      "\"density\":%.4f,"
      "\"uneven\":%s,\"threads\":%d,\"forward_ms\":%.2f,\"forward_gflops\":%.1f,"
      "\"backward_ms\":%.2f,\"backward_gflops\":%.1f,\"total_gflops\":%.1f}\n",
      std::string(name_of(kDTypeOf<T>)).c_str(),
      std::string(kernels::name_of(kernels::current_isa())).c_str(), c.shape.head_dim,
      c.shape.length, c.shape.heads, c.shape.block, c.shape.kv_rows(), problem.table().density(),
      c.uneven ? "true" : "false", c.shape.threads, forward * 1e3, gflop / forward, backward * 1e3,
      2.5 * gflop / backward, 3.5 * gflop / (forward + backward));
  std::fflush(stdout);
}

// Microseconds of one part of the work.
template <class Run>
double microseconds(Run run) {
  constexpr int kTimes = 200;
  const auto repeat = [&] {
    for (int i = 0; i < kTimes; ++i) run();
  };
  return 1e6 / kTimes * best_of(20, 1, repeat);
}

template <class Packed>
void measure_parts(int dim) {
  using namespace kernels;
  constexpr bool kPairs = std::is_same_v<Packed, BFloat16>;
  const int64_t size = int64_t{kTileRows} * dim;
  AlignedBuffer<std::byte> memory;
  WorkspaceArena arena({memory.reserve(16 << 20), 16 << 20});
  Packed* const rows = arena.take<Packed>(size);
  Packed* const keys = arena.take<Packed>(size);
  Packed* const packed = arena.take<Packed>(size);
  float* const scores = arena.take<float>(kTileRows * kMaxColumns);
  float* const dscores = arena.take<float>(kTileRows * kMaxColumns);
  float* const sums = arena.take<float>(size);
  BFloat16* const pairs = arena.take<BFloat16>(3 * kTileRows * kMaxColumns);
  float* const statistics = arena.take<float>(3 * kMaxColumns);
  for (int64_t i = 0; i < size; ++i) rows[i] = keys[i] = Packed(0.01f * static_cast<float>(i % 7));
  std::fill_n(sums, size, 0.0f);
  std::fill_n(statistics, 3 * kMaxColumns, 0.0f);
  PackedQuery<Packed> query(dim, true, arena);
  const QueryTile tile{0, 0, 0, 0, kMaxColumns, kMaxColumns, 0};
  TileProducts<Packed> products(dim);
  products.select(kTileRows, kMaxColumns);
  const TileOps ops = tile_ops();
  Packed* weights;
  if constexpr (kPairs) {
    weights = pairs;
  } else {
    weights = scores;
  }
  const double query_packing = microseconds([&] { query.pack(rows, dim, dim, tile, packed); });
  const double score_product = microseconds([&] { products.scores(keys, query.across(), scores); });
  const double softmax = microseconds([&] {
    ops.softmax({scores, kTileRows, kMaxColumns, 0.01f, 0, statistics, statistics + kMaxColumns,
                 sums, dim, kPairs ? pairs : nullptr});
  });
  const double output_product = microseconds([&] { products.outputs(keys, weights, sums); });
  const double gradient = microseconds([&] {
    ops.gradient({scores, dscores, kTileRows, kMaxColumns, 0.01f, 0, 0.01f, statistics,
                  statistics + kMaxColumns, statistics + 2 * kMaxColumns, kPairs ? pairs : nullptr,
                  pairs + kTileRows * kMaxColumns, pairs + 2 * kTileRows * kMaxColumns});
  });
  const double key_product =
      microseconds([&] { products.key_gradients(weights, query.along(), sums); });
  const double key_packing = microseconds([&] {
    for (int i = 0; i < 2; ++i) copy_rows(rows, dim, kTileRows, dim, packed, kTileRows, dim);
  });
  const double transposition = microseconds([&] {
    if constexpr (kPairs) transpose_pairs(rows, kTileRows, dim, packed, packed);
  });
  const double gradient_storing =
      microseconds([&] { add_rows(sums, dim, kTileRows, dim, sums, dim); });
  std::printf(
      "{\"dtype\":\"%s\",\"D\":%d,\"us\":{\"scores\":%.3f,\"softmax\":%.3f,\"outputs\":%.3f,"
      "\"gradient\":%.3f,\"key_gradients\":%.3f,\"pack_query\":%.3f,\"pack_key_value\":%.3f,"
      "\"transpose\":%.3f,\"add_rows\":%.3f}}\n",
      kPairs ? "bf16" : "fp32", dim, score_product, softmax, output_product, gradient, key_product,
      query_packing, key_packing, transposition, gradient_storing);
  std::fflush(stdout);
}

}  // namespace
}  // namespace sprocket::bench

int main(int argc, char** argv) {
  using namespace sprocket;
  bench::Case given;
  std::vector<int> lengths = {4096, 8192};
  std::vector<int> head_dims = {64, 128};
  std::vector<double> densities = {1, 0.1};
  std::vector<std::string> dtypes = {"fp32", "bf16"};
  bool breakdown = false;
  CLI::App app("Rates of the segment attention kernel, as JSON lines");
  app.add_option("--length", lengths, "Tokens");
  app.add_option("--head-dim", head_dims, "Elements of a head");
  app.add_option("--density", densities, "Share of the KV blocks that a query block selects");
  app.add_option("--dtype", dtypes)->check(CLI::IsMember({"fp32", "bf16"}));
  app.add_option("--heads", given.shape.heads);
  app.add_option("--block", given.shape.block, "Rows of a block");
  app.add_option("--kv-block", given.shape.kv_block, "Rows of a KV block; 0: as a query block");
  app.add_option("--threads", given.shape.threads);
  app.add_option("--repetitions", given.repetitions);
  app.add_flag("--uneven", given.uneven, "Query blocks select different numbers of blocks");
  app.add_flag("--breakdown", breakdown, "The parts of the work, each alone on one tile");
  CLI11_PARSE(app, argc, argv);
  const bench::MachinePeaks peaks = bench::measure_peaks(given.shape.threads);
  std::printf("{\"threads\":%d,\"fp32_peak_gflops\":%.1f,\"bf16_peak_gflops\":%.1f}\n",
              given.shape.threads, peaks.fp32_gflops, peaks.bf16_gflops);
  for (const std::string& dtype : dtypes) {
    for (int head_dim : head_dims) {
      if (breakdown) {
        if (dtype == "fp32") bench::measure_parts<float>(head_dim);
        if (dtype == "bf16") bench::measure_parts<BFloat16>(head_dim);
        continue;
      }
      for (int length : lengths) {
        for (double density : densities) {
          bench::Case c = given;
          c.shape.length = length;
          c.shape.head_dim = head_dim;
          c.density = density;
          if (dtype == "fp32") bench::measure<float>(c);
          if (dtype == "bf16") bench::measure<BFloat16>(c);
        }
      }
    }
  }
}
