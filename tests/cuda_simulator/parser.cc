#include "tests/cuda_simulator/parser.h"

#include <charconv>

#include "tests/cuda_simulator/error.h"

namespace sprocket::cuda_simulator {
namespace {

void put(std::vector<uint8_t>& bytes, uint64_t value, unsigned size) {
  for (unsigned i = 0; i < size; ++i) bytes.push_back(static_cast<uint8_t>(value >> (8 * i)));
}

// One element of an initial value: a number, or the address of a variable.
void parse_initial(Cursor& cursor, Variable& variable, unsigned size) {
  if (cursor.take('{')) {
    while (!cursor.take('}')) {
      parse_initial(cursor, variable, size);
      cursor.take(',');
    }
    return;
  }
  const char c = cursor.peek();
  if (c == '-' || (c >= '0' && c <= '9')) {
    Operand value;
    cursor.number(value);
    put(variable.initial, value.bits, size);
    return;
  }
  std::string_view symbol = cursor.identifier();
  if (symbol == "generic" && cursor.take('(')) {
    symbol = cursor.identifier();
    cursor.expect(')');
  }
  int64_t addend = 0;
  if (cursor.take('+')) addend = cursor.integer();
  if (symbol.empty() || size != 8) cursor.fail("an initial value");
  variable.pointers.push_back({variable.initial.size(), symbol, addend});
  put(variable.initial, 0, size);
}

class FunctionParser {
 public:
  explicit FunctionParser(Cursor& cursor) : cursor_(cursor) {}
  Function parse();

 private:
  void variables_until_parenthesis(std::vector<Variable>& list);
  void performance_directives();
  void block();
  void declare_registers();
  void statement();
  Operand operand();
  Operand address();
  Operand named(std::string_view name);
  int find_register(std::string_view name) const;

