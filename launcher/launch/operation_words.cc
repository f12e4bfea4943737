#include "launcher/launch/operation_words.h"

#include <algorithm>
#include <map>
#include <utility>

#include <fmt/format.h>

namespace sprocket::launcher {
namespace {

using control::Heartbeat;
using control::Operation;

std::string place_of(const Operation& operation) {
  std::string text;
  if (operation.layer() >= 0) text += fmt::format("layer {}, ", operation.layer());
  text += operation.phase();
  if (operation.step() >= 0) text += fmt::format(", step {}", operation.step());
  return text;
}

using GroupKey = std::pair<std::string, int>;

GroupKey group_of(const Operation& operation) {
  return {operation.communicator(), operation.leader()};
}

}  // namespace

std::string words_of(const Operation& operation) {
  return fmt::format("{} #{} of {}[{}] ({})", operation.name(), operation.sequence(),
                     operation.communicator(), operation.leader(), place_of(operation));
}

std::string line_of(const Operation& operation) {
  return fmt::format(
      "  {} of {} ranks, {} bytes, {} {:.3f} s{}\n", words_of(operation), operation.ranks(),
      operation.bytes(), operation.unfinished() ? "unfinished for" : "completed",
      1e-3 * static_cast<double>(operation.age_ms()), operation.unfinished() ? "" : " ago");
}

const Operation* newest(const Heartbeat& beat) {
  const Operation* found = nullptr;
  for (const Operation& operation : beat.operation()) {
    const bool later = !found || std::pair(operation.unfinished(), found->age_ms()) >
                                     std::pair(found->unfinished(), operation.age_ms());
    if (later) found = &operation;
  }
  return found;
}

std::vector<int> ranks_behind(const std::vector<const Heartbeat*>& beats) {
  std::map<GroupKey, int64_t> furthest;
  for (const Heartbeat* beat : beats) {
    if (!beat) continue;
    for (const Operation& operation : beat->operation()) {
      int64_t& sequence = furthest.try_emplace(group_of(operation), -1).first->second;
      sequence = std::max(sequence, operation.sequence());
    }
  }
  std::vector<int> behind;
  for (size_t i = 0; i < beats.size(); ++i) {
    if (!beats[i]) continue;
    const auto& operations = beats[i]->operation();
    const bool late =
        std::any_of(operations.begin(), operations.end(), [&](const Operation& operation) {
          return operation.sequence() < furthest[group_of(operation)];
        });
    if (late) behind.push_back(static_cast<int>(i));
  }
  return behind;
}

std::string what_others_wait_in(const std::vector<const Heartbeat*>& beats,
                                const std::vector<int>& blamed) {
  std::map<std::string, int> waiting;
  for (size_t i = 0; i < beats.size(); ++i) {
    if (!beats[i] || std::count(blamed.begin(), blamed.end(), static_cast<int>(i)) > 0) continue;
    const Operation* operation = newest(*beats[i]);
    if (operation && operation->unfinished()) ++waiting[words_of(*operation)];
  }
  std::string others;
  int most = 0;
  for (const auto& [words, count] : waiting) {
    if (count <= most) continue;
    most = count;
    others = fmt::format("; the others wait in {}", words);
  }
  return others;
}

}  // namespace sprocket::launcher
