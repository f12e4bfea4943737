// PTX text as statements: what the parser makes, before anything is known about instructions.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tests/cuda_simulator/types.h"

namespace sprocket::cuda_simulator {

// A variable of a state space. A size of zero: memory that the launch sizes (extern .shared).
struct Variable {
  std::string_view name;
  Space space = Space::kGlobal;
  unsigned align = 1;
  uint64_t bytes = 0;
  bool is_extern = false;
  std::vector<uint8_t> initial;  // empty: zeros
  // Addresses within `initial`: 8 bytes at `offset` are the address of `symbol` plus `addend`.
  struct Pointer {
    uint64_t offset;
    std::string_view symbol;
    int64_t addend;
  };
  std::vector<Pointer> pointers;
};

struct Operand {
  enum class Kind { kRegister, kSpecial, kVariable, kLabel, kImmediate, kVector, kAddress, kSink };
  Kind kind = Kind::kImmediate;
  std::string_view name;       // of a special register, variable, label or called function
  int register_index = -1;     // of kRegister
  int paired = -1;             // the second register of "a|b", else -1
  bool first_is_sink = false;  // of "_|b"
  bool negated = false;        // "!p"
  int scope = 0;               // of kLabel
  // kImmediate: an integer or the bits of a float.
  uint64_t bits = 0;
  unsigned float_bytes = 0;  // 0: an integer
  // kVector: elements. kAddress: base (if any), then the coordinates of a tensor.
  std::vector<Operand> items;
  int64_t offset = 0;  // kAddress
};

struct Statement {
  std::string_view text;
  uint32_t line = 0;
  int guard = -1;  // register
  bool guard_negated = false;
  std::string_view opcode;  // with its modifiers
  std::vector<Operand> operands;
};

struct Register {
  std::string_view name;
  Type type;
};

struct Function {
  std::string_view name;
  bool is_entry = false;
  std::vector<Variable> results;
  std::vector<Variable> parameters;
  std::vector<Variable> variables;
  std::vector<Register> registers;
  std::vector<Statement> statements;
  // Labels of a scope name an index of `statements`; scope 0 is the function's.
  struct Scope {
    int parent = -1;
    std::unordered_map<std::string_view, uint32_t> labels;
    // Tables of brx.idx.
    std::unordered_map<std::string_view, std::vector<std::string_view>> targets;
  };
  std::vector<Scope> scopes;
  unsigned max_threads = 0;         // .maxntid or .reqntid, as a product; 0: no limit
  unsigned cluster[3] = {0, 0, 0};  // .reqnctapercluster; zeros: the launch decides
  const Variable* find_variable(std::string_view variable) const;
  // The statement that a label names, seen from a scope; throws when there is none.
  uint32_t label(std::string_view name, int scope) const;
};

class Module {
 public:
  // Indexes the text; bodies of functions are parsed when they are asked for.
  explicit Module(std::string text);
  Module(const Module&) = delete;
  Module& operator=(const Module&) = delete;

  // "80" or "90a".
  std::string_view target() const { return target_; }
  const std::vector<Variable>& variables() const { return variables_; }
  bool has_function(std::string_view name) const { return bodies_.count(name) != 0; }
  const Function& function(std::string_view name);

 private:
  struct Body {
    size_t begin;  // of the directive .entry or .func
    uint32_t line;
    std::unique_ptr<Function> parsed;
  };
  std::string text_;
  std::string_view target_;
  std::vector<Variable> variables_;
  std::map<std::string_view, Body> bodies_;
};

}  // namespace sprocket::cuda_simulator
