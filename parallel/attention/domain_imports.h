// The budget of imports of a call (kernels/import_budget.h) on the outer ranks, and what can be
// said about domains afterwards.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "kernels/import_budget.h"
#include "parallel/attention/attention_method.h"
#include "parallel/sequence_attention.h"

namespace sprocket::parallel {

// The domains that an outer rank holds.
kernels::HeldDomains held_domains(const TokenLayout& layout, const OuterShards& blocks);

// What the budget means for a sequence; nothing where it changes nothing. Throws ConfigError for a
// tree over domains that are no power of two.
std::optional<kernels::DomainBudget> domain_budget(const TokenLayout& layout,
                                                   const BudgetSpec& budget);
// The same for `heads` heads of this rank. Throws ConfigError when the heads that compete do not
// live on one rank.
std::optional<kernels::DomainBudget> domain_budget(const MethodContext& context,
                                                   const BudgetSpec& budget, int heads);

// Both steps of a selection. The tree form gathers the masses of all domains: collective over the
// outer group then, one all-gather.
template <class A>
Selection select_within(const MethodContext& context, const kernels::DomainBudget& budget,
                        kernels::BudgetedSelection<A>& selection);

// By head: the remote (head, block) pairs that rows of the held domains select, of all such pairs,
// as if every domain were a rank of its own. Video blocks alone; a pooled block counts like a whole
// one. Empty where there is one domain.
std::vector<kernels::Share> domain_coverage(const TokenLayout& layout, const OuterShards& blocks,
                                            const AttentionSpec& spec,
                                            const kernels::SegmentTable& table);

}  // namespace sprocket::parallel
