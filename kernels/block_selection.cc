#include "kernels/block_selection.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <numeric>

#include "base/error.h"
#include "kernels/lanes.h"

namespace sprocket::kernels {
namespace {

template <class A>
using KeyLanes = IntegerLanes<A>;
template <class A>
using Key = std::conditional_t<sizeof(A) == 4, int32_t, int64_t>;
template <class A>
using UnsignedKey = std::make_unsigned_t<Key<A>>;
template <class A>
constexpr Key<A> kLowest = std::numeric_limits<Key<A>>::min();

template <class A>
SPROCKET_INLINE KeyLanes<A> load_keys(const Key<A>* from) {
  KeyLanes<A> keys;
  std::memcpy(&keys, from, sizeof keys);
  return keys;
}

// Integers in the order of the values: the exponent and mantissa of a negative number count
// backwards. +0 for -0; a NaN is the lowest.
template <class A>
SPROCKET_INLINE KeyLanes<A> keys_of(Lanes<A> values) {
  constexpr int kSignShift = 8 * sizeof(A) - 1;
  const KeyLanes<A> bits = (KeyLanes<A>)(values + Lanes<A>{});
  const KeyLanes<A> keys = bits ^ ((bits >> kSignShift) & std::numeric_limits<Key<A>>::max());
  return values == values ? keys : KeyLanes<A>{} + kLowest<A>;
}

template <class A>
SPROCKET_INLINE int64_t count_from(const Key<A>* keys, int64_t padded, Key<A> threshold) {
  const KeyLanes<A> thresholds = KeyLanes<A>{} + threshold;
  KeyLanes<A> counts{};
  for (int64_t j = 0; j < padded; j += kLanes<A>) {
    counts -= (KeyLanes<A>)(load_keys<A>(keys + j) >= thresholds);
  }
  int64_t count = 0;
  for (int i = 0; i < kLanes<A>; ++i) count += counts[i];
  return count;
}

// 0 < count < size; keys has room for whole vectors.
template <class A>
struct SelectKernel {
  SPROCKET_INLINE static void run(const A* scores, int64_t size, int64_t count, Key<A>* keys,
                                  int32_t* positions) {
    const int64_t whole = size - size % kLanes<A>;
    const int64_t padded = (size + kLanes<A> - 1) / kLanes<A> * kLanes<A>;
    KeyLanes<A> low_lanes = KeyLanes<A>{} + std::numeric_limits<Key<A>>::max();
    KeyLanes<A> high_lanes = KeyLanes<A>{} + kLowest<A>;
    for (int64_t j = 0; j < whole; j += kLanes<A>) {
      const KeyLanes<A> key = keys_of<A>(load(scores + j));
      std::memcpy(keys + j, &key, sizeof key);
      low_lanes = key < low_lanes ? key : low_lanes;
      high_lanes = key > high_lanes ? key : high_lanes;
    }
    if (whole < size) {
      const KeyLanes<A> key = keys_of<A>(load_first(scores + whole, size - whole));
      std::memcpy(keys + whole, &key, sizeof key);
      std::fill(keys + size, keys + padded, kLowest<A>);
    }
    Key<A> low = std::numeric_limits<Key<A>>::max(), high = kLowest<A>;
    for (int i = 0; i < kLanes<A>; ++i) {
      low = std::min<Key<A>>(low, low_lanes[i]);
      high = std::max<Key<A>>(high, high_lanes[i]);
    }
    for (int64_t j = whole; j < size; ++j) {
      low = std::min(low, keys[j]);
      high = std::max(high, keys[j]);
    }

    // The largest threshold that at least `count` keys reach, by bisection between low, which
    // enough reach, and high, which too few do. Padding lies below every middle.
    Key<A> threshold = high;
    if (count_from<A>(keys, padded, high) < count) {
      while (static_cast<UnsignedKey<A>>(high) - static_cast<UnsignedKey<A>>(low) > 1) {
        const UnsignedKey<A> gap =
            static_cast<UnsignedKey<A>>(high) - static_cast<UnsignedKey<A>>(low);
        const Key<A> middle = static_cast<Key<A>>(static_cast<UnsignedKey<A>>(low) + gap / 2);
        const int64_t reached = count_from<A>(keys, padded, middle);
        (reached >= count ? low : high) = middle;
        if (reached == count) break;
      }
      threshold = low;
    }
    if (count_from<A>(keys, padded, threshold) == count) {
      for (int64_t j = 0, written = 0; written < count; ++j) {
        positions[written] = static_cast<int32_t>(j);
        written += keys[j] >= threshold;
      }
      return;
    }
    int64_t ties = count - count_from<A>(keys, padded, threshold + 1);
    for (int64_t j = 0, written = 0; written < count; ++j) {
      const bool tie = (keys[j] == threshold) & (ties > 0);
      positions[written] = static_cast<int32_t>(j);
      written += static_cast<int64_t>(keys[j] > threshold) + tie;
      ties -= tie;
    }
  }
};

SegmentTable empty_table(int batch, int heads, int query_blocks, int kv_blocks) {
  SegmentTable table;
  table.batch = batch;
  table.heads = heads;
  table.query_blocks = query_blocks;
  table.kv_blocks = kv_blocks;
  table.row_offsets.assign(static_cast<int64_t>(batch) * heads * query_blocks + 1, 0);
  return table;
}

void check_count(int64_t rows, int kv_blocks, int k) {
  SPROCKET_CHECK(rows == 0 || (k >= 1 && k <= kv_blocks),
                 "expected 1 to {} selected blocks, found {}", kv_blocks, k);
}

// Marks the pairs that a group of heads of one sample may import into a domain; imports is
// [heads, kv_blocks]. `unbudgeted` holds the top k of every row of the sample, rows of `head`
// starting at head * query_blocks.
template <class A>
void mark_imports(const A* probabilities, const int32_t* unbudgeted, int k, int heads,
                  int query_blocks, int kv_blocks, int first_query_block, const Domain& domain,
                  int64_t budget, uint8_t* imports) {
  std::vector<A> mass(static_cast<int64_t>(heads) * kv_blocks, A{0});
  for (int h = 0; h < heads; ++h) {
    for (int q = domain.first - first_query_block; q < domain.last - first_query_block; ++q) {
      const int64_t row = static_cast<int64_t>(h) * query_blocks + q;
      for (int i = 0; i < k; ++i) {
        const int32_t j = unbudgeted[row * k + i];
        mass[static_cast<int64_t>(h) * kv_blocks + j] += probabilities[row * kv_blocks + j];
      }
    }
  }
  std::vector<int64_t> pairs;
  for (int64_t pair = 0; pair < static_cast<int64_t>(mass.size()); ++pair) {
    if (domain.holds(static_cast<int>(pair % kv_blocks))) continue;
    mass[pairs.size()] = mass[pair];
    pairs.push_back(pair);
  }
  std::vector<int32_t> chosen(budget);
  RowSelector<A> selector;
  selector.select(mass.data(), static_cast<int64_t>(pairs.size()), budget, chosen.data());
  for (const int32_t position : chosen) imports[pairs[position]] = 1;
}

}  // namespace

int selected_count(const Decimal& sparsity, int blocks) {
  if (blocks <= 0) return 0;
  const int64_t count = (Decimal::ratio(1, 0) - sparsity).ceil_times(blocks);
  return static_cast<int>(std::clamp<int64_t>(count, 1, blocks));
}

template <class A>
void RowSelector<A>::select(const A* scores, int64_t size, int64_t count, int32_t* positions) {
  if (count == 0) return;
  if (count == size) {
    std::iota(positions, positions + size, 0);
    return;
  }
  run_on_isa<SelectKernel<A>>(scores, size, count, keys_.reserve(size + kLanes<A>), positions);
}

template class RowSelector<float>;
template class RowSelector<double>;

std::vector<Domain> domains_of_call(const DomainBudget& budget, int first_query_block,
                                    int query_blocks, int kv_blocks) {
  const std::vector<int32_t>& bounds = budget.first_block;
  SPROCKET_CHECK(bounds.size() >= 2 && bounds.front() >= 0 && bounds.back() == kv_blocks &&
                     std::is_sorted(bounds.begin(), bounds.end()),
                 "domains do not cut {} blocks", kv_blocks);
  const int end = first_query_block + query_blocks;
  std::vector<Domain> domains;
  int covered = std::clamp(bounds.front() - first_query_block, 0, query_blocks);
  for (size_t g = 0; g + 1 < bounds.size(); ++g) {
    const Domain domain{bounds[g], bounds[g + 1]};
    if (domain.blocks() == 0 || domain.last <= first_query_block || domain.first >= end) continue;
    SPROCKET_CHECK(domain.first >= first_query_block && domain.last <= end,
                   "query blocks {} to {} cut the domain of blocks {} to {}", first_query_block,
                   end, domain.first, domain.last);
    covered += domain.blocks();
    domains.push_back(domain);
  }
  SPROCKET_CHECK_EQ(covered, query_blocks);
  return domains;
}

int heads_of_group(const DomainBudget& budget, int heads) {
  const int group = budget.head_group == 0 ? heads : budget.head_group;
  SPROCKET_CHECK(group >= 0 && (heads == 0 || (group > 0 && heads % group == 0)),
                 "a head group of {} does not divide {} heads", group, heads);
  return group;
}

template <class A>
SegmentTable select_top_k(const A* scores, int batch, int heads, int query_blocks, int kv_blocks,
                          int k, int threads) {
  SegmentTable table = empty_table(batch, heads, query_blocks, kv_blocks);
  const int64_t rows = table.rows();
  check_count(rows, kv_blocks, k);
  for (int64_t row = 0; row <= rows; ++row) table.row_offsets[row] = row * k;
  table.kv_block.resize(rows * k);
#pragma omp parallel num_threads(threads)
  {
    RowSelector<A> selector;
#pragma omp for
    for (int64_t row = 0; row < rows; ++row) {
      selector.select(scores + row * kv_blocks, kv_blocks, k, table.kv_block.data() + row * k);
    }
  }
  return table;
}

template <class A>
SegmentTable select_with_budget(const A* scores, const A* probabilities, int batch, int heads,
                                int first_query_block, int query_blocks, int kv_blocks, int k,
                                const DomainBudget& budget, int threads) {
  const std::vector<Domain> domains =
      domains_of_call(budget, first_query_block, query_blocks, kv_blocks);
  SPROCKET_CHECK(!(budget.max_coverage < Decimal()), "max_coverage is {}",
                 budget.max_coverage.to_string());
  SPROCKET_CHECK_EQ(budget.first_block.front(), 0);
  const int group = heads_of_group(budget, heads);
  SegmentTable plain = select_top_k(scores, batch, heads, query_blocks, kv_blocks, k, threads);
  if (!(budget.max_coverage < Decimal::ratio(1, 0))) return plain;

  // imports[(sample, domain, head), block]
  const int64_t groups = heads == 0 ? 0 : heads / group;
  const int64_t domain_count = static_cast<int64_t>(domains.size());
  std::vector<uint8_t> imports(batch * domain_count * heads * kv_blocks, 0);
#pragma omp parallel for collapse(3) num_threads(threads) schedule(dynamic)
  for (int64_t b = 0; b < batch; ++b) {
    for (int64_t g = 0; g < domain_count; ++g) {
      for (int64_t hg = 0; hg < groups; ++hg) {
        const int64_t head = hg * group;
        const int64_t row = (b * heads + head) * query_blocks;
        const int64_t pairs = static_cast<int64_t>(group) * (kv_blocks - domains[g].blocks());
        mark_imports(probabilities + row * kv_blocks, plain.kv_block.data() + row * k, k, group,
                     query_blocks, kv_blocks, first_query_block, domains[g],
                     budget.max_coverage.floor_times(pairs),
                     imports.data() + ((b * domain_count + g) * heads + head) * kv_blocks);
      }
    }
  }

  SegmentTable table = empty_table(batch, heads, query_blocks, kv_blocks);
  std::vector<int64_t> domain_of_query(query_blocks);
  for (int64_t g = 0; g < domain_count; ++g) {
    std::fill_n(domain_of_query.begin() + (domains[g].first - first_query_block),
                domains[g].blocks(), g);
  }
  const int64_t rows = table.rows();
  std::vector<int32_t> selected(rows * k);
#pragma omp parallel num_threads(threads)
  {
    RowSelector<A> selector;
    std::vector<A> candidate_scores;
    std::vector<int32_t> candidates;
#pragma omp for
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t batch_head = row / query_blocks;
      const int64_t g = domain_of_query[row % query_blocks];
      const uint8_t* allowed =
          imports.data() +
          ((batch_head / heads * domain_count + g) * heads + batch_head % heads) * kv_blocks;
      candidates.clear();
      candidate_scores.clear();
      for (int j = 0; j < kv_blocks; ++j) {
        if (!domains[g].holds(j) && !allowed[j]) continue;
        candidates.push_back(j);
        candidate_scores.push_back(scores[row * kv_blocks + j]);
      }
      const int64_t size = static_cast<int64_t>(candidates.size());
      const int64_t count = std::min<int64_t>(k, size);
      int32_t* ids = selected.data() + row * k;
      selector.select(candidate_scores.data(), size, count, ids);
      for (int64_t i = 0; i < count; ++i) ids[i] = candidates[ids[i]];
      table.row_offsets[row + 1] = count;
    }
  }
  for (int64_t row = 0; row < rows; ++row) {
    const int32_t* from = selected.data() + row * k;
    table.kv_block.insert(table.kv_block.end(), from, from + table.row_offsets[row + 1]);
    table.row_offsets[row + 1] += table.row_offsets[row];
  }
  return table;
}

template SegmentTable select_top_k(const float*, int, int, int, int, int, int);
template SegmentTable select_top_k(const double*, int, int, int, int, int, int);
template SegmentTable select_with_budget(const float*, const float*, int, int, int, int, int, int,
                                         const DomainBudget&, int);
template SegmentTable select_with_budget(const double*, const double*, int, int, int, int, int, int,
                                         const DomainBudget&, int);

}  // namespace sprocket::kernels
