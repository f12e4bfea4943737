// From a statement to an instruction. Each family of instructions has its decode functions in one
// file; they ask the decoder for places of operands.
#pragma once

#include <initializer_list>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tests/cuda_simulator/error.h"
#include "tests/cuda_simulator/program.h"

namespace sprocket::cuda_simulator {

// The modifiers of one opcode; each must be asked for, or finish() complains.
class Modifiers {
 public:
  explicit Modifiers(std::string_view opcode);
  std::string_view root() const { return root_; }
  // Whether the modifier is there; it counts as understood from now on.
  bool take(std::string_view name);
  // The first of the names that is there, or an empty string.
  std::string_view take_any(std::initializer_list<std::string_view> names);
  // The next type that was not taken yet. The second form returns `otherwise` if there is none.
  Type type();
  Type type(Type otherwise);
  void finish() const;
  [[noreturn]] void fail() const;

 private:
  std::string_view opcode_;
  std::string_view root_;
  std::vector<std::string_view> words_;
};

class Decoder {
 public:
  // `dynamic_shared` is where the memory begins that the launch sizes.
  Decoder(Module& module, const SymbolTable& symbols, uint32_t dynamic_shared, Program& program);

  // Decodes a kernel and every function that it calls.
  void run(std::string_view kernel);

  // --- For decode functions, about the statement at hand.
  const Statement& statement() const { return *statement_; }
  size_t operands() const { return statement_->operands.size(); }
  const Operand& operand(size_t i) const;
  Instruction& out() { return out_; }

  // The place of a source of the given width: a register of that width, a special register, or an
  // immediate (a float is converted if the type is one), an address of a variable.
  uint32_t source(const Operand& operand, Type type);
  uint32_t source(size_t i, Type type) { return source(operand(i), type); }
  // The place of a register to write.
  uint32_t destination(const Operand& operand, Type type);
  uint32_t destination(size_t i, Type type) { return destination(operand(i), type); }
  // A register of any width, and its width.
  uint32_t any_register(const Operand& operand, unsigned& bytes);
  bool is_predicate(const Operand& operand) const {
    return function_->registers[operand.register_index].type == Type::kPredicate;
  }
  // A predicate; `flip` gets all ones if it is negated.
  uint32_t predicate(const Operand& operand, Lanes& flip);
  uint32_t constant(uint64_t value, unsigned bytes);
  uint32_t true_predicate() const { return 0; }
  uint32_t paired_predicate(const Operand& operand);

  // [base + offset]: sets out().immediate, and returns the place of a 64-bit base (which is zero
  // for a variable), or of a 32-bit base with `bytes` = 4.
  uint32_t address(const Operand& operand, unsigned& bytes);
  int64_t variable_address(std::string_view name);
  Space variable_space(std::string_view name);

  // A statement may be more than one instruction: all but the last are emitted by its decode
  // function.
  void emit() { program_.code.push_back(out_); }
  const Instruction& last_emitted() const { return program_.code.back(); }
  uint32_t temporary(unsigned bytes) { return new_place(bytes); }

  uint32_t begin_list() { return static_cast<uint32_t>(program_.list.size()); }
  void append(uint32_t place) { program_.list.push_back(place); }

  // A branch's target is known when all of a function is decoded: filled in then.
  void branch_to(std::string_view label, int scope);
  // A table of targets, appended to the program's list.
  void branch_table(std::string_view label, int scope);
  // The function that is called; the first of its code is filled in at the end.
  const Function& callee(std::string_view name);
  uint32_t return_register();  // of the function at hand
  uint32_t return_register(const Function& function);
  uint32_t local_address(const Function& function, std::string_view variable);
  bool in_entry() const { return function_->is_entry; }
  uint32_t next_instruction() const { return static_cast<uint32_t>(program_.code.size()) + 1; }

 private:
  struct Frame {  // of a function: functions do not recurse, so each has its registers once
    std::vector<uint32_t> registers;  // places
    std::unordered_map<std::string_view, uint32_t> locals;
    std::unordered_map<std::string_view, uint32_t> shared;
    std::unordered_map<std::string_view, uint32_t> parameters;  // of a kernel
    uint32_t return_register = 0;
    uint32_t first = kNowhere;
  };
  struct Fixup {
    uint32_t instruction;  // kNowhere: an entry of the list
    uint32_t list;
    const Function* function;
    uint32_t statement;
  };
  Frame& frame(const Function& function);
  void decode(const Function& function);
  void decode_statement();
  uint32_t new_place(unsigned bytes);
  uint32_t shared_offset(const Variable& variable,
                         std::unordered_map<std::string_view, uint32_t>& in);
  uint32_t special(std::string_view name, unsigned bytes);

  Module& module_;
  const SymbolTable& symbols_;
  Program& program_;
  std::unordered_map<const Function*, Frame> frames_;
  std::unordered_map<std::string_view, uint32_t> module_shared_;
  std::vector<const Function*> waiting_;  // called, not decoded yet
  std::vector<Fixup> fixups_;
  std::unordered_map<const Function*, std::vector<uint32_t>> starts_;  // by statement
  std::unordered_map<uint64_t, uint32_t> constants_[4];                // by log2 of their bytes
  std::unordered_map<std::string_view, uint32_t> specials_;
  const Function* function_ = nullptr;
  const Statement* statement_ = nullptr;
  Instruction out_;
  uint32_t dynamic_shared_;
};

using Decode = void (*)(Decoder&, Modifiers&);
struct DecodeEntry {
  std::string_view root;
  Decode decode;
};
// The families.
std::vector<DecodeEntry> integer_instructions();
std::vector<DecodeEntry> bit_instructions();
std::vector<DecodeEntry> arithmetic_instructions();
std::vector<DecodeEntry> function_instructions();
std::vector<DecodeEntry> compare_instructions();
std::vector<DecodeEntry> convert_instructions();
std::vector<DecodeEntry> move_instructions();
std::vector<DecodeEntry> memory_instructions();
std::vector<DecodeEntry> atomic_instructions();
std::vector<DecodeEntry> control_instructions();
std::vector<DecodeEntry> warp_instructions();
std::vector<DecodeEntry> matrix_instructions();
std::vector<DecodeEntry> copy_instructions();
std::vector<DecodeEntry> barrier_instructions();
std::vector<DecodeEntry> warpgroup_instructions();
std::vector<DecodeEntry> cluster_instructions();

}  // namespace sprocket::cuda_simulator
