#include <algorithm>

#include "tests/cuda_simulator/decoder.h"

namespace sprocket::cuda_simulator {

Modifiers::Modifiers(std::string_view opcode) : opcode_(opcode) {
  for (size_t begin = 0; begin <= opcode.size();) {
    size_t end = opcode.find('.', begin);
    if (end == std::string_view::npos) end = opcode.size();
    words_.push_back(opcode.substr(begin, end - begin));
    begin = end + 1;
  }
  root_ = words_.front();
  words_.erase(words_.begin());
}

bool Modifiers::take(std::string_view name) {
  const auto found = std::find(words_.begin(), words_.end(), name);
  if (found == words_.end()) return false;
  words_.erase(found);
  return true;
}

std::string_view Modifiers::take_any(std::initializer_list<std::string_view> names) {
  for (std::string_view name : names) {
    if (take(name)) return name;
  }
  return {};
}

Type Modifiers::type() {
  for (auto word = words_.begin(); word != words_.end(); ++word) {
    if (const auto known = type_named(*word)) {
      words_.erase(word);
      return *known;
    }
  }
  unsupported("{} names no type that the simulator knows", opcode_);
}

Type Modifiers::type(Type otherwise) {
  const bool named = std::any_of(words_.begin(), words_.end(), [](std::string_view word) {
    return type_named(word).has_value();
  });
  return named ? type() : otherwise;
}

void Modifiers::finish() const {
  if (!words_.empty())
    unsupported("the simulator does not know .{} of {}", words_.front(), opcode_);
}

void Modifiers::fail() const { unsupported("the simulator does not know {}", opcode_); }

}  // namespace sprocket::cuda_simulator
