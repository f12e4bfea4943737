// A place in PTX text: the lexical half of the parser.
#pragma once

#include <cstdint>
#include <string_view>

#include "tests/cuda_simulator/module.h"

namespace sprocket::cuda_simulator {

class Cursor {
 public:
  Cursor(std::string_view text, size_t at, uint32_t line) : text_(text), at_(at), line_(line) {}

  size_t position() const { return at_; }
  uint32_t line() const { return line_; }
  std::string_view since(size_t begin) const { return text_.substr(begin, at_ - begin); }

  // Past white space and comments.
  void skip_space();
  bool at_end();
  // The next character after white space; 0 at the end.
  char peek();
  bool take(char c);
  void expect(char c);
  // An identifier: letters, digits, _ $ %; empty if there is none. With `dots`, dots and colons
  // too.
  std::string_view identifier(bool dots = false);
  // A directive such as ".align" without its dot; empty if there is none.
  std::string_view directive();
  // Any number of PTX; fills the immediate of `operand`.
  void number(Operand& operand);
  int64_t integer();
  // Past a quoted string, or past the block whose brace comes next.
  void skip_string();
  void skip_block();
  void skip_line();
  [[noreturn]] void fail(std::string_view expected);

 private:
  std::string_view text_;
  size_t at_;
  uint32_t line_;
};

}  // namespace sprocket::cuda_simulator
