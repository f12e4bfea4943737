// By how much one sample lies above another one, and whether that is more than noise: robust, for
// few values, of any distribution.
//
// The estimate is the median of all differences b_j - a_i (Hodges and Lehmann, "Estimates of
// location based on rank tests", Annals of Mathematical Statistics 34, 1963). The interval around
// it is the set of shifts that the two-sided test of Mann and Whitney ("On a test of whether one of
// two random variables is stochastically larger than the other", Annals of Mathematical Statistics
// 18, 1947) does not refuse at the given level: with the m n differences in order, D(1) <= D(2) <=
// ...,
//
//   [D(k), D(m n + 1 - k)],  k the largest integer with 2 P(U <= k - 1) <= level,
//
// and U the number of pairs with b_j < a_i, of which the distribution for samples from one
// distribution is known without any assumption about that (Hollander, Wolfe and Chicken,
// "Nonparametric Statistical Methods", 3rd edition, section 4.3). Where 2 P(U = 0) > level the
// samples are too small to refuse anything. Equal values make the interval wider than it had to be.
//
// The values of a sample are taken to be independent of each other. What differs from one run of a
// program to the next one, but not from step to step, no pair of samples can show.
#pragma once

#include <cstdint>
#include <limits>
#include <span>

namespace sprocket::profile {

struct Shift {
  double estimate = 0;
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();

  bool beyond_noise() const { return low > 0 || high < 0; }
  // Half of the interval's length; infinite when the samples are too small.
  double noise() const { return (high - low) / 2; }
};

// Of b against a. Neither is empty, all values are finite. level: the probability, at most, that
// beyond_noise() is true of samples from one distribution.
Shift shift_of(std::span<const double> a, std::span<const double> b, double level);

// The k above; 0: the samples are too small.
int64_t interval_rank(int64_t m, int64_t n, double level);

// The smallest n for which two samples of n values are large enough.
int64_t least_values(double level);

double median(std::span<const double> values);  // not empty

}  // namespace sprocket::profile
