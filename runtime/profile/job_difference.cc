#include "runtime/profile/job_difference.h"

#include <algorithm>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace sprocket::profile {
namespace {

// Blocks of text format as paths: "parallel.ulysses: 2".
std::vector<std::string> fields_of(const std::string& text) {
  std::vector<std::string> fields, path;
  size_t begin = 0;
  while (begin < text.size()) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    std::string line = text.substr(begin, end - begin);
    begin = end + 1;
    line.erase(0, line.find_first_not_of(" \t"));
    line.erase(line.find_last_not_of(" \t") + 1);
    if (line.empty() || line.front() == '#') continue;
    if (line.back() == '{') {
      path.push_back(line.substr(0, line.find_first_of(" :{")));
    } else if (line == "}") {
      if (!path.empty()) path.pop_back();
    } else {
      const bool nested = !path.empty();
      fields.push_back(fmt::format("{}{}{}", fmt::join(path, "."), nested ? "." : "", line));
    }
  }
  return fields;
}

std::string key_of(const std::string& field) { return field.substr(0, field.find(':')); }

std::string value_of(const std::string& field) {
  const size_t colon = field.find(": ");
  return colon == std::string::npos ? field : field.substr(colon + 2);
}

// What of `fields` is not in `others`, each as often as there.
std::vector<std::string> without(const std::vector<std::string>& fields,
                                 std::vector<std::string> others) {
  std::vector<std::string> left;
  for (const std::string& field : fields) {
    const auto found = std::find(others.begin(), others.end(), field);
    if (found == others.end()) {
      left.push_back(field);
    } else {
      others.erase(found);
    }
  }
  return left;
}

std::string incomplete(const Report& report, const std::string& name) {
  const Window& window = report.window;
  std::string text =
      fmt::format("window of {}: incomplete: {} of {} steps", name, window.steps, window.asked);
  if (!window.missing_ranks.empty()) {
    text += fmt::format(", without rank{} {}", window.missing_ranks.size() == 1 ? "" : "s",
                        fmt::join(window.missing_ranks, ", "));
  }
  for (const std::string& note : window.notes) text += "; " + note;
  return text;
}

}  // namespace

std::vector<std::string> differing_fields(const std::string& a, const std::string& b) {
  const std::vector<std::string> of_a = fields_of(a), of_b = fields_of(b);
  const std::vector<std::string> a_alone = without(of_a, of_b);
  std::vector<std::string> b_alone = without(of_b, of_a), lines;
  for (const std::string& field : a_alone) {
    const auto other = std::find_if(
        b_alone.begin(), b_alone.end(),
        [&](const std::string& candidate) { return key_of(candidate) == key_of(field); });
    if (other == b_alone.end()) {
      lines.push_back(field + " | not set");
    } else {
      lines.push_back(field + " | " + value_of(*other));
      b_alone.erase(other);
    }
  }
  for (const std::string& field : b_alone) {
    lines.push_back(fmt::format("{}: not set | {}", key_of(field), value_of(field)));
  }
  return lines;
}

std::vector<std::string> obstacles(const Report& a, const Report& b, const std::string& name_a,
                                   const std::string& name_b) {
  constexpr size_t kMostFields = 20;
  std::vector<std::string> lines;
  if (a.job.kind != b.job.kind) {
    lines.push_back(fmt::format("kind: {} | {}", a.job.kind, b.job.kind));
  }
  if (a.mesh.world() != b.mesh.world()) {
    lines.push_back(fmt::format("ranks: {} | {}", a.mesh.world(), b.mesh.world()));
  }
  if (a.job.identity != b.job.identity) {
    std::vector<std::string> fields = differing_fields(a.job.description, b.job.description);
    if (fields.empty()) {
      lines.push_back(fmt::format("job.identity: {} | {}", a.job.identity, b.job.identity));
    }
    const size_t more = fields.size() > kMostFields ? fields.size() - kMostFields : 0;
    fields.resize(fields.size() - more);
    lines.insert(lines.end(), fields.begin(), fields.end());
    if (more > 0) lines.push_back(fmt::format("and {} more fields", more));
  }
  if (!a.window.complete) lines.push_back(incomplete(a, name_a));
  if (!b.window.complete) lines.push_back(incomplete(b, name_b));
  return lines;
}

std::vector<std::string> surroundings(const Report& a, const Report& b) {
  std::vector<std::string> notes;
  const auto note = [&](const char* what, const std::string& of_a, const std::string& of_b) {
    if (of_a != of_b) notes.push_back(fmt::format("{}: {} | {}", what, of_a, of_b));
  };
  const auto hosts = [](const Report& report) {
    std::string text;
    for (const Host& host : report.machine.hosts) {
      text += fmt::format("{}{} ({})", text.empty() ? "" : ", ", host.name, host.ranks);
    }
    return text;
  };
  note("program", a.program.name + " " + a.program.version,
       b.program.name + " " + b.program.version);
  note("hosts (ranks)", hosts(a), hosts(b));
  note("device", a.machine.device, b.machine.device);
  note("threads of a rank", fmt::format("{}", a.machine.threads),
       fmt::format("{}", b.machine.threads));
  return notes;
}

}  // namespace sprocket::profile
