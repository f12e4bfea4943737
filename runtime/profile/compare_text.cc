#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include "base/error.h"
#include "runtime/profile/compare.h"

namespace sprocket::profile {
namespace {

std::string value_text(double value, Quantity quantity, bool with_sign) {
  const double size = std::abs(value);
  std::string text;
  switch (quantity) {
    case Quantity::kMilliseconds:
      text = size >= 1000 ? fmt::format("{:.0f} ms", size) : fmt::format("{:.4g} ms", size);
      break;
    case Quantity::kCount:
      text = fmt::format("{:.6g}", size);
      break;
    case Quantity::kBytes:
      text = size >= 1e9   ? fmt::format("{:.4g} GB", size / 1e9)
             : size >= 1e6 ? fmt::format("{:.4g} MB", size / 1e6)
             : size >= 1e3 ? fmt::format("{:.4g} kB", size / 1e3)
                           : fmt::format("{:.4g} B", size);
      break;
    case Quantity::kShare:
      text = fmt::format("{:.4f}", size);
      break;
  }
  if (value < 0) return "-" + text;
  return with_sign ? "+" + text : text;
}

std::string percent_text(const ComparedRow& row) {
  if (!row.a) return "new";
  if (!row.b) return "gone";
  if (*row.a == 0) return "";
  return fmt::format("{:+.1f} %", 100 * row.change / *row.a);
}

std::vector<std::string> cells_of(const ComparedRow& row) {
  const auto value = [&](const std::optional<double>& number) {
    return number ? value_text(*number, row.quantity, false) : "-";
  };
  return {row.what,
          value(row.a),
          value(row.b),
          value_text(row.change, row.quantity, true),
          percent_text(row),
          !row.noise               ? ""
          : std::isinf(*row.noise) ? "too few steps"
                                   : value_text(*row.noise, row.quantity, false)};
}

// Columns as wide as their widest cell; the first is left-aligned, the others right-aligned.
std::string table_text(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> widths(rows.front().size());
  for (const auto& row : rows) {
    for (size_t c = 0; c < row.size(); ++c) widths[c] = std::max(widths[c], row[c].size());
  }
  std::string text;
  for (const auto& row : rows) {
    std::string line;
    for (size_t c = 0; c < row.size(); ++c) {
      line += c == 0 ? fmt::format("  {:<{}}", row[c], widths[c])
                     : fmt::format("  {:>{}}", row[c], widths[c]);
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

}  // namespace

std::string comparison_text(const Comparison& comparison, bool all) {
  std::string text = comparison.verdict + "\n";
  if (!comparison.notes.empty()) text += "\nDifferent, A | B\n";
  for (const std::string& note : comparison.notes) text += "  " + note + "\n";
  const std::vector<ComparedRow>& rows = comparison.rows;
  for (auto begin = rows.begin(); begin != rows.end();) {
    const auto end = std::find_if(
        begin, rows.end(), [&](const ComparedRow& row) { return row.table != begin->table; });
    std::vector<std::vector<std::string>> cells = {{begin->table, "A", "B", "change", "", "noise"}};
    int left = 0;
    for (auto row = begin; row != end; ++row) {
      if (!row->changed && !all) continue;
      if (!all && std::ssize(cells) > kMostRows) {
        ++left;
      } else {
        cells.push_back(cells_of(*row));
      }
    }
    if (cells.size() > 1) text += "\n" + table_text(cells);
    if (left > 0) text += fmt::format("  and {} more (--all)\n", left);
    begin = end;
  }
  if (std::none_of(rows.begin(), rows.end(), [](const ComparedRow& row) { return row.changed; })) {
    text += "\nNothing changed beyond noise.\n";
  }
  return text;
}

}  // namespace sprocket::profile
