#include "runtime/profile/compare.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <numeric>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/error.h"
#include "runtime/profile/job_difference.h"
#include "runtime/profile/shift.h"

namespace sprocket::profile {
namespace {

// Means of the same number over windows of different lengths differ by their rounding.
constexpr double kRounding = 1e-9;
constexpr double kPeakChange = 0.01;

struct Part {
  const char* name;
  std::vector<double> EachStep::*each;
};
constexpr std::array kParts = {Part{"compute", &EachStep::compute},
                               Part{"exposed communication", &EachStep::exposed_communication},
                               Part{"copies", &EachStep::copies},
                               Part{"data wait", &EachStep::data_wait},
                               Part{"other", &EachStep::other},
                               Part{"waiting", &EachStep::waiting}};
// A part of the others, not one beside them.
constexpr const char* kWaiting = "waiting";

std::vector<double> milliseconds(const std::vector<double>& seconds) {
  std::vector<double> ms;
  for (const double each : seconds) ms.push_back(1e3 * each);
  return ms;
}

std::string change_text(double ms) {
  return std::abs(ms) >= 1000 ? fmt::format("{:+.3g} s", ms / 1000) : fmt::format("{:+.3g} ms", ms);
}

class Comparer {
 public:
  Comparer(const Report& a, const Report& b) : a_(a), b_(b) {}

  void add_steps() {
    add_spread("step", milliseconds(a_.step.each_seconds), milliseconds(b_.step.each_seconds),
               kLevel);
    for (const Part& part : kParts) {
      add_spread(part.name, a_.each.*part.each, b_.each.*part.each, kLevel / kParts.size());
    }
  }

  void add_operations() {
    const auto name = [](const OperationRow& row) {
      return fmt::format("{} {} {}", row.group, row.op, row.phase);
    };
    for_pairs(a_.operations, b_.operations, name,
              [&](const std::string& what, const OperationRow* a, const OperationRow* b) {
                const auto value = [&](const char* suffix, double OperationRow::*member) {
                  return Values{"operations", what + ", " + suffix, get(a, member), get(b, member)};
                };
                add_time(value("transfer", &OperationRow::transfer_ms), "exposed communication");
                add_time(value("wait", &OperationRow::wait_ms), kWaiting);
                add_exact(value("calls", &OperationRow::calls), Quantity::kCount);
                add_exact(value("messages", &OperationRow::messages), Quantity::kCount);
                add_exact(value("payload", &OperationRow::payload_bytes), Quantity::kBytes);
                add_exact(value("wire", &OperationRow::wire_bytes), Quantity::kBytes);
                add_exact(value("between nodes", &OperationRow::between_nodes_bytes),
                          Quantity::kBytes);
              });
  }

  void add_kernels() {
    const auto name = [](const KernelRow& row) {
      return fmt::format("{} {}", row.name, row.phase);
    };
    for_pairs(a_.kernels, b_.kernels, name,
              [&](const std::string& what, const KernelRow* a, const KernelRow* b) {
                const bool copy = (a != nullptr ? a : b)->activity == "copy";
                add_time({"kernels", what, get(a, &KernelRow::ms), get(b, &KernelRow::ms)},
                         copy ? "copies" : "compute");
                add_exact({"kernels", what + ", calls", get(a, &KernelRow::calls),
                           get(b, &KernelRow::calls)},
                          Quantity::kCount);
              });
  }

  void add_layers() {
    const auto name = [](const LayerRow& row) { return fmt::format("layer {}", row.layer); };
    for_pairs(a_.layers, b_.layers, name,
              [&](const std::string& what, const LayerRow* a, const LayerRow* b) {
                const auto value = [&](const char* suffix, double LayerRow::*member) {
                  return Values{"layers", what + ", " + suffix, get(a, member), get(b, member)};
                };
                add_time(value("compute", &LayerRow::compute_ms), "compute");
                add_time(value("communication", &LayerRow::communication_ms),
                         "exposed communication");
                add_time(value("exposed", &LayerRow::exposed_ms), "exposed communication");
                add_time(value("wait", &LayerRow::wait_ms), kWaiting);
                const auto range = [](const LayerRow* row, std::optional<Range> LayerRow::*member) {
                  return row == nullptr ? std::optional<Range>() : row->*member;
                };
                add_range("layers", what + ", density", range(a, &LayerRow::density),
                          range(b, &LayerRow::density));
                add_range("layers", what + ", coverage", range(a, &LayerRow::coverage),
                          range(b, &LayerRow::coverage));
              });
  }

