#include "runtime/plan/synthetic_selection.h"

#include <array>
#include <cmath>
#include <vector>

#include "base/error.h"
#include "base/philox.h"
#include "kernels/block_selection.h"
#include "kernels/coarse_attention.h"

namespace sprocket::runtime {
namespace {

constexpr int kPlaces = 4;  // three axes, and the square of the distance from the origin
constexpr int kFeatures = 8;
constexpr double kLikeness = 2;

std::vector<std::array<double, 3>> centres(const parallel::TokenLayout& layout) {
  const double edge = std::cbrt(static_cast<double>(layout.tokens()) / layout.blocks());
  std::vector<std::array<double, 3>> places(layout.blocks());
  for (int block = 0; block < layout.blocks(); ++block) {
    const int64_t first = layout.block_offsets[block], last = layout.block_offsets[block + 1];
    for (int64_t token = first; token < last; ++token) {
      const std::array<int32_t, 3> at = layout.position(token);
      for (int axis = 0; axis < 3; ++axis) {
        places[block][axis] += at[axis] / (edge * static_cast<double>(last - first));
      }
    }
  }
  return places;
}

}  // namespace

kernels::SegmentTable synthetic_selection(const parallel::TokenLayout& layout, int heads,
                                          const Decimal& density,
                                          const std::optional<kernels::DomainBudget>& budget,
                                          const SyntheticSpec& spec) {
  SPROCKET_CHECK_EQ(layout.prefix_blocks(), 0);
  const int blocks = layout.blocks(), dim = kPlaces + kFeatures;
  const std::vector<std::array<double, 3>> places = centres(layout);
  const double factor = std::sqrt(kLikeness / std::sqrt(double{kFeatures}));
  std::vector<double> queries(static_cast<size_t>(heads) * blocks * dim), keys(queries.size());
  std::vector<float> normal(2 * kFeatures);
  for (int head = 0; head < heads; ++head) {
    for (int block = 0; block < blocks; ++block) {
      const size_t at = (static_cast<size_t>(head) * blocks + block) * dim;
      double square = 0;
      for (int axis = 0; axis < 3; ++axis) {
        const double place = places[block][axis] / spec.width;
        queries[at + axis] = keys[at + axis] = place;
        square += place * place;
      }
      queries[at + 3] = 1;
      keys[at + 3] = -square / 2;
      RandomStream(spec.seed, head, block, RandomPurpose::kPlan).normal(normal);
      for (int i = 0; i < kFeatures; ++i) {
        queries[at + kPlaces + i] = factor * normal[i];
        keys[at + kPlaces + i] = factor * normal[kFeatures + i];
      }
    }
  }
  kernels::CoarseProblem<double> problem;
  problem.batch = 1;
  problem.heads = heads;
  problem.query_blocks = problem.kv_blocks = blocks;
  problem.head_dim = dim;
  problem.qc = queries.data();
  problem.kc = keys.data();
  const int k = kernels::selected_count(Decimal::ratio(1, 0) - density, blocks);
  if (!budget) return kernels::select_and_attend<double>(problem, k, nullptr);
  const auto selection =
      kernels::budgeted_selection<double>(problem, k, *budget, {0, budget->domains()}, nullptr);
  return kernels::select_alone(*budget, *selection, problem.threads);
}

parallel::TokenLayout without_prefix(const parallel::TokenLayout& layout) {
  parallel::TokenLayoutSpec spec = layout.spec;
  spec.prefix.clear();
  return parallel::make_token_layout(spec);
}

kernels::SegmentTable with_prefix(const kernels::SegmentTable& video, int prefix_blocks) {
  kernels::SegmentTable whole;
  whole.batch = video.batch;
  whole.heads = video.heads;
  whole.query_blocks = video.query_blocks + prefix_blocks;
  whole.kv_blocks = video.kv_blocks + prefix_blocks;
  whole.row_offsets = {0};
  for (int sample = 0; sample < video.batch; ++sample) {
    for (int head = 0; head < video.heads; ++head) {
      for (int query = 0; query < whole.query_blocks; ++query) {
        const bool prefix = query < prefix_blocks;
        const int all = prefix ? whole.kv_blocks : prefix_blocks;
        for (int32_t key = 0; key < all; ++key) whole.kv_block.push_back(key);
        if (!prefix) {
          for (const int32_t key : video.row(sample, head, query - prefix_blocks)) {
            whole.kv_block.push_back(key + prefix_blocks);
          }
        }
        whole.row_offsets.push_back(std::ssize(whole.kv_block));
      }
    }
  }
  return whole;
}

}  // namespace sprocket::runtime
