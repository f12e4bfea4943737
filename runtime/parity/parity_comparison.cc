#include "runtime/parity/parity_comparison.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include <ATen/TensorOperators.h>

#include "base/error.h"

namespace sprocket::runtime {
namespace {

constexpr double kSmallestShare = 1e-3;  // of a tensor's scale in that of all gradients

double length(const at::Tensor& x) { return x.to(at::kDouble).norm().item<double>(); }

double distance(const ParityTensor& exact, const ParityTensor& found) {
  SPROCKET_CHECK(exact.name == found.name && exact.values.sizes() == found.values.sizes(),
                 "{} against {}", exact.name, found.name);
  return (found.values.to(at::kDouble) - exact.values.to(at::kDouble)).norm().item<double>();
}

bool is_gradient(const ParityTensor& tensor) { return tensor.name.starts_with("gradient of "); }

struct Scale {
  double value = 0;
  // What a gradient of this size has when all gradients are equally large; 0 for what is none.
  double average = 0;
};

// Of all tensors, in order.
std::vector<Scale> scales_of(const ParityResults& exact) {
  double squares = 0, elements = 0;
  std::vector<Scale> scales;
  for (const ParityTensor& tensor : exact.tensors) {
    const double own = length(tensor.values);
    scales.push_back({own});
    if (!is_gradient(tensor)) continue;
    squares += own * own;
    elements += static_cast<double>(tensor.values.numel());
  }
  for (size_t i = 0; i < scales.size(); ++i) {
    const ParityTensor& tensor = exact.tensors[i];
    if (!is_gradient(tensor)) continue;
    const double share = static_cast<double>(tensor.values.numel()) / elements;
    scales[i].average = std::sqrt(squares * share);
    scales[i].value = std::max(scales[i].value, kSmallestShare * scales[i].average);
  }
  for (Scale& scale : scales) {
    scale.value = std::max(scale.value, std::numeric_limits<double>::min());
  }
  return scales;
}

void compare_selections(const ParityResults& one, const ParityResults& many,
                        ParityComparison& comparison) {
  comparison.selections = one.selections.size(1);
  const at::Tensor differing = one.selections.ne(many.selections).sum(1);
  for (int64_t layer = 0; layer < differing.size(0); ++layer) {
    comparison.differing_selections.push_back(differing[layer].item<int64_t>());
  }
}

void sort_worst_first(ParityComparison& comparison) {
  std::stable_sort(comparison.rows.begin(), comparison.rows.end(),
                   [](const ParityRow& a, const ParityRow& b) { return a.ratio() > b.ratio(); });
}

}  // namespace

double ParityRow::ratio() const {
  if (std::isnan(error)) return std::numeric_limits<double>::infinity();
  if (error == 0) return 0;
  return error / allowed;
}

int64_t ParityComparison::failed() const {
  return std::count_if(rows.begin(), rows.end(),
                       [](const ParityRow& row) { return !row.passed(); });
}

ParityComparison compare_exactly(const ParityResults& one_rank, const ParityResults& many_ranks) {
  SPROCKET_CHECK_EQ(one_rank.tensors.size(), many_ranks.tensors.size());
  ParityComparison comparison;
  const std::vector<Scale> scales = scales_of(one_rank);
  for (size_t i = 0; i < scales.size(); ++i) {
    const ParityTensor& expected = one_rank.tensors[i];
    comparison.rows.push_back({expected.name, expected.shape,
                               distance(expected, many_ranks.tensors[i]) / scales[i].value,
                               kParityTolerance});
  }
  compare_selections(one_rank, many_ranks, comparison);
  sort_worst_first(comparison);
  return comparison;
}

ParityComparison compare_rounded(const ParityResults& exact, const ParityResults& one_rank,
                                 const ParityResults& many_ranks, double unit_roundoff) {
  SPROCKET_CHECK_EQ(exact.tensors.size(), one_rank.tensors.size());
  SPROCKET_CHECK_EQ(exact.tensors.size(), many_ranks.tensors.size());
  ParityComparison comparison;
  const std::vector<Scale> scales = scales_of(exact);
  for (size_t i = 0; i < scales.size(); ++i) {
    const ParityTensor& expected = exact.tensors[i];
    const double scale = scales[i].value;
    double alone = distance(expected, one_rank.tensors[i]) / scale;
    if (expected.name == "loss") {
      // One number can be right by chance. An error d of the output changes the mean of squares L
      // by at most 2 sqrt(L) d + d^2.
      const ParityTensor& output = exact.at("output");
      const double d = distance(output, one_rank.at("output")) /
                       std::sqrt(static_cast<double>(output.values.numel()));
      const double loss = expected.values.item<double>();
      alone = std::max(alone, (2 * std::sqrt(loss) * d + d * d) / scale);
    }
    const double nothing = unit_roundoff * std::max(scales[i].average / scale, 1.0);
    const double allowed = alone > nothing ? 2 * alone : nothing;
    comparison.rows.push_back({expected.name, expected.shape,
                               distance(expected, many_ranks.tensors[i]) / scale, allowed});
  }
  compare_selections(one_rank, many_ranks, comparison);
  sort_worst_first(comparison);
  return comparison;
}

}  // namespace sprocket::runtime
