#include "kernels/import_budget.h"

#include <algorithm>
#include <bit>

#include "base/error.h"
#include "kernels/block_selection.h"

namespace sprocket::kernels {
namespace {

// Video blocks [first, last), counted from the first video block.
struct BlockRange {
  int first = 0;
  int last = 0;
  int blocks() const { return last - first; }
};

// Something that imports: its domains, what is remote for it, and how much of that it may have.
struct Importer {
  HeldDomains domains;
  std::vector<BlockRange> remote;  // ascending
  Decimal max_coverage;

  int64_t remote_blocks() const {
    int64_t blocks = 0;
    for (const BlockRange& range : remote) blocks += range.blocks();
    return blocks;
  }
};

BlockRange blocks_of(const DomainBudget& budget, HeldDomains domains) {
  const int prefix = budget.prefix_blocks();
  return {budget.first_block[domains.first] - prefix, budget.first_block[domains.last] - prefix};
}

// All importers that a held domain belongs to.
std::vector<Importer> importers_of(const DomainBudget& budget, HeldDomains held) {
  std::vector<Importer> importers;
  switch (budget.form) {
    case BudgetForm::kFlat:
      for (int g = held.first; g < held.last; ++g) {
        const BlockRange own = blocks_of(budget, {g, g + 1});
        importers.push_back({{g, g + 1},
                             {{0, own.first}, {own.last, budget.video_blocks()}},
                             budget.max_coverage.front()});
      }
      break;
    case BudgetForm::kTree: {
      int width = budget.domains();
      for (const Decimal& max_coverage : budget.max_coverage) {
        width /= 2;
        const int first_node = held.first / width, last_node = (held.last + width - 1) / width;
        for (int node = first_node; node < last_node && held.count() > 0; ++node) {
          const int sibling = node ^ 1;
          importers.push_back({{node * width, (node + 1) * width},
                               {blocks_of(budget, {sibling * width, (sibling + 1) * width})},
                               max_coverage});
        }
      }
      break;
    }
  }
  return importers;
}

int heads_of_group(const DomainBudget& budget, int heads) {
  return budget.head_group == 0 ? heads : budget.head_group;
}

// Which video blocks rows of (held domain, batch and head) may select.
class AllowedMarks {
 public:
  AllowedMarks(const DomainBudget& budget, HeldDomains held, int64_t batch_heads)
      : budget_(budget),
        held_(held),
        batch_heads_(batch_heads),
        marks_(held.count() * batch_heads * budget.video_blocks(), 0) {
    for (int g = held.first; g < held.last; ++g) {
      const BlockRange own = blocks_of(budget, {g, g + 1});
      for (int64_t bh = 0; bh < batch_heads; ++bh) {
        std::fill(row(g, bh) + own.first, row(g, bh) + own.last, uint8_t{1});
      }
    }
  }

  void allow(HeldDomains domains, int64_t batch_head, int block) {
    const int last = std::min(domains.last, held_.last);
    for (int g = std::max(domains.first, held_.first); g < last; ++g) row(g, batch_head)[block] = 1;
  }

  AllowedBlocks list() {
    AllowedBlocks allowed{held_, batch_heads_, {}};
    for (int g = held_.first; g < held_.last; ++g) {
      for (int64_t bh = 0; bh < batch_heads_; ++bh) {
        std::vector<int32_t>& ids = allowed.ids.emplace_back();
        const uint8_t* marks = row(g, bh);
        for (int j = 0; j < budget_.video_blocks(); ++j) {
          if (marks[j] != 0) ids.push_back(budget_.prefix_blocks() + j);
        }
      }
    }
    return allowed;
  }

 private:
  uint8_t* row(int domain, int64_t batch_head) {
    return marks_.data() +
           ((domain - held_.first) * batch_heads_ + batch_head) * budget_.video_blocks();
  }

