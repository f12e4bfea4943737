#include "kernels/cuda/query_pruning.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
#include <vector>

#include "base/error.h"
#include "base/philox.h"
#include "kernels/isa.h"
#include "kernels/query_pruning.h"
#include "tests/kernels/cuda/device_array.h"

namespace sprocket::kernels::cuda {
namespace {

constexpr int kBatch = 2, kHeads = 2;

// Blocks of 4x4x4 and of what a border leaves of them, an empty one, and one token.
struct Sequence {
  std::vector<int64_t> offsets{0};
  std::vector<TokenPosition> positions;
  Sequence() {
    add({4, 4, 4}, {0, 0, 0});
    add({1, 3, 4}, {4, 0, 0});
    offsets.push_back(offsets.back());
    add({2, 2, 3}, {0, 4, 0});
    add({1, 1, 1}, {9, 9, 9});
    add({3, 4, 1}, {0, 0, 8});
  }
  void add(TokenPosition extent, TokenPosition origin) {
    for (int t = 0; t < extent[0]; ++t) {
      for (int h = 0; h < extent[1]; ++h) {
        for (int w = 0; w < extent[2]; ++w) {
          positions.push_back({origin[0] + t, origin[1] + h, origin[2] + w});
        }
      }
    }
    offsets.push_back(static_cast<int64_t>(positions.size()));
  }
  int64_t tokens() const { return offsets.back(); }
  int blocks() const { return static_cast<int>(offsets.size()) - 1; }
};

template <class T>
std::vector<T> values_of(int64_t count, uint64_t sample) {
  std::vector<float> values(count);
  RandomStream(13, 0, sample, RandomPurpose::kTest).normal(values);
  return {values.begin(), values.end()};
}

// [batch, rows, heads, head_dim]
HeadView<const void> read(const void* data, int64_t rows, int head_dim) {
  return {data, rows * kHeads * head_dim, kHeads * head_dim, head_dim};
}
HeadView<void> write(void* data, int64_t rows, int head_dim) {
  return {data, rows * kHeads * head_dim, kHeads * head_dim, head_dim};
}

// A layout in device memory, and a pruning of it.
struct OnDevice {
  OnDevice(const Sequence& sequence, const PruningSpec& spec, int first_exempt_blocks)
      : layout(
            make_pruning_layout(sequence.offsets, sequence.positions, spec, first_exempt_blocks)),
        token_offsets(layout.token_offsets),
        offsets(layout.offsets),
        positions(flat(sequence.positions)),
        centre(layout.centre),
        previous(layout.previous),
        window(layout.window),
        keep(layout.keep),
        keep_if_redundant(layout.keep_if_redundant),
        rows(int64_t{kBatch} * kHeads * sequence.blocks()),
        kept(kBatch * kHeads * layout.offsets.back()),
        source(kBatch * kHeads * sequence.tokens()) {
    view.query_blocks = sequence.blocks();
    view.tokens = sequence.tokens();
    view.kept_rows = layout.offsets.back();
    for (int block = 0; block < sequence.blocks(); ++block) {
      const int64_t tokens = sequence.offsets[block + 1] - sequence.offsets[block];
      view.largest_block = std::max(view.largest_block, static_cast<int>(tokens));
    }
    view.token_offsets = token_offsets.get();
    view.offsets = offsets.get();
    view.positions = positions.get();
    view.centre = centre.get();
    view.previous = layout.previous.empty() ? nullptr : previous.get();
    view.window = window.get();
    view.keep = keep.get();
    view.keep_if_redundant = keep_if_redundant.get();
    view.recovery = spec.recovery;
    view.redundancy_threshold = spec.redundancy_threshold.value_or(0);
    pruning = {rows.get(), kept.get(), source.get()};
  }
  static std::vector<int32_t> flat(const std::vector<TokenPosition>& positions) {
    std::vector<int32_t> values;
    for (const TokenPosition& position : positions) {
      values.insert(values.end(), position.begin(), position.end());
    }
    return values;
  }

