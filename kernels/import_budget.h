// Domains and the budget of what their query blocks may select elsewhere (docs/attention.md).
//
// Domains are contiguous ranges of video blocks. A query block of a domain may select blocks of its
// own domain and *imports*: (head, block) pairs of other domains, of which there is a limited
// number. Prefix blocks belong to no domain, are remote for nobody and are never counted. In every
// sample of the batch by itself, for scores S and shares P of a row's mass, as the method defines
// them:
//   1. every row selects without a budget;
//   2. a[g, h, j] = sum over the query blocks of domain g, ascending, of P[q, j] where q's row has
//      selected j;
//   3. imports, in every group of heads, by the largest a, ties to the smaller (h, j):
//        kFlat  of domain g: floor(max_coverage * heads * blocks outside) pairs outside of it;
//        kTree  the domains are the leaves of a binary tree. Every node but the root imports
//               floor(max_coverage[level] * heads * blocks of its sibling) pairs of its sibling,
//               by the sums of a over its domains, ascending. A domain has the imports of all
//               nodes on its way to the root;
//   4. every row selects by its method's rule among the own domain's blocks and the imports of its
//      head. Counts (k, quotas, bounds) are those of all video blocks, never more than there are
//      candidates; statistics, masses and thresholds are those of the candidates.
// All of this is the same whatever subset of whole domains a call holds. Where max_coverage is 1
// everywhere, or a single domain is not empty, it is the method without a budget.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/decimal.h"
#include "kernels/segment_table.h"

namespace sprocket::kernels {

enum class BudgetForm { kFlat, kTree };

struct DomainBudget {
  BudgetForm form = BudgetForm::kFlat;
  // [domains + 1], from the first video block to kv_blocks; domain g is
  // [first_block[g], first_block[g + 1]), maybe empty. kTree: a power of two domains.
  std::vector<int32_t> first_block;
  // kFlat: one. kTree: of every level from the top cut, log2(domains) of them.
  std::vector<Decimal> max_coverage;
  // Pairs compete inside groups of so many heads, a divisor of the call's heads; 0: all heads.
  int head_group = 0;

  int domains() const { return static_cast<int>(first_block.size()) - 1; }
  int prefix_blocks() const { return first_block.front(); }
  int video_blocks() const { return first_block.back() - first_block.front(); }
  int blocks(int domain) const { return first_block[domain + 1] - first_block[domain]; }
};

// The domains that a call holds: its video query blocks are exactly theirs.
struct HeldDomains {
  int first = 0;
  int last = 0;
  int count() const { return last - first; }
};

// Throws InternalError for a budget that makes no sense or does not fit the call.
void check_budget(const DomainBudget& budget, HeldDomains held, int heads, int first_query_block,
                  int query_blocks, int kv_blocks);

// a[g, h, j] of step 2 for a range of domains.
template <class A>
struct DomainMasses {
  DomainMasses(HeldDomains of, int batch, int heads, int video_blocks)
      : of(of),
        batch(batch),
        heads(heads),
        video_blocks(video_blocks),
        values(static_cast<size_t>(of.count()) * batch * heads * video_blocks, A{0}) {}

  A* row(int domain, int64_t batch_head) {
    return values.data() +
           ((domain - of.first) * int64_t{batch} * heads + batch_head) * video_blocks;
  }
  const A* row(int domain, int64_t batch_head) const {
    return const_cast<DomainMasses*>(this)->row(domain, batch_head);
  }

  HeldDomains of;
  int batch, heads, video_blocks;
  std::vector<A> values;  // [domains, batch * heads, video blocks]
};

// A part of a whole. Parts and wholes of several ranks and calls add up.
struct Share {
  double part = 0;
  double whole = 0;
  double value() const { return whole == 0 ? 0 : part / whole; }
  Share& operator+=(const Share& other) {
    part += other.part;
    whole += other.whole;
    return *this;
  }
  bool operator==(const Share&) const = default;
};
inline Share total_of(std::span<const Share> shares) {
  Share total;
  for (const Share& share : shares) total += share;
  return total;
}

// What the rows of the held domains may select.
struct AllowedBlocks {
  HeldDomains held;
  int64_t batch_heads = 0;
  std::vector<std::vector<int32_t>> ids;  // [held domains, batch * heads], ascending, video alone

  std::span<const int32_t> of(int domain, int64_t batch_head) const {
    return ids[(domain - held.first) * batch_heads + batch_head];
  }
};

// Step 3. `masses`: of the held domains at least, kTree: of all domains.
template <class A>
AllowedBlocks choose_imports(const DomainBudget& budget, HeldDomains held,
                             const DomainMasses<A>& masses, int threads);

// By head: the mass that the rows of the held domains selected without a budget, and its part that
// lies on allowed blocks.
template <class A>
std::vector<Share> kept_mass(const DomainBudget& budget, const AllowedBlocks& allowed,
                             const DomainMasses<A>& masses);

// A method's selection with a budget; between its two steps ranks may exchange masses.
template <class A>
class BudgetedSelection {
 public:
  virtual ~BudgetedSelection() = default;
  // Steps 1 and 2 for the held domains. Called once.
  virtual DomainMasses<A> masses() = 0;
  // Step 4: the table of the call's query blocks.
  virtual SegmentTable select(const AllowedBlocks& allowed) = 0;
};

// All steps, where the call holds all domains.
template <class A>
SegmentTable select_alone(const DomainBudget& budget, BudgetedSelection<A>& selection, int threads);

}  // namespace sprocket::kernels