  void add_memory() {
    const auto value = [](const std::optional<LargestMemory>& memory,
                          int64_t RankMemory::*member) -> std::optional<double> {
      if (!memory) return std::nullopt;
      return static_cast<double>((*memory).*member);
    };
    const auto add = [&](const char* what, int64_t RankMemory::*member, double tolerance) {
      add_exact({"memory", what, value(a_.memory, member), value(b_.memory, member)},
                Quantity::kBytes, tolerance);
    };
    add("peak", &RankMemory::peak_bytes, kPeakChange);
    add("parameters", &RankMemory::parameters_bytes, kRounding);
    add("gradients", &RankMemory::gradients_bytes, kRounding);
    add("moments", &RankMemory::moments_bytes, kRounding);
    add("the rest", &RankMemory::rest_bytes, kPeakChange);
    const auto tensors = [](const Report& report) -> std::optional<double> {
      if (!report.memory || !report.memory->tensors_peak_bytes) return std::nullopt;
      return static_cast<double>(*report.memory->tensors_peak_bytes);
    };
    add_exact({"memory", "tensors, peak", tensors(a_), tensors(b_)}, Quantity::kBytes, kPeakChange);
  }

  void add_bytes() {
    const auto total = [](const Report& report) {
      double sum = 0;
      for (const auto& row : report.bytes) sum = std::accumulate(row.begin(), row.end(), sum);
      return sum;
    };
    add_exact({"bytes", "all ranks to all", total(a_), total(b_)}, Quantity::kBytes);
    if (a_.bytes.size() != b_.bytes.size() || a_.bytes_block != b_.bytes_block) return;
    const int block = a_.bytes_block.value_or(1);
    const auto ranks = [&](size_t i) {
      const int first = static_cast<int>(i) * block;
      return block == 1 ? fmt::format("{}", first)
                        : fmt::format("{}..{}", first, first + block - 1);
    };
    for (size_t i = 0; i < a_.bytes.size(); ++i) {
      for (size_t j = 0; j < a_.bytes.size(); ++j) {
        add_exact({"bytes", fmt::format("rank {} to {}", ranks(i), ranks(j)), a_.bytes[i][j],
                   b_.bytes[i][j]},
                  Quantity::kBytes);
      }
    }
  }

  // Tables stay together, in the order in which they were added; quantities of a table too.
  std::vector<ComparedRow> sorted_rows() const {
    std::vector<ComparedRow> rows = rows_;
    const auto table_end = [&](auto begin) {
      return std::find_if(begin, rows.end(),
                          [&](const ComparedRow& row) { return row.table != begin->table; });
    };
    for (auto begin = rows.begin(); begin != rows.end();) {
      const auto end = table_end(begin);
      if (begin->table != "step") {
        std::stable_sort(begin, end, [](const ComparedRow& x, const ComparedRow& y) {
          return std::pair(x.quantity, -std::abs(x.change)) <
                 std::pair(y.quantity, -std::abs(y.change));
        });
      }
      begin = end;
    }
    return rows;
  }

  const ComparedRow& step_row(const std::string& what) const {
    const auto found = std::find_if(rows_.begin(), rows_.end(), [&](const ComparedRow& row) {
      return row.table == "step" && row.what == what;
    });
    SPROCKET_CHECK(found != rows_.end(), "{}", what);
    return *found;
  }

  // ": exposed communication +71 ms, of it sp.outer exchange forward +64 ms", of a step that became
  // slower (sign 1) or faster (-1); empty where no part of it moved beyond noise that way.
  std::string cause(double sign) const {
    const ComparedRow* part = nullptr;
    for (const Part& each : kParts) {
      if (each.name == std::string(kWaiting)) continue;
      const ComparedRow& row = step_row(each.name);
      if (!row.changed || sign * row.change <= 0) continue;
      if (part == nullptr || std::abs(row.change) > std::abs(part->change)) part = &row;
    }
    if (part == nullptr) return "";
    std::string text = fmt::format(": {} {}", part->what, change_text(part->change));
    const auto [what, change] = largest_within(part->what, sign);
    if (!what.empty()) text += fmt::format(", of it {} {}", what, change_text(change));
    return text;
  }