  PruningLayout layout;
  DeviceArray<int64_t> token_offsets, offsets;
  DeviceArray<int32_t> positions, centre, previous, window, keep, keep_if_redundant;
  DeviceArray<int32_t> rows, kept, source;
  DevicePruningLayout view;
  DeviceQueryPruning pruning;
};

template <class T>
QueryPruning on_host(const Sequence& sequence, const std::vector<T>& q, int head_dim,
                     const PruningSpec& spec, int first_exempt_blocks) {
  return kernels::prune_queries<T>(
      contiguous_view<const T>(q.data(), sequence.tokens(), kHeads, head_dim), sequence.offsets,
      sequence.positions, kBatch, kHeads, head_dim, spec, first_exempt_blocks, 1);
}

template <class T>
void expect_same(const PruningSpec& spec, int head_dim, int first_exempt_blocks,
                 const std::vector<T>& q) {
  ASSERT_NE(current_isa(), Isa::kBaseline);  // whose similarities have other bits
  const CudaStream stream;
  const Sequence sequence;
  const QueryPruning expected = on_host(sequence, q, head_dim, spec, first_exempt_blocks);
  OnDevice device(sequence, spec, first_exempt_blocks);
  EXPECT_EQ(device.layout.offsets, expected.offsets);
  DeviceArray<T> q_device(q);
  prune_queries(read(q_device.get(), sequence.tokens(), head_dim), kDTypeOf<T>, device.view, kBatch,
                kHeads, head_dim, device.pruning, stream.view());
  EXPECT_EQ(device.rows.download(), expected.rows);
  EXPECT_EQ(device.kept.download(), expected.kept);
  EXPECT_EQ(device.source.download(), expected.source);
}

std::vector<PruningSpec> specs() {
  std::vector<PruningSpec> all(6);
  all[1].keep_ratio = Decimal::parse("0.1");
  all[1].recovery = PruningRecovery::kNearestIndex;
  all[2].window = {2, 2, 0};
  all[2].centre = PruningCentre::kGeometric;
  all[3].redundancy_threshold = 0.0;  // of about half of the blocks
  all[3].redundant_keep_ratio = Decimal::parse("0.2");
  all[4].keep_ratio = Decimal::parse("1");
  all[5].keep_ratio = Decimal::parse("0");
  all[5].window = {0, 1, 2};
  return all;
}

TEST(QueryPruningDeviceTest, KeepsTheTokensThatTheHostKeeps) {
  const int64_t tokens = Sequence().tokens();
  for (const PruningSpec& spec : specs()) {
    for (const int head_dim : {16, 37}) {
      const int64_t count = kBatch * tokens * kHeads * head_dim;
      expect_same(spec, head_dim, 0, values_of<float>(count, 1));
      expect_same(spec, head_dim, 1, values_of<BFloat16>(count, 2));
    }
  }
}

// Equal similarities, zero vectors and what is not a number.
TEST(QueryPruningDeviceTest, TiesAndSpecialVectorsAsOnTheHost) {
  const int64_t count = kBatch * Sequence().tokens() * kHeads;
  std::vector<float> q(count * 4, 1.0f);
  for (int64_t i = 0; i < count; i += 3) std::fill_n(q.begin() + i * 4, 4, 0.0f);
  for (const PruningSpec& spec : specs()) expect_same(spec, 4, 0, q);
  for (int64_t i = 0; i < count; i += 7) {
    q[i * 4 + 1] = std::numeric_limits<float>::quiet_NaN();
  }
  for (const PruningSpec& spec : specs()) expect_same(spec, 4, 2, q);
}

TEST(QueryPruningDeviceTest, RowsGoThereAndBackAsOnTheHost) {
  const CudaStream stream;
  const Sequence sequence;
  constexpr int kDim = 24;
  PruningSpec spec;
  spec.redundancy_threshold = 0.0;
  spec.redundant_keep_ratio = Decimal::parse("0.2");
  const int64_t tokens = sequence.tokens(), count = kBatch * tokens * kHeads * kDim;
  const auto q = values_of<BFloat16>(count, 3), dout = values_of<BFloat16>(count, 4);
  const QueryPruning host = on_host(sequence, q, kDim, spec, 0);
  const int64_t kept_rows = host.kept_rows(), kept_count = kBatch * kept_rows * kHeads * kDim;
  OnDevice device(sequence, spec, 0);
  const auto kept_view = [&](auto* data) { return contiguous_view(data, kept_rows, kHeads, kDim); };
  const auto token_view = [&](auto* data) { return contiguous_view(data, tokens, kHeads, kDim); };
  const auto bits = [](const std::vector<BFloat16>& values) {
    std::vector<uint16_t> result;
    for (const BFloat16 value : values) result.push_back(value.bits);
    return result;
  };

  DeviceArray<BFloat16> q_device(q), dout_device(dout), kept(kept_count), out(count),
      dkept(kept_count);
  prune_queries(read(q_device.get(), tokens, kDim), DType::kBF16, device.view, kBatch, kHeads, kDim,
                device.pruning, stream.view());
  gather_rows(read(q_device.get(), tokens, kDim), DType::kBF16, device.kept.get(), kept_rows,
              kBatch, kHeads, kDim, write(kept.get(), kept_rows, kDim), stream.view());
  std::vector<BFloat16> host_kept(kept_count), host_out(count), host_dkept(kept_count);
  gather_queries<BFloat16>(token_view(q.data()), host, kDim, kept_view(host_kept.data()), 1);
  EXPECT_EQ(bits(kept.download()), bits(host_kept));

  const int64_t mean_count = int64_t{kBatch} * kHeads * sequence.blocks() * kDim;
  DeviceArray<float> means(mean_count);
  kept_means(read(kept.get(), kept_rows, kDim), DType::kBF16, device.view, device.pruning, kBatch,
             kHeads, kDim, means.get(), stream.view());
  std::vector<float> host_means(mean_count);
  kernels::kept_means<BFloat16>(kept_view(static_cast<const BFloat16*>(host_kept.data())), host,
                                kDim, host_means.data(), 1);
  EXPECT_EQ(means.download(), host_means);

  gather_rows(read(kept.get(), kept_rows, kDim), DType::kBF16, device.source.get(), tokens, kBatch,
              kHeads, kDim, write(out.get(), tokens, kDim), stream.view());
  recover_rows<BFloat16>(kept_view(static_cast<const BFloat16*>(host_kept.data())), host, kDim,
                         token_view(host_out.data()), 1);
  EXPECT_EQ(bits(out.download()), bits(host_out));

  recover_rows_backward(read(dout_device.get(), tokens, kDim), DType::kBF16, device.view,
                        device.pruning, kBatch, kHeads, kDim, write(dkept.get(), kept_rows, kDim),
                        stream.view());
  kernels::recover_rows_backward<BFloat16>(token_view(dout.data()), host, kDim,
                                           kept_view(host_dkept.data()), 1);
  EXPECT_EQ(bits(dkept.download()), bits(host_dkept));

  const auto gradient = values_of<float>(kept_count, 5);
  std::vector<float> dq = values_of<float>(count, 6);
  DeviceArray<float> gradient_device(gradient), dq_device(dq);
  scatter_query_gradients(
      contiguous_view<const float>(gradient_device.get(), kept_rows, kHeads, kDim), device.view,
      device.pruning, kBatch, kHeads, kDim,
      contiguous_view<float>(dq_device.get(), tokens, kHeads, kDim), stream.view());
  kernels::scatter_query_gradients<float>(kept_view(gradient.data()), host, kDim,
                                          token_view(dq.data()), 1);
  EXPECT_EQ(dq_device.download(), dq);
}

TEST(QueryPruningDeviceTest, LseIsRowsOfOneElement) {
  const CudaStream stream;
  constexpr int64_t kRows = 5, kTokens = 7;
  const auto kept = values_of<float>(kBatch * kHeads * kRows, 8);
  std::vector<int32_t> source;
  for (int32_t i = 0; i < kBatch * kHeads * kTokens; ++i) source.push_back(i * 3 % kRows);
  DeviceArray<float> kept_device(kept), lse(kBatch * kHeads * kTokens);
  DeviceArray<int32_t> source_device(source);
  gather_rows({kept_device.get(), kHeads * kRows, 1, kRows}, DType::kF32, source_device.get(),
              kTokens, kBatch, kHeads, 1, {lse.get(), kHeads * kTokens, 1, kTokens}, stream.view());
  std::vector<float> expected;
  for (size_t i = 0; i < source.size(); ++i) {
    expected.push_back(kept[i / kTokens * kRows + source[i]]);
  }
  EXPECT_EQ(lse.download(), expected);
}

TEST(QueryPruningDeviceTest, SaysWhichBlocksAreTooLarge) {
  const CudaStream stream;
  DevicePruningLayout layout;
  layout.query_blocks = 1;
  layout.largest_block = 1 << 20;
  EXPECT_THROW(prune_queries({}, DType::kF32, layout, 1, 1, 4, {}, stream.view()), InternalError);
}

}  // namespace
}  // namespace sprocket::kernels::cuda
