#include "launcher/status/status_text.h"

#include <sstream>
#include <vector>

#include <fmt/format.h>

#include "runtime/profile/quantity.h"

namespace sprocket::launcher {
namespace {

using profile::duration_text;
using profile::percent;
using profile::seconds_text;

constexpr const char* kGap = "   ";
constexpr const char* kUnknown = "-";

template <class T, class Text>
std::string or_unknown(const std::optional<T>& value, Text&& text) {
  return value ? text(*value) : kUnknown;
}

std::string steps_text(const JobStatus& status) {
  if (status.step < 0) return "no step yet";
  if (status.total_steps <= 0) return fmt::format("step {}", status.step);
  const double share = static_cast<double>(status.step) / static_cast<double>(status.total_steps);
  return fmt::format("step {}/{} ({:.0f} %)", status.step, status.total_steps, 100 * share);
}

std::string figures(const JobStatus& status) {
  std::string text = steps_text(status);
  const auto add = [&text](const std::string& more) { text += kGap + more; };
  if (status.loss) add(fmt::format("loss {:.4f}", *status.loss));
  if (status.step_seconds) add(fmt::format("{:.3f} s/step", *status.step_seconds));
  if (status.tokens_per_second) add(fmt::format("{:.0f} tokens/s", *status.tokens_per_second));
  if (status.exposed_share) add("exposed communication " + percent(*status.exposed_share));
  if (status.eta_seconds) add("ETA " + duration_text(*status.eta_seconds));
  return text;
}

std::string history(const JobStatus& status) {
  std::string text = fmt::format("restarts {}", status.restarts);
  text += kGap;
  if (status.checkpoint_step < 0) {
    text += "no checkpoint since the launch";
  } else {
    text += fmt::format("checkpoint at step {}, {} ago", status.checkpoint_step,
                        duration_text(status.checkpoint_age.value_or(0)));
  }
  if (status.slowest_rank) text += fmt::format("{}slowest rank {}", kGap, *status.slowest_rank);
  return text;
}

using Row = std::vector<std::string>;
// What numbers are aligned by.
constexpr bool kLeft = true, kRight = false;
struct Column {
  const char* heading;
  bool alignment;
};
constexpr Column kColumns[] = {{"rank", kRight},         {"host", kLeft},    {"process", kRight},
                               {"section", kLeft},       {"step", kRight},   {"own time", kRight},
                               {"exposed", kRight},      {"memory", kRight}, {"heard", kRight},
                               {"last operation", kLeft}};

std::string heard_text(const RankStatus& rank) {
  if (rank.lost) return "lost";
  if (!rank.connected) return "not now";
  return fmt::format("{:.1f} s ago", rank.silent_seconds);
}

Row row_of(const RankStatus& rank) {
  if (rank.process == 0) {
    Row row = {std::to_string(rank.rank)};
    row.resize(std::size(kColumns), kUnknown);
    row.back() = "not heard of yet";
    return row;
  }
  std::string operation = kUnknown;
  if (!rank.operation.empty()) operation = (rank.in_operation ? "in " : "after ") + rank.operation;
  return {std::to_string(rank.rank),
          rank.host,
          std::to_string(rank.process),
          rank.section,
          rank.step < 0 ? kUnknown : std::to_string(rank.step),
          or_unknown(rank.own_seconds, seconds_text),
          or_unknown(rank.exposed_share, percent),
          profile::bytes_text(static_cast<double>(rank.memory_bytes)),
          heard_text(rank),
          operation};
}

// By characters, not bytes: "µs".
size_t length_of(const std::string& text) {
  size_t count = 0;
  for (const char c : text) count += (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  return count;
}

std::string table_of(const std::vector<Row>& rows) {
  std::vector<size_t> widths(std::size(kColumns));
  for (const Row& row : rows) {
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], length_of(row[i]));
  }
  std::string text;
  for (const Row& row : rows) {
    std::string line;
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string space(widths[i] - length_of(row[i]), ' ');
      if (i > 0) line += "  ";
      line += kColumns[i].alignment == kLeft ? row[i] + space : space + row[i];
    }
    line.erase(line.find_last_not_of(' ') + 1);
    text += line + "\n";
  }
  return text;
}

// Of ranks' words nothing reaches the terminal that moves its cursor.
std::string one_line(const std::string& text, size_t width) {
  std::string line;
  size_t count = 0;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    count += (byte & 0xc0) != 0x80;
    if (width > 0 && count > width) break;
    line += byte < 0x20 || byte == 0x7f ? '?' : c;
  }
  return line;
}

}  // namespace

std::string status_table(const JobStatus& status, size_t width) {
  std::string text = fmt::format("{}\n{} for {}{}supervised on {} by process {}\n", status.command,
                                 name_of(status.state), duration_text(status.seconds), kGap,
                                 status.host, status.process);
  text += figures(status) + "\n" + history(status) + "\n";
  if (!status.last_failure.empty()) text += "last failure: " + status.last_failure + "\n";
  if (!status.straggler_sentence.empty()) text += "straggler: " + status.straggler_sentence + "\n";
  text += "\n";
  std::vector<Row> rows(1);
  for (const Column& column : kColumns) rows[0].emplace_back(column.heading);
  for (const RankStatus& rank : status.ranks) rows.push_back(row_of(rank));
  text += table_of(rows);
  std::string cut;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) cut += one_line(line, width) + "\n";
  return cut;
}

std::string status_line(const JobStatus& status) {
  std::string line = fmt::format("{}{}{}{}{}", name_of(status.state), kGap, figures(status), kGap,
                                 history(status));
  if (status.straggler) line += fmt::format("{}straggler rank {}", kGap, *status.straggler);
  return one_line(line, 0);
}

}  // namespace sprocket::launcher
