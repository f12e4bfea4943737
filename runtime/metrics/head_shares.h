// Shares by layer and head (kernels::Share) of all ranks: from every rank's part to one table.
#pragma once

#include <span>
#include <vector>

#include "kernels/import_budget.h"

namespace sprocket::runtime {

// [layer][head of the model], zero for heads of other Ulysses ranks; no layers: there is nothing to
// tell, on no rank.
using LayerHeadShares = std::vector<std::vector<kernels::Share>>;

// Appends parts and wholes: their sums over the ranks are what take_shares reads.
void append_shares(const LayerHeadShares& own, std::vector<double>& sums);

// Takes `layers` layers of `heads` heads off the front of `sums`; [layer][head] part / whole.
std::vector<std::vector<double>> take_shares(int layers, int heads, std::span<const double>& sums);

}  // namespace sprocket::runtime
