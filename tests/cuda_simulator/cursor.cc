#include "tests/cuda_simulator/cursor.h"

#include <charconv>

#include "tests/cuda_simulator/error.h"

namespace sprocket::cuda_simulator {
namespace {

bool is_name(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
         c == '$' || c == '%';
}

}  // namespace

void Cursor::skip_space() {
  while (at_ < text_.size()) {
    const char c = text_[at_];
    if (c == '\n') {
      ++line_;
      ++at_;
    } else if (c == ' ' || c == '\t' || c == '\r') {
      ++at_;
    } else if (c == '/' && text_.substr(at_, 2) == "//") {
      while (at_ < text_.size() && text_[at_] != '\n') ++at_;
    } else if (c == '/' && text_.substr(at_, 2) == "/*") {
      const size_t end = text_.find("*/", at_ + 2);
      if (end == std::string_view::npos) fail("the end of a comment");
      for (; at_ < end + 2; ++at_) line_ += text_[at_] == '\n';
    } else {
      return;
    }
  }
}

bool Cursor::at_end() { return peek() == 0; }

char Cursor::peek() {
  skip_space();
  return at_ < text_.size() ? text_[at_] : '\0';
}

bool Cursor::take(char c) {
  if (peek() != c) return false;
  ++at_;
  return true;
}

void Cursor::expect(char c) {
  if (!take(c)) fail(std::string_view(&c, 1));
}

std::string_view Cursor::identifier(bool dots) {
  skip_space();
  const size_t begin = at_;
  while (at_ < text_.size() &&
         (is_name(text_[at_]) || (dots && (text_[at_] == '.' || text_.substr(at_, 2) == "::" ||
                                           (at_ > begin && text_.substr(at_ - 1, 2) == "::"))))) {
    ++at_;
  }
  return since(begin);
}

std::string_view Cursor::directive() {
  if (!take('.')) return {};
  return identifier();
}

void Cursor::number(Operand& operand) {
  skip_space();
  operand.kind = Operand::Kind::kImmediate;
  const bool negative = take('-');
  skip_space();
  const std::string_view word = identifier(true);
  const char* end = word.data() + word.size();
  std::from_chars_result parsed{};
  if (word.size() > 2 && word[0] == '0' && (word[1] == 'f' || word[1] == 'F') &&
      word.size() == 10) {
    operand.float_bytes = 4;
    parsed = std::from_chars(word.data() + 2, end, operand.bits, 16);
  } else if (word.size() == 18 && word[0] == '0' && (word[1] == 'd' || word[1] == 'D')) {
    operand.float_bytes = 8;
    parsed = std::from_chars(word.data() + 2, end, operand.bits, 16);
  } else if (word.size() > 2 && word[0] == '0' && (word[1] == 'x' || word[1] == 'X')) {
    parsed = std::from_chars(word.data() + 2, end, operand.bits, 16);
  } else if (word.find('.') != std::string_view::npos) {
    double value = 0;
    parsed = std::from_chars(word.data(), end, value);
    operand.float_bytes = 8;
    operand.bits = __builtin_bit_cast(uint64_t, value);
  } else {
    parsed = std::from_chars(word.data(), end, operand.bits, 10);
  }
  if (parsed.ptr == end - 1 && end[-1] == 'U') ++parsed.ptr;
  if (word.empty() || parsed.ec != std::errc() || parsed.ptr != end) fail("a number");
  if (!negative) return;
  if (operand.float_bytes == 0) {
    operand.bits = -operand.bits;
  } else {
    operand.bits ^= uint64_t{1} << (8 * operand.float_bytes - 1);
  }
}

int64_t Cursor::integer() {
  Operand operand;
  number(operand);
  return static_cast<int64_t>(operand.bits);
}

void Cursor::skip_string() {
  expect('"');
  const size_t end = text_.find('"', at_);
  if (end == std::string_view::npos) fail("the end of a string");
  at_ = end + 1;
}

void Cursor::skip_block() {
  expect('{');
  for (int depth = 1; depth > 0;) {
    const char c = peek();
    if (c == 0) fail("}");
    if (c == '"') {
      skip_string();
      continue;
    }
    depth += (c == '{') - (c == '}');
    ++at_;
  }
}

void Cursor::skip_line() {
  while (at_ < text_.size() && text_[at_] != '\n') ++at_;
}

void Cursor::fail(std::string_view expected) {
  const std::string_view rest = text_.substr(at_, text_.substr(at_).find('\n'));
  throw DeviceError(Fault::kUnsupported, fmt::format("PTX line {}: expected {}, found '{}'", line_,
                                                     expected, rest.substr(0, 60)));
}

}  // namespace sprocket::cuda_simulator
