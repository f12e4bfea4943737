#include "kernels/block_selection.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <type_traits>

#include "base/error.h"

namespace sprocket::kernels {
namespace {

template <class A>
using Bits = std::conditional_t<std::is_same_v<A, float>, uint32_t, uint64_t>;
template <class A>
using Key = std::conditional_t<std::is_same_v<A, float>, uint64_t, unsigned __int128>;

// An integer that orders (value descending, id ascending) from large to small, so that a selection
// has no ties left.
template <class A>
Key<A> key_of(A value, uint32_t id) {
  constexpr Bits<A> kSign = Bits<A>{1} << (8 * sizeof(A) - 1);
  Bits<A> ordered = 0;
  if (value == value) {
    const Bits<A> bits = std::bit_cast<Bits<A>>(value + A{0});
    ordered = (bits & kSign) ? ~bits : (bits | kSign);
  }
  return (Key<A>{ordered} << 32) | (~id & 0xffffffffu);
}

template <class A>
int32_t id_of(Key<A> key) {
  return static_cast<int32_t>(~static_cast<uint32_t>(key));
}

// Finds the largest of a row's keys. One histogram over the leading bits (sign, exponent, two bits
// of the mantissa) leaves few candidates for the exact selection.
template <class A>
class TopSelector {
 public:
  std::vector<Key<A>> keys;  // filled by the caller, in ascending order of ids

  // Writes the ids of the `count` largest keys, or of all if they are fewer, in the order of
  // `keys`; returns how many.
  int64_t select(int64_t count, int32_t* ids) {
    const int64_t size = static_cast<int64_t>(keys.size());
    if (count <= 0) return 0;
    const Key<A> threshold = count >= size ? Key<A>{0} : nth_largest(count);
    int64_t written = 0;
    for (const Key<A> key : keys) {
      if (key >= threshold) ids[written++] = id_of<A>(key);
    }
    return written;
  }

 private:
  static constexpr int kBits = 11;
  static size_t bucket_of(Key<A> key) {
    return static_cast<size_t>(key >> (32 + 8 * sizeof(A) - kBits));
  }

  Key<A> nth_largest(int64_t count) {
    histogram_.assign(size_t{1} << kBits, 0);
    for (const Key<A> key : keys) ++histogram_[bucket_of(key)];
    size_t bucket = histogram_.size() - 1;
    while (histogram_[bucket] < count) count -= histogram_[bucket--];
    candidates_.clear();
    for (const Key<A> key : keys) {
      if (bucket_of(key) == bucket) candidates_.push_back(key);
    }
    std::nth_element(candidates_.begin(), candidates_.begin() + (count - 1), candidates_.end(),
                     std::greater<Key<A>>());
    return candidates_[count - 1];
  }

  std::vector<int64_t> histogram_;
  std::vector<Key<A>> candidates_;
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

// One domain of one call: its blocks are [first, last).
struct Domain {
  int first = 0;
  int last = 0;
  int blocks() const { return last - first; }
  bool holds(int block) const { return block >= first && block < last; }
};

std::vector<Domain> domains_of_call(const DomainBudget& budget, int first_query_block,
                                    int query_blocks, int kv_blocks) {
  const std::vector<int32_t>& bounds = budget.first_block;
  SPROCKET_CHECK(bounds.size() >= 2 && bounds.front() == 0 && bounds.back() == kv_blocks &&
                     std::is_sorted(bounds.begin(), bounds.end()),
                 "domains do not cut {} blocks", kv_blocks);
  const int end = first_query_block + query_blocks;
  std::vector<Domain> domains;
  int covered = 0;
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
  TopSelector<A> selector;
  selector.keys.reserve(static_cast<int64_t>(heads) * (kv_blocks - domain.blocks()));
  for (int64_t pair = 0; pair < static_cast<int64_t>(mass.size()); ++pair) {
    if (!domain.holds(static_cast<int>(pair % kv_blocks))) {
      selector.keys.push_back(key_of(mass[pair], static_cast<uint32_t>(pair)));
    }
  }
  std::vector<int32_t> pairs(selector.keys.size());
  pairs.resize(selector.select(budget, pairs.data()));
  for (const int32_t pair : pairs) imports[pair] = 1;
}

}  // namespace

int selected_count(const Decimal& sparsity, int blocks) {
  if (blocks <= 0) return 0;
  const int64_t count = (Decimal::ratio(1, 0) - sparsity).ceil_times(blocks);
  return static_cast<int>(std::clamp<int64_t>(count, 1, blocks));
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
    TopSelector<A> selector;
#pragma omp for
    for (int64_t row = 0; row < rows; ++row) {
      selector.keys.resize(kv_blocks);
      for (int j = 0; j < kv_blocks; ++j) selector.keys[j] = key_of(scores[row * kv_blocks + j], j);
      selector.select(k, table.kv_block.data() + row * k);
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
  const int group = budget.head_group == 0 ? heads : budget.head_group;
  SPROCKET_CHECK(group >= 0 && (heads == 0 || heads % group == 0),
                 "a head group of {} does not divide {} heads", group, heads);
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
    TopSelector<A> selector;
#pragma omp for
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t batch_head = row / query_blocks;
      const int64_t g = domain_of_query[row % query_blocks];
      const uint8_t* allowed =
          imports.data() +
          ((batch_head / heads * domain_count + g) * heads + batch_head % heads) * kv_blocks;
      selector.keys.clear();
      for (int j = 0; j < kv_blocks; ++j) {
        if (domains[g].holds(j) || allowed[j]) {
          selector.keys.push_back(key_of(scores[row * kv_blocks + j], j));
        }
      }
      table.row_offsets[row + 1] = selector.select(k, selected.data() + row * k);
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
