// Whether many ranks computed what one rank computes, tensor by tensor.
//
// In fp64 a tensor may be off by 1e-10 of its scale. In a lower precision its error against fp64 on
// one rank may be twice that of one rank in the same precision, the largest of several runs whose
// inputs differ in the last bit.
//
// Errors and scales are root sums of squares: the largest single error is a matter of luck. The
// scale of a tensor is its own, but at least a thousandth of what it would be if all gradients were
// equally large: a gradient that cancels to nothing keeps the rounding errors of its terms. In a
// lower precision what is below the unit roundoff of a gradient of average size is no error.
#pragma once

#include <string>
#include <vector>

#include "runtime/parity/parity_pass.h"

namespace sprocket::runtime {

struct ParityRow {
  std::string name;
  std::vector<int64_t> shape;
  // Relative to the tensor's scale.
  double error = 0;
  double allowed = 0;

  double ratio() const;  // error / allowed; infinite when the error is no number
  bool passed() const { return error <= allowed; }
};

struct ParityComparison {
  std::vector<ParityRow> rows;  // largest ratio first
  // Of each layer: (sample, head, query block) rows that selected other KV blocks than on one rank.
  // Empty where that was not compared.
  std::vector<int64_t> differing_selections;
  int64_t selections = 0;  // rows in a layer

  int64_t failed() const;
  bool passed() const { return failed() == 0; }
};

inline constexpr double kParityTolerance = 1e-10;  // in fp64, relative

// Both in fp64.
ParityComparison compare_exactly(const ParityResults& one_rank, const ParityResults& many_ranks);

// Rounding errors of one rank in a lower precision, the largest of the runs that were added.
class RoundingErrors {
 public:
  // `exact` is one rank's in fp64.
  void add(const ParityResults& exact, const ParityResults& run);
  // Relative to the scales of `exact`, in the order of its tensors.
  const std::vector<double>& values() const { return values_; }

 private:
  std::vector<double> values_;
};

// All with the same selections.
ParityComparison compare_rounded(const ParityResults& exact, const RoundingErrors& one_rank,
                                 const ParityResults& many_ranks, double unit_roundoff);

}  // namespace sprocket::runtime
