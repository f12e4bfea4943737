#include "tests/cuda_simulator/module.h"

#include "tests/cuda_simulator/cursor.h"
#include "tests/cuda_simulator/error.h"
#include "tests/cuda_simulator/parser.h"

namespace sprocket::cuda_simulator {

const Variable* Function::find_variable(std::string_view variable) const {
  for (const auto* list : {&variables, &parameters, &results}) {
    for (const Variable& v : *list) {
      if (v.name == variable) return &v;
    }
  }
  return nullptr;
}

uint32_t Function::label(std::string_view label, int scope) const {
  for (; scope >= 0; scope = scopes[scope].parent) {
    const auto found = scopes[scope].labels.find(label);
    if (found != scopes[scope].labels.end()) return found->second;
  }
  unsupported("{}: no label {}", name, label);
}

Module::Module(std::string text) : text_(std::move(text)) {
  Cursor cursor(text_, 0, 1);
  while (!cursor.at_end()) {
    const size_t begin = cursor.position();
    const uint32_t line = cursor.line();
    const std::string_view word = cursor.directive();
    bool is_extern = false;
    if (word == "version") {
      cursor.identifier(true);
    } else if (word == "target") {
      target_ = cursor.identifier();
      if (target_.substr(0, 3) != "sm_") cursor.fail("sm_XX");
      target_.remove_prefix(3);
      while (cursor.take(',')) cursor.identifier();
    } else if (word == "address_size") {
      if (cursor.integer() != 64) cursor.fail("an address size of 64");
    } else if (word == "visible" || word == "weak" || word == "extern" || word == "common") {
      is_extern = word == "extern";
      if (is_extern && cursor.peek() == '.') {
        Cursor ahead = cursor;
        if (ahead.directive() == "shared") {
          cursor.directive();
          variables_.push_back(parse_variable(cursor, Space::kShared));
          variables_.back().is_extern = true;
        }
      }
    } else if (word == "global" || word == "const" || word == "shared") {
      const Space space = word == "global"  ? Space::kGlobal
                          : word == "const" ? Space::kConst
                                            : Space::kShared;
      variables_.push_back(parse_variable(cursor, space));
    } else if (word == "entry" || word == "func") {
      const std::string_view name = skip_function(cursor);
      // A declaration may come before its definition.
      if (cursor.since(cursor.position() - 1) == "}") bodies_[name] = Body{begin, line, nullptr};
    } else if (word == "file" || word == "loc" || word == "section") {
      cursor.skip_line();
    } else {
      cursor.fail("a directive");
    }
  }
}

const Function& Module::function(std::string_view name) {
  const auto found = bodies_.find(name);
  if (found == bodies_.end()) unsupported("no function {} in the PTX of sm_{}", name, target_);
  Body& body = found->second;
  if (!body.parsed) {
    Cursor cursor(text_, body.begin, body.line);
    body.parsed = std::make_unique<Function>(parse_function(cursor));
  }
  return *body.parsed;
}

}  // namespace sprocket::cuda_simulator