  const DomainBudget& budget_;
  HeldDomains held_;
  int64_t batch_heads_;
  std::vector<uint8_t> marks_;
};

// The importer's masses of its remote blocks, for `heads` heads from batch_head on.
template <class A>
void gather_masses(const Importer& importer, const DomainMasses<A>& masses, int64_t batch_head,
                   int64_t heads, std::vector<A>& to) {
  to.assign(heads * importer.remote_blocks(), A{0});
  for (int g = importer.domains.first; g < importer.domains.last; ++g) {
    auto sum = to.begin();
    for (int64_t bh = batch_head; bh < batch_head + heads; ++bh) {
      const A* row = masses.row(g, bh);
      for (const BlockRange& range : importer.remote) {
        for (int j = range.first; j < range.last; ++j) *sum++ += row[j];
      }
    }
  }
}

}  // namespace

void check_budget(const DomainBudget& budget, HeldDomains held, int heads, int first_query_block,
                  int query_blocks, int kv_blocks) {
  const std::vector<int32_t>& bounds = budget.first_block;
  SPROCKET_CHECK(bounds.size() >= 2 && bounds.front() >= 0 && bounds.back() == kv_blocks &&
                     std::is_sorted(bounds.begin(), bounds.end()),
                 "domains do not cut {} blocks", kv_blocks);
  SPROCKET_CHECK(held.first >= 0 && held.first <= held.last && held.last <= budget.domains(),
                 "domains {} to {} of {}", held.first, held.last, budget.domains());
  const int end = first_query_block + query_blocks;
  const int first_video = std::max(first_query_block, budget.prefix_blocks());
  SPROCKET_CHECK(first_video >= end ? bounds[held.first] == bounds[held.last]
                                    : bounds[held.first] == first_video && bounds[held.last] == end,
                 "query blocks {} to {} are not those of the domains of blocks {} to {}",
                 first_query_block, end, bounds[held.first], bounds[held.last]);
  const bool tree = budget.form == BudgetForm::kTree;
  const auto domains = static_cast<unsigned>(budget.domains());
  SPROCKET_CHECK(!tree || std::has_single_bit(domains), "a tree of {} domains", domains);
  const size_t levels = tree ? std::bit_width(domains) - 1 : 1;
  SPROCKET_CHECK_EQ(budget.max_coverage.size(), levels);
  for (const Decimal& share : budget.max_coverage) {
    SPROCKET_CHECK(!(share < Decimal()) && !(Decimal::ratio(1, 0) < share), "max_coverage is {}",
                   share.to_string());
  }
  const int group = heads_of_group(budget, heads);
  SPROCKET_CHECK(group >= 0 && (heads == 0 || (group > 0 && heads % group == 0)),
                 "a head group of {} does not divide {} heads", group, heads);
}

template <class A>
AllowedBlocks choose_imports(const DomainBudget& budget, HeldDomains held,
                             const DomainMasses<A>& masses, int threads) {
  const int64_t batch_heads = int64_t{masses.batch} * masses.heads;
  const std::vector<Importer> importers = importers_of(budget, held);
  for (const Importer& importer : importers) {
    SPROCKET_CHECK(
        importer.domains.first >= masses.of.first && importer.domains.last <= masses.of.last,
        "masses of domains {} to {}, needed {} to {}", masses.of.first, masses.of.last,
        importer.domains.first, importer.domains.last);
  }
  const int64_t group = heads_of_group(budget, masses.heads);
  const int64_t groups = batch_heads == 0 ? 0 : batch_heads / group;
  AllowedMarks marks(budget, held, batch_heads);
  // Importers of one domain import from different places, so that no mark is made twice.
#pragma omp parallel num_threads(threads)
  {
    RowSelector<A> selector;
    std::vector<A> remote;
    std::vector<int32_t> chosen;
#pragma omp for collapse(2) schedule(dynamic)
    for (size_t i = 0; i < importers.size(); ++i) {
      for (int64_t g = 0; g < groups; ++g) {
        const Importer& importer = importers[i];
        gather_masses(importer, masses, g * group, group, remote);
        const int64_t all = static_cast<int64_t>(remote.size());
        chosen.resize(importer.max_coverage.floor_times(all));
        selector.select(remote.data(), all, static_cast<int64_t>(chosen.size()), chosen.data());
        auto next = chosen.begin();
        int64_t first = 0;  // of the range of the head, among the pairs
        for (int64_t bh = g * group; bh < (g + 1) * group; ++bh) {
          for (const BlockRange& range : importer.remote) {
            const int64_t end = first + range.blocks();
            for (; next != chosen.end() && *next < end; ++next) {
              marks.allow(importer.domains, bh, static_cast<int>(range.first + *next - first));
            }
            first = end;
          }
        }
      }
    }
  }
  return marks.list();
}

template <class A>
std::vector<Share> kept_mass(const DomainBudget& budget, const AllowedBlocks& allowed,
                             const DomainMasses<A>& masses) {
  std::vector<Share> shares(masses.heads);
  for (int g = allowed.held.first; g < allowed.held.last; ++g) {
    for (int64_t bh = 0; bh < allowed.batch_heads; ++bh) {
      const A* row = masses.row(g, bh);
      Share& share = shares[bh % masses.heads];
      for (int j = 0; j < masses.video_blocks; ++j) share.whole += row[j];
      for (const int32_t id : allowed.of(g, bh)) share.part += row[id - budget.prefix_blocks()];
    }
  }
  return shares;
}

template <class A>
SegmentTable select_alone(const DomainBudget& budget, BudgetedSelection<A>& selection,
                          int threads) {
  const DomainMasses<A> masses = selection.masses();
  return selection.select(choose_imports(budget, {0, budget.domains()}, masses, threads));
}

template SegmentTable select_alone(const DomainBudget&, BudgetedSelection<float>&, int);
template SegmentTable select_alone(const DomainBudget&, BudgetedSelection<double>&, int);
template AllowedBlocks choose_imports(const DomainBudget&, HeldDomains, const DomainMasses<float>&,
                                      int);
template AllowedBlocks choose_imports(const DomainBudget&, HeldDomains, const DomainMasses<double>&,
                                      int);
template std::vector<Share> kept_mass(const DomainBudget&, const AllowedBlocks&,
                                      const DomainMasses<float>&);
template std::vector<Share> kept_mass(const DomainBudget&, const AllowedBlocks&,
                                      const DomainMasses<double>&);

}  // namespace sprocket::kernels
