#include "parallel/attention/domain_imports.h"

#include <bit>

#include "base/error.h"
#include "kernels/pyramid.h"

namespace sprocket::parallel {
namespace {

// The masses of all domains, from those that every rank holds equally many of.
template <class A>
kernels::DomainMasses<A> gather_masses(const MethodContext& context,
                                       const kernels::DomainMasses<A>& own) {
  kernels::DomainMasses<A> all({0, context.layout.spec.domains}, own.batch, own.heads,
                               own.video_blocks);
  const std::vector<int64_t> counts(context.blocks.ranks(),
                                    static_cast<int64_t>(own.values.size()));
  context.group.host
      .all_gather(comm::Buffer::of(std::span(own.values)), comm::Buffer::of(std::span(all.values)),
                  counts)
      .wait_host();
  return all;
}

}  // namespace

kernels::HeldDomains held_domains(const TokenLayout& layout, const OuterShards& blocks) {
  const int each = layout.spec.domains / blocks.ranks();
  SPROCKET_CHECK_EQ(each * blocks.ranks(), layout.spec.domains);
  return {blocks.self * each, (blocks.self + 1) * each};
}

std::optional<kernels::DomainBudget> domain_budget(const TokenLayout& layout,
                                                   const BudgetSpec& budget) {
  if (layout.spec.domains == 1 || !budget.limits()) return {};
  kernels::DomainBudget result{budget.form, layout.domain_blocks, budget.max_coverage,
                               budget.head_group};
  if (budget.form == kernels::BudgetForm::kTree) {
    const auto domains = static_cast<unsigned>(layout.spec.domains);
    if (!std::has_single_bit(domains)) {
      throw ConfigError(
          fmt::format("attention.domains: {}; budget_form: TREE needs a power of two", domains));
    }
    if (result.max_coverage.size() == 1) {
      result.max_coverage.resize(std::bit_width(domains) - 1, budget.max_coverage.front());
    }
  }
  return result;
}

std::optional<kernels::DomainBudget> domain_budget(const MethodContext& context,
                                                   const BudgetSpec& budget, int heads) {
  const auto result = domain_budget(context.layout, budget);
  if (result && heads != context.model_heads &&
      (budget.head_group < 1 || heads % budget.head_group != 0)) {
    throw ConfigError(fmt::format(
        "attention.budget_head_group: {}; a rank holds {} of {} heads, so the group must be a "
        "divisor of {} (0, all heads, needs ulysses: 1)",
        budget.head_group, heads, context.model_heads, heads));
  }
  return result;
}

template <class A>
Selection select_within(const MethodContext& context, const kernels::DomainBudget& budget,
                        kernels::BudgetedSelection<A>& selection) {
  kernels::DomainMasses<A> masses = selection.masses();
  if (budget.form == kernels::BudgetForm::kTree && context.blocks.ranks() > 1) {
    masses = gather_masses(context, masses);
  }
  const kernels::AllowedBlocks allowed = kernels::choose_imports(
      budget, held_domains(context.layout, context.blocks), masses, context.threads);
  Selection result;
  result.table = std::make_shared<kernels::SegmentTable>(selection.select(allowed));
  result.kept_mass = kernels::kept_mass(budget, allowed, masses);
  return result;
}

template Selection select_within(const MethodContext&, const kernels::DomainBudget&,
                                 kernels::BudgetedSelection<float>&);
template Selection select_within(const MethodContext&, const kernels::DomainBudget&,
                                 kernels::BudgetedSelection<double>&);

std::vector<kernels::Share> domain_coverage(const TokenLayout& layout, const OuterShards& blocks,
                                            const AttentionSpec& spec,
                                            const kernels::SegmentTable& table) {
  if (layout.spec.domains == 1) return {};
  std::vector<int32_t> block_of_id(table.kv_blocks);
  const kernels::PyramidLayout pyramid =
      kernels::make_pyramid_layout(layout.block_offsets, spec.widths());
  for (int block = 0; block < pyramid.blocks(); ++block) {
    for (int id = pyramid.first_segment[block]; id < pyramid.first_segment[block + 1]; ++id) {
      block_of_id[id] = block;
    }
  }
  const kernels::HeldDomains held = held_domains(layout, blocks);
  const int first_row = blocks.blocks[blocks.self], prefix = layout.prefix_blocks();
  std::vector<kernels::Share> shares(table.heads);
  std::vector<uint8_t> needed;
  for (int64_t bh = 0; bh < int64_t{table.batch} * table.heads; ++bh) {
    kernels::Share& share = shares[bh % table.heads];
    for (int g = held.first; g < held.last; ++g) {
      const int first = layout.domain_blocks[g], last = layout.domain_blocks[g + 1];
      if (first == last) continue;
      needed.assign(layout.blocks(), 0);
      const int64_t row = bh * table.query_blocks + first - first_row;
      for (int64_t i = table.row_offsets[row]; i < table.row_offsets[row + last - first]; ++i) {
        needed[block_of_id[table.kv_block[i]]] = 1;
      }
      share.whole += layout.blocks() - prefix - (last - first);
      for (int block = prefix; block < layout.blocks(); ++block) {
        share.part += (block < first || block >= last) ? needed[block] : 0;
      }
    }
  }
  return shares;
}

}  // namespace sprocket::parallel
