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
  SPROCKET_CHECK_EQ(one.selections.size(), many.selections.size());
  for (size_t replica = 0; replica < one.selections.size(); ++replica) {
    const LayerSelections &expected = one.selections[replica], &found = many.selections[replica];
    comparison.differing_selections.resize(expected.size());
    comparison.selections += expected.front().table->rows();
    for (size_t layer = 0; layer < expected.size(); ++layer) {
      comparison.differing_selections[layer] +=
          differing_rows(*expected[layer].table, *found[layer].table);
    }
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

void RoundingErrors::add(const ParityResults& exact, const ParityResults& run) {
  SPROCKET_CHECK_EQ(exact.tensors.size(), run.tensors.size());
  const std::vector<Scale> scales = scales_of(exact);
  values_.resize(scales.size());
  for (size_t i = 0; i < scales.size(); ++i) {
    double error = distance(exact.tensors[i], run.tensors[i]);
    if (exact.tensors[i].name == "loss") {
      // One number can be right by chance. An error d of the output changes the mean of squares L
      // by at most 2 sqrt(L) d + d^2.
      const ParityTensor& output = exact.at("output");
      const double d = distance(output, run.at("output")) /
                       std::sqrt(static_cast<double>(output.values.numel()));
      error = std::max(error, 2 * std::sqrt(scales[i].value) * d + d * d);
    }
    values_[i] = std::max(values_[i], error / scales[i].value);
  }
}

ParityComparison compare_rounded(const ParityResults& exact, const RoundingErrors& one_rank,
                                 const ParityResults& many_ranks, double unit_roundoff) {
  const std::vector<Scale> scales = scales_of(exact);
  SPROCKET_CHECK_EQ(one_rank.values().size(), scales.size());
  SPROCKET_CHECK_EQ(many_ranks.tensors.size(), scales.size());
  ParityComparison comparison;
  for (size_t i = 0; i < scales.size(); ++i) {
    const ParityTensor& expected = exact.tensors[i];
    const double nothing = unit_roundoff * std::max(scales[i].average / scales[i].value, 1.0);
    comparison.rows.push_back({expected.name, expected.shape,
                               distance(expected, many_ranks.tensors[i]) / scales[i].value,
                               std::max(2 * one_rank.values()[i], nothing)});
  }
  sort_worst_first(comparison);
  return comparison;
}

}  // namespace sprocket::runtime