 private:
  struct Values {
    const char* table;
    std::string what;
    std::optional<double> a, b;
  };

  template <class Row>
  static std::optional<double> get(const Row* row, double Row::*member) {
    return row == nullptr ? std::optional<double>() : row->*member;
  }

  // Rows of the same name, those of b alone last; a pointer is null where a report has none.
  template <class Row, class Name, class Visit>
  static void for_pairs(const std::vector<Row>& a, const std::vector<Row>& b, Name&& name,
                        Visit&& visit) {
    const auto find = [&](const std::vector<Row>& rows, const std::string& what) -> const Row* {
      const auto found =
          std::find_if(rows.begin(), rows.end(), [&](const Row& row) { return name(row) == what; });
      return found == rows.end() ? nullptr : &*found;
    };
    for (const Row& row : a) visit(name(row), &row, find(b, name(row)));
    for (const Row& row : b) {
      if (find(a, name(row)) == nullptr) visit(name(row), nullptr, &row);
    }
  }

  ComparedRow row_of(const Values& values, Quantity quantity) const {
    return {values.table, values.what, quantity,
            values.a,     values.b,    values.b.value_or(0) - values.a.value_or(0),
            std::nullopt, false};
  }

  void add_spread(const char* what, const std::vector<double>& a, const std::vector<double>& b,
                  double level) {
    const Shift shift = shift_of(a, b, level);
    rows_.push_back({"step", what, Quantity::kMilliseconds, median(a), median(b), shift.estimate,
                     shift.noise(), shift.beyond_noise()});
  }

  void add_time(const Values& values, const std::string& part) {
    ComparedRow row = row_of(values, Quantity::kMilliseconds);
    row.noise = step_row(part).noise;
    const double rounding =
        kRounding * std::max(std::abs(values.a.value_or(0)), std::abs(values.b.value_or(0)));
    row.changed = std::abs(row.change) > std::max(*row.noise, rounding);
    rows_.push_back(row);
  }

  void add_exact(const Values& values, Quantity quantity, double tolerance = kRounding) {
    if (!values.a && !values.b) return;
    ComparedRow row = row_of(values, quantity);
    row.changed = values.a.has_value() != values.b.has_value() ||
                  std::abs(row.change) > tolerance * std::max(*values.a, *values.b);
    rows_.push_back(row);
  }

  void add_range(const char* table, const std::string& what, const std::optional<Range>& a,
                 const std::optional<Range>& b) {
    if (!a && !b) return;
    const auto mean = [](const std::optional<Range>& range) -> std::optional<double> {
      return range ? std::optional(range->mean) : std::nullopt;
    };
    ComparedRow row = row_of({table, what, mean(a), mean(b)}, Quantity::kShare);
    const auto holds = [](const Range& range, double value) {
      return range.min * (1 - kRounding) <= value && value <= range.max * (1 + kRounding);
    };
    row.changed = !a || !b || !holds(*a, b->mean) || !holds(*b, a->mean);
    rows_.push_back(row);
  }

