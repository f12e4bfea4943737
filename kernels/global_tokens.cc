#include "kernels/global_tokens.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "base/error.h"
#include "kernels/row_means.h"

namespace sprocket::kernels {
namespace {

template <class T>
struct PartialMeanKernel {
  SPROCKET_INLINE static void run(const T* x, int64_t row_stride, int64_t rows, int64_t head_dim,
                                  Accumulator<T> tokens, Accumulator<T>* mean) {
    mean_of_rows(x, row_stride, rows, head_dim, tokens, mean);
  }
};

template <class A>
struct AddShareKernel {
  SPROCKET_INLINE static void run(const A* gradient, int64_t head_dim, A tokens, A* dx,
                                  int64_t row_stride, int64_t rows) {
    add_share_to_rows(gradient, head_dim, tokens, dx, row_stride, rows);
  }
};

// body(sample, head, group relative to the first, first own row, own rows, tokens of the group)
template <class A, class Body>
void for_each_group(const GlobalTokens& global, int64_t first_token, int64_t count, int batch,
                    int heads, int threads, Body body) {
  const GroupRange range = groups_of(global, first_token, count);
#pragma omp parallel for collapse(3) num_threads(threads)
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t h = 0; h < heads; ++h) {
      for (int64_t g = 0; g < range.count; ++g) {
        const int64_t group = range.first + g;
        const int64_t begin = std::max(group * global.group_tokens, first_token);
        const int64_t end =
            std::min(group * global.group_tokens + global.tokens_of(group), first_token + count);
        body(b, h, g, begin - first_token, end - begin, static_cast<A>(global.tokens_of(group)));
      }
    }
  }
}

}  // namespace

int64_t GlobalTokens::tokens_of(int64_t group) const {
  return std::min(group_tokens, tokens - group * group_tokens);
}

GlobalTokens make_global_tokens(std::span<const int64_t> video_offsets, int first_block,
                                int64_t group_tokens, int segment_groups, bool by_block) {
  SPROCKET_CHECK(!video_offsets.empty() && group_tokens >= 1 && segment_groups >= 1,
                 "{} offsets, groups of {}, segments of {}", video_offsets.size(), group_tokens,
                 segment_groups);
  GlobalTokens global;
  const int64_t start = video_offsets.front();
  global.tokens = video_offsets.back() - start;
  global.group_tokens = group_tokens;
  size_t block = 0;
  for (int64_t group = 0; group < global.groups(); ++group) {
    const int64_t first = group * group_tokens, last = first + global.tokens_of(group);
    while (video_offsets[block + 1] - start <= first) ++block;
    const bool fits = last <= video_offsets[block + 1] - start;
    if (by_block && !fits) {
      throw ConfigError(fmt::format(
          "global tokens can leave out selected blocks only where no pooled group lies in two "
          "blocks; with groups of {} tokens, group {} (tokens {} to {}) crosses the border at "
          "token {}; choose a group size that divides the block size",
          group_tokens, group, first, last - 1, video_offsets[block + 1] - start));
    }
    const double bias = std::log(static_cast<double>(last - first));
    const int32_t segment_block = by_block ? first_block + static_cast<int32_t>(block) : -1;
    if (!global.segments.empty()) {
      GlobalSegment& open = global.segments.back();
      if (open.groups < segment_groups && open.bias == bias && open.block == segment_block) {
        ++open.groups;
        continue;
      }
    }
    global.segments.push_back({group, 1, segment_block, bias});
  }
  return global;
}

GroupRange groups_of(const GlobalTokens& global, int64_t first_token, int64_t count) {
  SPROCKET_CHECK(first_token >= 0 && count >= 0 && first_token + count <= global.tokens,
                 "tokens {} to {} of {}", first_token, first_token + count, global.tokens);
  if (count == 0) return {};
  const int64_t first = first_token / global.group_tokens;
  return {first, (first_token + count - 1) / global.group_tokens - first + 1};
}

