#include "kernels/block_samples.h"

#include <algorithm>

#include "base/error.h"
#include "base/philox.h"

namespace sprocket::kernels {
namespace {

constexpr int kHeadsPerLayer = 4096;
constexpr int64_t kDrawsPerBlock = 4096;

// Floyd's algorithm (Bentley and Floyd, CACM 30(9), 1987): `count` distinct ones of [0, size),
// every subset equally likely, one draw each. Marks them.
void draw_subset(const RandomStream& stream, uint64_t first_index, int64_t size, int64_t count,
                 std::vector<uint8_t>& marks) {
  marks.assign(size, count == size);
  if (count == size) return;
  for (int64_t i = 0; i < count; ++i) {
    const int64_t last = size - count + i;
    const int64_t drawn = static_cast<int64_t>(stream.below(first_index + i, last + 1));
    marks[marks[drawn] ? last : drawn] = 1;
  }
}

}  // namespace

BlockSamples sample_blocks(std::span<const int64_t> block_offsets, int first_block, int blocks,
                           std::span<const int> heads, int per_block, const SampleKey& key) {
  SPROCKET_CHECK(per_block >= 0 && per_block <= kDrawsPerBlock, "samples per block is {}",
                 per_block);
  SPROCKET_CHECK(first_block >= 0 && blocks >= 0 &&
                     first_block + blocks < static_cast<int64_t>(block_offsets.size()),
                 "blocks {} to {} of {}", first_block, first_block + blocks,
                 static_cast<int64_t>(block_offsets.size()) - 1);
  SPROCKET_CHECK(key.layer >= 0, "layer {}", key.layer);
  for (const int head : heads) {
    SPROCKET_CHECK(head >= 0 && head < kHeadsPerLayer, "head {} of a layer", head);
  }
  int64_t largest = 1;
  for (size_t i = 1; i < block_offsets.size(); ++i) {
    largest = std::max(largest, block_offsets[i] - block_offsets[i - 1]);
  }
  BlockSamples samples;
  samples.heads = static_cast<int>(heads.size());
  samples.blocks = blocks;
  samples.samples = per_block > 0 ? per_block : static_cast<int>(largest);
  const int64_t slots = samples.samples;
  samples.counts.resize(blocks);
  samples.rows.assign(samples.heads * blocks * slots, -1);
  std::vector<uint8_t> marks;
  for (int64_t h = 0; h < samples.heads; ++h) {
    const uint64_t sample = static_cast<uint64_t>(key.layer) * kHeadsPerLayer + heads[h];
    const RandomStream stream(key.seed, key.step, sample, RandomPurpose::kBlockSample);
    for (int64_t block = 0; block < blocks; ++block) {
      const int64_t id = first_block + block;
      const int64_t size = block_offsets[id + 1] - block_offsets[id];
      const int64_t count = std::min(slots, size);
      samples.counts[block] = static_cast<int32_t>(count);
      draw_subset(stream, id * kDrawsPerBlock, size, count, marks);
      int32_t* rows = samples.rows.data() + (h * blocks + block) * slots;
      const int64_t first_row = block_offsets[id] - block_offsets[first_block];
      for (int64_t token = 0; token < size; ++token) {
        if (marks[token]) *rows++ = static_cast<int32_t>(first_row + token);
      }
    }
  }
  return samples;
}

template <class T>
void gather_samples(HeadView<const T> x, const BlockSamples& samples, int batch, int head_dim,
                    Accumulator<T>* out, int threads) {
  const int64_t slots = static_cast<int64_t>(samples.blocks) * samples.samples;
#pragma omp parallel for collapse(3) num_threads(threads)
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t h = 0; h < samples.heads; ++h) {
      for (int64_t slot = 0; slot < slots; ++slot) {
        const int32_t row = samples.rows[h * slots + slot];
        Accumulator<T>* to = out + ((b * samples.heads + h) * slots + slot) * head_dim;
        if (row < 0) {
          std::fill_n(to, head_dim, Accumulator<T>{});
        } else {
          const T* from = x.row(b, row, h);
          for (int d = 0; d < head_dim; ++d) to[d] = static_cast<Accumulator<T>>(from[d]);
        }
      }
    }
  }
}

template void gather_samples<double>(HeadView<const double>, const BlockSamples&, int, int, double*,
                                     int);
template void gather_samples<float>(HeadView<const float>, const BlockSamples&, int, int, float*,
                                    int);
template void gather_samples<BFloat16>(HeadView<const BFloat16>, const BlockSamples&, int, int,
                                       float*, int);

}  // namespace sprocket::kernels
