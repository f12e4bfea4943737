// `sprocket profile compare`: what changed between two profiles, by how much, beyond noise.
//
// Noise is the spread over the steps of the two windows (runtime/profile/shift.h): a time that the
// report has by step (a step and its parts) has changed when zero lies outside the interval of its
// shift. The step is tested at kLevel, the six parts at a sixth of it each, so that of two windows
// of the same program either raises a false alarm in at most kLevel of all cases.
//
// A row of a table (an operation, a kernel, a layer) has a mean time and no spread of its own. It
// is listed when it changed by more than the noise of the part of the step that it belongs to:
// transfers and a layer's communication to exposed communication, waits to waiting, kernels and a
// layer's compute to compute, copies to copies. Bytes and counts are compared exactly; density and
// coverage of a layer have changed when either mean lies outside the other's range; peaks of
// memory, which differ by some pages from run to run, when they differ by a hundredth.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "runtime/profile/report.h"

namespace sprocket::profile {

inline constexpr double kLevel = 0.01;

struct CompareOptions {
  double max_regression = 0.05;  // of the median step
  bool different_jobs = false;   // compare whatever it is
};

enum class Quantity { kMilliseconds, kCount, kBytes, kShare };

struct ComparedRow {
  std::string table;  // "step", "operations", "kernels", "layers", "memory", "bytes"
  std::string what;
  Quantity quantity = Quantity::kMilliseconds;
  std::optional<double> a, b;   // empty: the report has no such row
  double change = 0;            // b - a; of what has a spread, the shift's estimate
  std::optional<double> noise;  // of times; infinite: too few steps
  bool changed = false;
};

struct Comparison {
  std::string verdict;             // one line
  std::vector<std::string> notes;  // what is different around it: programs, machines, windows
  // Changed and unchanged ones; table by table, in each the largest change of a quantity first.
  std::vector<ComparedRow> rows;
  // The step of b is slower by more than max_regression, and by more than noise.
  bool regression = false;
};

// Throws InputError unless the reports are of the same job, kind and number of ranks and their
// windows are complete, or different_jobs is set; it says what differs. `name_a` and `name_b` are
// for that message. Without steps there is nothing to compare: InputError always.
Comparison compare(const Report& a, const Report& b, const CompareOptions& options,
                   const std::string& name_a = "A", const std::string& name_b = "B");

// The verdict, the notes and the tables: of what changed, the largest kMostRows of each table; with
// `all` every row.
inline constexpr int kMostRows = 12;
std::string comparison_text(const Comparison& comparison, bool all);

// "5%", "5 %" or "0.05" as 0.05. Throws ConfigError for anything else, and for what is not in
// 0..1.
double parse_max_regression(const std::string& text);

}  // namespace sprocket::profile
