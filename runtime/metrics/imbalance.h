// How unequal the work of ranks is.
#pragma once

#include <span>

namespace sprocket::runtime {

// The largest of `work` by the mean: what the busiest rank makes the others wait for. 1 where there
// is no work.
double imbalance(std::span<const double> work);

}  // namespace sprocket::runtime