  struct Names {
    std::unordered_map<std::string_view, int> exact;
    // "%r" of "%r<10>": the first register, and how many.
    std::unordered_map<std::string_view, std::pair<int, int>> ranges;
  };
  Cursor& cursor_;
  Function function_;
  int scope_ = -1;
  std::vector<Names> names_;  // of the open scopes
};

void FunctionParser::variables_until_parenthesis(std::vector<Variable>& list) {
  while (!cursor_.take(')')) {
    const std::string_view space = cursor_.directive();
    if (space != "param" && space != "reg") cursor_.fail(".param");
    list.push_back(parse_variable(cursor_, function_.is_entry ? Space::kParam : Space::kLocal));
    cursor_.take(',');
  }
}

void FunctionParser::performance_directives() {
  while (cursor_.peek() == '.') {
    const std::string_view word = cursor_.directive();
    if (word == "maxntid" || word == "reqntid") {
      function_.max_threads = 1;
      do {
        function_.max_threads *= static_cast<unsigned>(cursor_.integer());
      } while (cursor_.take(','));
    } else if (word == "minnctapersm" || word == "maxnreg" || word == "maxclusterrank") {
      cursor_.integer();
    } else if (word == "reqnctapercluster") {
      for (unsigned& n : function_.cluster) n = 1;
      int i = 0;
      do {
        function_.cluster[i++] = static_cast<unsigned>(cursor_.integer());
      } while (i < 3 && cursor_.take(','));
    } else if (word == "pragma") {
      cursor_.skip_string();
      cursor_.expect(';');
    } else if (word != "explicitcluster" && word != "noreturn" && word != "blocksareclusters") {
      cursor_.fail("a directive of a function");
    }
  }
}

Function FunctionParser::parse() {
  const std::string_view kind = cursor_.directive();
  function_.is_entry = kind == "entry";
  if (!function_.is_entry && cursor_.take('(')) variables_until_parenthesis(function_.results);
  function_.name = cursor_.identifier();
  if (cursor_.take('(')) variables_until_parenthesis(function_.parameters);
  performance_directives();
  cursor_.expect('{');
  block();
  return std::move(function_);
}

// After the opening brace, to past the closing one.
void FunctionParser::block() {
  const int outer = scope_;
  scope_ = static_cast<int>(function_.scopes.size());
  function_.scopes.push_back({outer, {}, {}});
  names_.emplace_back();
  while (!cursor_.take('}')) {
    if (cursor_.take('{')) {
      block();
    } else if (cursor_.take(';')) {
    } else if (cursor_.peek() == '.') {
      const std::string_view word = cursor_.directive();
      if (word == "reg") {
        declare_registers();
      } else if (word == "local" || word == "shared" || word == "param") {
        function_.variables.push_back(
            parse_variable(cursor_, word == "shared" ? Space::kShared : Space::kLocal));
      } else if (word == "loc" || word == "file") {
        cursor_.skip_line();
      } else if (word == "pragma") {
        cursor_.skip_string();
        cursor_.expect(';');
      } else {
        cursor_.fail("a directive of a body");
      }
    } else {
      statement();
    }
  }
  names_.pop_back();
  scope_ = outer;
}

void FunctionParser::declare_registers() {
  std::string_view type = cursor_.directive();
  const auto known = type_named(type);
  if (!known) cursor_.fail("a type of registers");
  do {
    const std::string_view name = cursor_.identifier();
    int count = 1;
    if (cursor_.take('<')) {
      count = static_cast<int>(cursor_.integer());
      cursor_.expect('>');
      names_.back().ranges[name] = {static_cast<int>(function_.registers.size()), count};
    } else {
      names_.back().exact[name] = static_cast<int>(function_.registers.size());
    }
    for (int i = 0; i < count; ++i) function_.registers.push_back({name, *known});
  } while (cursor_.take(','));
  cursor_.expect(';');
}

int FunctionParser::find_register(std::string_view name) const {
  size_t digits = name.size();
  while (digits > 0 && name[digits - 1] >= '0' && name[digits - 1] <= '9') --digits;
  int number = -1;
  std::from_chars(name.data() + digits, name.data() + name.size(), number);
  for (auto names = names_.rbegin(); names != names_.rend(); ++names) {
    const auto exact = names->exact.find(name);
    if (exact != names->exact.end()) return exact->second;
    const auto range = names->ranges.find(name.substr(0, digits));
    if (number >= 0 && range != names->ranges.end() && number < range->second.second) {
      return range->second.first + number;
    }
  }
  return -1;
}

Operand FunctionParser::named(std::string_view name) {
  Operand result;
  result.name = name;
  result.scope = scope_;
  if (name == "_") {
    result.kind = Operand::Kind::kSink;
    return result;
  }
  result.register_index = find_register(name);
  if (result.register_index >= 0) {
    result.kind = Operand::Kind::kRegister;
  } else if (name[0] == '%' || name == "WARP_SZ") {
    result.kind = Operand::Kind::kSpecial;
    if (cursor_.peek() == '.') {
      Cursor dimension = cursor_;
      const std::string_view word = dimension.directive();
      if (word == "x" || word == "y" || word == "z" || word == "w") {
        cursor_ = dimension;
        result.name = std::string_view(name.data(), word.data() + 1 - name.data());
      }
    }
  } else {
    // A label is known as one by its instruction alone.
    result.kind = Operand::Kind::kVariable;
  }
  return result;
}

Operand FunctionParser::address() {
  Operand result;
  result.kind = Operand::Kind::kAddress;
  do {
    if (cursor_.peek() == '{') {
      result.items.push_back(operand());
      continue;
    }
    const char c = cursor_.peek();
    if (c == '-' || (c >= '0' && c <= '9')) {
      result.offset += cursor_.integer();
      continue;
    }
    result.items.push_back(named(cursor_.identifier()));
    while (cursor_.take('+')) result.offset += cursor_.integer();
    if (cursor_.peek() == '-') result.offset += cursor_.integer();
  } while (cursor_.take(','));
  cursor_.expect(']');
  return result;
}

Operand FunctionParser::operand() {
  if (cursor_.take('[')) return address();
  const bool negated = cursor_.take('!');
  const char c = cursor_.peek();
  if (c == '{' || c == '(') {
    Operand result;
    result.kind = Operand::Kind::kVector;
    cursor_.expect(c);
    const char close = c == '{' ? '}' : ')';
    while (!cursor_.take(close)) {
      result.items.push_back(operand());
      cursor_.take(',');
    }
    return result;
  }
  if (c == '-' || (c >= '0' && c <= '9')) {
    Operand result;
    cursor_.number(result);
    return result;
  }
  const std::string_view name = cursor_.identifier();
  if (name.empty()) cursor_.fail("an operand");
  Operand result = named(name);
  result.negated = negated;
  if (cursor_.take('|')) {
    const Operand second = named(cursor_.identifier());
    if (result.kind == Operand::Kind::kSink) {
      result.first_is_sink = true;
      result.kind = Operand::Kind::kRegister;
    }
    result.paired = second.register_index;
  }
  if (cursor_.take('+')) result.offset = cursor_.integer();
  return result;
}

void FunctionParser::statement() {
  const size_t begin = cursor_.position();
  Statement result;
  result.line = cursor_.line();
  if (cursor_.take('@')) {
    result.guard_negated = cursor_.take('!');
    result.guard = find_register(cursor_.identifier());
    if (result.guard < 0) cursor_.fail("a declared predicate");
  } else {
    Cursor ahead = cursor_;
    const std::string_view label = ahead.identifier();
    if (!label.empty() && ahead.peek() == ':') {
      ahead.take(':');
      cursor_ = ahead;
      if (cursor_.peek() == '.') {
        Cursor table = cursor_;
        if (table.directive() == "branchtargets") {
          cursor_ = table;
          auto& list = function_.scopes[scope_].targets[label];
          do {
            list.push_back(cursor_.identifier());
          } while (cursor_.take(','));
          cursor_.expect(';');
          return;
        }
      }
      function_.scopes[scope_].labels[label] = static_cast<uint32_t>(function_.statements.size());
      return;
    }
  }
  result.opcode = cursor_.identifier(true);
  if (result.opcode.empty()) cursor_.fail("an instruction");
  while (cursor_.peek() != ';') {
    result.operands.push_back(operand());
    cursor_.take(',');
  }
  result.text = cursor_.since(begin);
  cursor_.expect(';');
  function_.statements.push_back(std::move(result));
}

}  // namespace

Variable parse_variable(Cursor& cursor, Space space) {
  Variable result;
  result.space = space;
  unsigned element = 0, lanes = 1;
  bool aligned = false;
  while (cursor.peek() == '.') {
    const std::string_view word = cursor.directive();
    if (word == "align") {
      result.align = static_cast<unsigned>(cursor.integer());
      aligned = true;
    } else if (word == "v2" || word == "v4") {
      lanes = word[1] - '0';
    } else if (word == "ptr" || word == "global" || word == "shared" || word == "local" ||
               word == "const") {
      // What a pointer points to; its .align is not the parameter's.
      if (word == "ptr") {
        result.align = 8;
        while (cursor.peek() == '.') {
          if (cursor.directive() == "align") cursor.integer();
        }
        aligned = true;
      }
    } else if (const auto type = type_named(word)) {
      element = type_bytes(*type);
    } else {
      cursor.fail("a type or attribute of a variable");
    }
  }
  if (element == 0) cursor.fail("the type of a variable");
  if (!aligned) result.align = element * lanes;
  result.name = cursor.identifier();
  uint64_t count = 1;
  while (cursor.take('[')) {
    count *= cursor.peek() == ']' ? 0 : static_cast<uint64_t>(cursor.integer());
    cursor.expect(']');
  }
  result.bytes = count * element * lanes;
  if (cursor.take('=')) {
    parse_initial(cursor, result, element);
    result.initial.resize(result.bytes);
  }
  cursor.take(';');
  return result;
}

Function parse_function(Cursor& cursor) { return FunctionParser(cursor).parse(); }

std::string_view skip_function(Cursor& cursor) {
  std::string_view name;
  while (cursor.peek() != '{') {
    if (cursor.take(';')) return name;
    if (cursor.take('(')) {
      while (!cursor.take(')')) {
        if (cursor.at_end()) cursor.fail(")");
        if (cursor.identifier(true).empty()) cursor.take(cursor.peek());
      }
      continue;
    }
    const std::string_view word = cursor.identifier();
    if (word.empty()) {
      if (!cursor.take(cursor.peek())) cursor.fail("a function");
      cursor.identifier();
      if (cursor.peek() == '"') cursor.skip_string();
      while (cursor.take(',')) cursor.integer();
    } else if (name.empty()) {
      name = word;
    }
  }
  cursor.skip_block();
  return name;
}

}  // namespace sprocket::cuda_simulator