  // What of a part changed most in that direction, beyond noise.
  std::pair<std::string, double> largest_within(const std::string& part, double sign) const {
    std::pair<std::string, double> largest;
    const auto consider = [&](const std::string& what, double change, double noise) {
      if (sign * change > noise && std::abs(change) > std::abs(largest.second)) {
        largest = {what, change};
      }
    };
    const double noise = *step_row(part).noise;
    if (part == "exposed communication") {
      // Transfer and wait together: a member of the operation spends both.
      for (const ComparedRow& row : rows_) {
        if (row.table != "operations" || !row.what.ends_with(", transfer")) continue;
        const std::string what = row.what.substr(0, row.what.rfind(','));
        const auto wait = std::find_if(rows_.begin(), rows_.end(), [&](const ComparedRow& other) {
          return other.table == "operations" && other.what == what + ", wait";
        });
        const bool waits = sign * wait->change > sign * row.change;
        consider(waits ? what + ", mostly waiting for late ranks," : what,
                 row.change + wait->change, noise);
      }
      return largest;
    }
    for (const KernelRow& kernel : a_.kernels) {
      const std::string what = fmt::format("{} {}", kernel.name, kernel.phase);
      const bool of_part = kernel.activity == (part == "compute"  ? "compute"
                                               : part == "copies" ? "copy"
                                                                  : "");
      const auto row = std::find_if(rows_.begin(), rows_.end(), [&](const ComparedRow& other) {
        return other.table == "kernels" && other.what == what;
      });
      if (of_part) consider(what, row->change, noise);
    }
    return largest;
  }

  const Report &a_, &b_;
  std::vector<ComparedRow> rows_;
};

std::string seconds(double ms) {
  return ms >= 1000 ? fmt::format("{:.3g} s", ms / 1000) : fmt::format("{:.4g} ms", ms);
}

std::string step_text(const ComparedRow& step, const Report& a, const Report& b) {
  const double share = step.change / *step.a;
  const std::string times = fmt::format("{} -> {}", seconds(*step.a), seconds(*step.b));
  if (std::isinf(*step.noise)) {
    return fmt::format("too few steps to tell: {} and {}, and it takes {} of each ({}, {:+.1f} %)",
                       a.step.each_seconds.size(), b.step.each_seconds.size(), least_values(kLevel),
                       times, 100 * share);
  }
  const double noise = *step.noise / *step.a;
  if (!step.changed) {
    return fmt::format("no change of the step beyond noise of {:.1f} % ({}, {:+.1f} %)",
                       100 * noise, times, 100 * share);
  }
  return fmt::format("B is {:.1f} % {} ({}, beyond noise of {:.1f} %)", 100 * std::abs(share),
                     share > 0 ? "slower" : "faster", times, 100 * noise);
}

}  // namespace

Comparison compare(const Report& a, const Report& b, const CompareOptions& options,
                   const std::string& name_a, const std::string& name_b) {
  const std::vector<std::string> different = obstacles(a, b, name_a, name_b);
  if (!different.empty() && !options.different_jobs) {
    throw InputError(fmt::format(
        "{} and {} cannot be compared (--different-jobs does all the same); A | B:\n  {}", name_a,
        name_b, fmt::join(different, "\n  ")));
  }
  for (const auto& [report, name] : {std::pair(&a, &name_a), std::pair(&b, &name_b)}) {
    if (!report->step.each_seconds.empty()) continue;
    throw InputError(fmt::format("{}: no step was recorded; there is nothing to compare", *name));
  }
  Comparer comparer(a, b);
  comparer.add_steps();
  comparer.add_operations();
  comparer.add_kernels();
  comparer.add_layers();
  comparer.add_memory();
  comparer.add_bytes();

  Comparison result;
  const ComparedRow& step = comparer.step_row("step");
  result.verdict = step_text(step, a, b);
  if (step.changed) result.verdict += comparer.cause(step.change > 0 ? 1 : -1);
  result.regression = step.changed && step.change > options.max_regression * *step.a;
  if (result.regression) {
    result.verdict +=
        fmt::format("; more than --max-regression {:g} %", 100 * options.max_regression);
  }
  result.notes = different;
  for (std::string& note : surroundings(a, b)) result.notes.push_back(std::move(note));
  result.rows = comparer.sorted_rows();
  return result;
}

double parse_max_regression(const std::string& text) {
  std::string number = text;
  const bool percent = number.ends_with('%');
  if (percent) number.pop_back();
  number.erase(number.find_last_not_of(' ') + 1);
  double value = -1;
  const auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), value);
  if (percent) value /= 100;
  if (error != std::errc() || end != number.data() + number.size() || !(value >= 0 && value <= 1)) {
    throw ConfigError(fmt::format(
        "--max-regression: \"{}\"; legal: 0 to 1, or percent with the sign, such as 0.05 or 5%",
        text));
  }
  return value;
}

}  // namespace sprocket::profile
