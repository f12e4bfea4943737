#include "runtime/profile/shift.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "base/error.h"

namespace sprocket::profile {
namespace {

// Above so many pairs the normal approximation takes over. It errs on the careful side: instead of
// 0.01 the level is 0.0095 there, and less where one of the samples is small.
constexpr int64_t kExactPairs = 2500;
// Values of a sample that are compared, evenly spread over it.
constexpr size_t kMostValues = 2000;

// P(U = u) for u up to m n, by the largest of the m + n values, which is one of the first sample's
// with probability m / (m + n) and then lies above all n of the second.
std::vector<double> mann_whitney(int64_t m, int64_t n) {
  // [i][u] for samples of i and j values, j growing.
  std::vector<std::vector<double>> p(m + 1, std::vector<double>(m * n + 1, 0.0));
  for (auto& each : p) each[0] = 1;
  for (int64_t j = 1; j <= n; ++j) {
    for (int64_t i = 1; i <= m; ++i) {
      const double of_first = static_cast<double>(i) / static_cast<double>(i + j);
      for (int64_t u = i * j; u >= 0; --u) {
        const double above = u >= j ? p[i - 1][u - j] : 0;
        p[i][u] = of_first * above + (1 - of_first) * p[i][u];
      }
    }
  }
  return p[m];
}

double normal_below(double z) { return 0.5 * std::erfc(-z / std::sqrt(2.0)); }

std::vector<double> some_of(std::span<const double> values) {
  const size_t stride = (values.size() + kMostValues - 1) / kMostValues;
  std::vector<double> some;
  for (size_t i = 0; i < values.size(); i += stride) some.push_back(values[i]);
  return some;
}

// The value that has `index` smaller ones; reorders.
double at_rank(std::vector<double>& values, int64_t index) {
  std::nth_element(values.begin(), values.begin() + index, values.end());
  return values[index];
}

double median_of(std::vector<double>& values) {
  const auto count = std::ssize(values);
  const double upper = at_rank(values, count / 2);
  return count % 2 == 1 ? upper : (upper + at_rank(values, count / 2 - 1)) / 2;
}

}  // namespace

int64_t interval_rank(int64_t m, int64_t n, double level) {
  const int64_t pairs = m * n;
  if (pairs > kExactPairs) {
    const auto mean = static_cast<double>(pairs) / 2;
    const double deviation = std::sqrt(mean * static_cast<double>(m + n + 1) / 6);
    int64_t low = 0, high = pairs / 2;  // the last k that the test does not refuse, by halves
    while (low < high) {
      const int64_t k = (low + high + 1) / 2;
      const double z = (static_cast<double>(k - 1) + 0.5 - mean) / deviation;
      (2 * normal_below(z) <= level ? low : high) = 2 * normal_below(z) <= level ? k : k - 1;
    }
    return low;
  }
  const std::vector<double> p = mann_whitney(m, n);
  double below = 0;
  int64_t k = 0;
  while (k < pairs / 2 && 2 * (below + p[k]) <= level) below += p[k++];
  return k;
}

int64_t least_values(double level) {
  int64_t n = 1;
  while (interval_rank(n, n, level) == 0) ++n;
  return n;
}

double median(std::span<const double> values) {
  SPROCKET_CHECK(!values.empty(), "a median of nothing");
  std::vector<double> copy(values.begin(), values.end());
  return median_of(copy);
}

Shift shift_of(std::span<const double> a, std::span<const double> b, double level) {
  SPROCKET_CHECK(!a.empty() && !b.empty(), "samples of {} and {} values", a.size(), b.size());
  const std::vector<double> first = some_of(a), second = some_of(b);
  std::vector<double> differences;
  differences.reserve(first.size() * second.size());
  for (const double x : first) {
    for (const double y : second) differences.push_back(y - x);
  }
  Shift shift;
  shift.estimate = median_of(differences);
  const int64_t k = interval_rank(std::ssize(first), std::ssize(second), level);
  if (k == 0) return shift;
  shift.low = at_rank(differences, k - 1);
  shift.high = at_rank(differences, std::ssize(differences) - k);
  return shift;
}

}  // namespace sprocket::profile