template <class T>
void partial_group_means(HeadView<const T> x, const GlobalTokens& global, int64_t first_token,
                         int64_t count, int batch, int heads, int head_dim,
                         HeadView<Accumulator<T>> partial, int threads) {
  using A = Accumulator<T>;
  for_each_group<A>(global, first_token, count, batch, heads, threads,
                    [&](int64_t b, int64_t h, int64_t g, int64_t row, int64_t rows, A tokens) {
                      run_on_isa<PartialMeanKernel<T>>(
                          static_cast<const T*>(x.row(b, row, h)), x.row_stride, rows,
                          static_cast<int64_t>(head_dim), tokens, partial.row(b, g, h));
                    });
}

template <class A>
void add_group_gradient(HeadView<const A> d_groups, const GlobalTokens& global, int64_t first_token,
                        int64_t count, int batch, int heads, int head_dim, HeadView<A> dx,
                        int threads) {
  for_each_group<A>(global, first_token, count, batch, heads, threads,
                    [&](int64_t b, int64_t h, int64_t g, int64_t row, int64_t rows, A tokens) {
                      run_on_isa<AddShareKernel<A>>(static_cast<const A*>(d_groups.row(b, g, h)),
                                                    static_cast<int64_t>(head_dim), tokens,
                                                    dx.row(b, row, h), dx.row_stride, rows);
                    });
}

SegmentTable global_table(const SegmentTable& selected, const GlobalTokens& global,
                          bool exclude_selected, int threads) {
  const int32_t segments = static_cast<int32_t>(global.segments.size());
  if (!exclude_selected) {
    return make_dense_table(selected.batch, selected.heads, selected.query_blocks, segments);
  }
  SPROCKET_CHECK(std::all_of(global.segments.begin(), global.segments.end(),
                             [](const auto& segment) { return segment.block >= 0; }),
                 "global segments are not made by block");
  SegmentTable table{selected.batch, selected.heads, selected.query_blocks, segments, {}, {}};
  const int64_t rows = table.rows();
  table.row_offsets.assign(rows + 1, 0);
  // Blocks ascend on both sides.
  const auto for_each_kept = [&](int64_t row, auto&& visit) {
    const int32_t* next = selected.kv_block.data() + selected.row_offsets[row];
    const int32_t* const end = selected.kv_block.data() + selected.row_offsets[row + 1];
    for (int32_t id = 0; id < segments; ++id) {
      const int32_t block = global.segments[id].block;
      while (next != end && *next < block) ++next;
      if (next == end || *next != block) visit(id);
    }
  };
#pragma omp parallel for num_threads(threads)
  for (int64_t row = 0; row < rows; ++row) {
    int64_t kept = 0;
    for_each_kept(row, [&](int32_t) { ++kept; });
    table.row_offsets[row + 1] = kept;
  }
  std::partial_sum(table.row_offsets.begin(), table.row_offsets.end(), table.row_offsets.begin());
  table.kv_block.resize(table.row_offsets[rows]);
#pragma omp parallel for num_threads(threads)
  for (int64_t row = 0; row < rows; ++row) {
    int32_t* to = table.kv_block.data() + table.row_offsets[row];
    for_each_kept(row, [&](int32_t id) { *to++ = id; });
  }
  return table;
}

#define SPROCKET_INSTANTIATE(T)                                                                  \
  template void partial_group_means<T>(HeadView<const T>, const GlobalTokens&, int64_t, int64_t, \
                                       int, int, int, HeadView<Accumulator<T>>, int);
SPROCKET_INSTANTIATE(double)
SPROCKET_INSTANTIATE(float)
SPROCKET_INSTANTIATE(BFloat16)
template void add_group_gradient(HeadView<const double>, const GlobalTokens&, int64_t, int64_t, int,
                                 int, int, HeadView<double>, int);
template void add_group_gradient(HeadView<const float>, const GlobalTokens&, int64_t, int64_t, int,
                                 int, int, HeadView<float>, int);

}  // namespace sprocket::kernels
