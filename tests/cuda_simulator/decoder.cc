#include "tests/cuda_simulator/decoder.h"

#include <algorithm>
#include <cstring>
#include <unordered_set>

#include "tests/cuda_simulator/memory.h"

namespace sprocket::cuda_simulator {
namespace {

const std::unordered_map<std::string_view, Decode>& decode_table() {
  static const auto table = [] {
    std::unordered_map<std::string_view, Decode> result;
    for (const auto& family :
         {integer_instructions(), bit_instructions(), arithmetic_instructions(),
          function_instructions(), compare_instructions(), convert_instructions(),
          move_instructions(), memory_instructions(), atomic_instructions(), control_instructions(),
          warp_instructions(), matrix_instructions(), copy_instructions(), barrier_instructions(),
          warpgroup_instructions(), cluster_instructions()}) {
      for (const DecodeEntry& entry : family) result.emplace(entry.root, entry.decode);
    }
    return result;
  }();
  return table;
}

uint32_t align_up(uint32_t value, uint32_t align) { return (value + align - 1) / align * align; }

Step fall_through(Warp&, const Instruction& in, Lanes) {
  (void)in;
  throw DeviceError(Fault::kTrap, "execution runs past the end of a function");
}

}  // namespace

Decoder::Decoder(Module& module, const SymbolTable& symbols, uint32_t dynamic_shared,
                 Program& program)
    : module_(module), symbols_(symbols), program_(program), dynamic_shared_(dynamic_shared) {
  program_.register_bytes = 64;  // the predicate that is always true
}

uint32_t Decoder::new_place(unsigned bytes) {
  const uint32_t at = program_.register_bytes;
  program_.register_bytes += std::max(bytes * kWarpSize, 64u);
  return at;
}

void Decoder::run(std::string_view kernel) {
  const Function& entry = module_.function(kernel);
  program_.name = kernel;
  program_.max_threads = entry.max_threads;
  std::copy(entry.cluster, entry.cluster + 3, program_.cluster);
  for (const Variable& p : entry.parameters) {
    const uint32_t offset = align_up(program_.parameter_bytes, p.align);
    const auto bytes = static_cast<uint32_t>(p.bytes);
    frame(entry).parameters[p.name] = offset;
    program_.parameters.push_back({offset, bytes});
    program_.parameter_bytes = offset + bytes;
  }
  waiting_.push_back(&entry);
  while (!waiting_.empty()) {
    const Function* next = waiting_.back();
    waiting_.pop_back();
    if (frame(*next).first == kNowhere) decode(*next);
  }
  for (const Fixup& f : fixups_) {
    const uint32_t target = starts_.at(f.function).at(f.statement);
    if (f.instruction != kNowhere) program_.code[f.instruction].immediate = target;
    if (f.list != kNowhere) program_.list[f.list] = target;
  }
}

Decoder::Frame& Decoder::frame(const Function& function) {
  const auto [found, is_new] = frames_.try_emplace(&function);
  Frame& result = found->second;
  if (!is_new) return result;
  for (const Register& r : function.registers) {
    result.registers.push_back(new_place(type_bytes(r.type)));
  }
  for (const auto* list : {&function.variables, &function.parameters, &function.results}) {
    for (const Variable& v : *list) {
      if (v.space != Space::kLocal) continue;
      program_.local_bytes = align_up(program_.local_bytes, std::max(v.align, 1u));
      result.locals[v.name] = program_.local_bytes;
      program_.local_bytes += static_cast<uint32_t>(v.bytes);
    }
  }
  program_.local_bytes = align_up(program_.local_bytes, 16);
  result.return_register = new_place(4);
  return result;
}

void Decoder::decode(const Function& function) {
  const Function* outer_function = function_;
  function_ = &function;
  frame(function).first = static_cast<uint32_t>(program_.code.size());
  std::vector<uint32_t>& starts = starts_[&function];
  for (const Statement& s : function.statements) {
    starts.push_back(static_cast<uint32_t>(program_.code.size()));
    statement_ = &s;
    decode_statement();
  }
  starts.push_back(static_cast<uint32_t>(program_.code.size()));
  out_ = {};
  out_.handler = fall_through;
  out_.statement = static_cast<uint32_t>(program_.places.size());
  program_.places.push_back({"the end of the function", statement_ ? statement_->line : 0});
  program_.code.push_back(out_);
  function_ = outer_function;
}

void Decoder::decode_statement() {
  const Statement& s = *statement_;
  out_ = {};
  out_.at.fill(kNowhere);
  out_.statement = static_cast<uint32_t>(program_.places.size());
  program_.places.push_back({s.text, s.line});
  out_.guard = true_predicate();
  if (s.guard >= 0) out_.guard = frame(*function_).registers[s.guard];
  if (s.guard_negated) out_.guard_flip = kAllLanes;
  try {
    Modifiers modifiers(s.opcode);
    const auto found = decode_table().find(modifiers.root());
    if (found == decode_table().end()) modifiers.fail();
    found->second(*this, modifiers);
    modifiers.finish();
  } catch (const DeviceError& error) {
    throw DeviceError(error.fault(), fmt::format("{}\n  {}, PTX line {}: {}", error.what(),
                                                 function_->name, s.line, s.text));
  }
  if (out_.handler != nullptr) program_.code.push_back(out_);
}

const Operand& Decoder::operand(size_t i) const {
  if (i >= statement_->operands.size()) {
    unsupported("expected more than {} operands", statement_->operands.size());
  }
  return statement_->operands[i];
}

uint32_t Decoder::constant(uint64_t value, unsigned bytes) {
  if (bytes < 8) value &= (uint64_t{1} << (8 * bytes)) - 1;
  auto& known = constants_[__builtin_ctz(bytes)];
  const auto [found, is_new] = known.try_emplace(value, 0);
  if (is_new) {
    found->second = new_place(bytes);
    program_.constants.push_back({found->second, bytes, value});
  }
  return found->second;
}

uint32_t Decoder::source(const Operand& operand, Type type) {
  const unsigned bytes = type_bytes(type);
  switch (operand.kind) {
    case Operand::Kind::kRegister: {
      const Register& r = function_->registers[operand.register_index];
      if (type_bytes(r.type) != bytes) {
        unsupported("expected a register of {} bytes, found {}", bytes, operand.name);
      }
      return frame(*function_).registers[operand.register_index];
    }
    case Operand::Kind::kSpecial:
      return special(operand.name, bytes);
    case Operand::Kind::kVariable:
      return constant(variable_address(operand.name) + operand.offset, bytes);
    case Operand::Kind::kImmediate: {
      uint64_t bits = operand.bits;
      if (operand.float_bytes == 8 && type == Type::kF32) {
        bits = __builtin_bit_cast(uint32_t, static_cast<float>(__builtin_bit_cast(double, bits)));
      } else if (operand.float_bytes == 4 && type == Type::kF64) {
        bits = __builtin_bit_cast(uint64_t,
                                  double{__builtin_bit_cast(float, static_cast<uint32_t>(bits))});
      } else if (operand.float_bytes != 0 && operand.float_bytes != bytes) {
        unsupported("an immediate float of {} bytes where {} are expected", operand.float_bytes,
                    bytes);
      } else if (operand.float_bytes == 0 && (type == Type::kF32 || type == Type::kF64) &&
                 bits != 0) {
        unsupported("an integer immediate where a float is expected");
      }
      return constant(bits, bytes);
    }
    case Operand::Kind::kLabel:
    case Operand::Kind::kVector:
    case Operand::Kind::kAddress:
    case Operand::Kind::kSink:
      break;
  }
  unsupported("expected a register or an immediate");
}

uint32_t Decoder::destination(const Operand& operand, Type type) {
  if (operand.kind == Operand::Kind::kSink || operand.first_is_sink)
    return new_place(type_bytes(type));
  if (operand.kind != Operand::Kind::kRegister) unsupported("expected a register to write");
  const Register& r = function_->registers[operand.register_index];
  if (type_bytes(r.type) != type_bytes(type)) {
    unsupported("expected a register of {} bytes to write, found {}", type_bytes(type),
                operand.name);
  }
  return frame(*function_).registers[operand.register_index];
}

uint32_t Decoder::any_register(const Operand& operand, unsigned& bytes) {
  if (operand.kind != Operand::Kind::kRegister) unsupported("expected a register");
  bytes = type_bytes(function_->registers[operand.register_index].type);
  return frame(*function_).registers[operand.register_index];
}

uint32_t Decoder::predicate(const Operand& operand, Lanes& flip) {
  flip = operand.negated ? kAllLanes : 0;
  if (operand.kind == Operand::Kind::kImmediate) {
    if (operand.bits == 0) flip = ~flip;
    return true_predicate();
  }
  return source(operand, Type::kPredicate);
}

uint32_t Decoder::paired_predicate(const Operand& operand) {
  return operand.paired < 0 ? kNowhere : frame(*function_).registers[operand.paired];
}

uint32_t Decoder::shared_offset(const Variable& variable,
                                std::unordered_map<std::string_view, uint32_t>& in) {
  const auto [found, is_new] = in.try_emplace(variable.name, 0);
  if (!is_new) return found->second;
  if (variable.bytes == 0) {
    unsupported("{} has no size and is no extern .shared variable", variable.name);
  }
  program_.static_shared_bytes =
      align_up(program_.static_shared_bytes, std::max(variable.align, 1u));
  found->second = program_.static_shared_bytes;
  program_.static_shared_bytes += static_cast<uint32_t>(variable.bytes);
  return found->second;
}

Space Decoder::variable_space(std::string_view name) {
  if (const Variable* v = function_->find_variable(name)) return v->space;
  for (const Variable& v : module_.variables()) {
    if (v.name == name) return v.space;
  }
  unsupported("nothing is called {}", name);
}

int64_t Decoder::variable_address(std::string_view name) {
  if (const Variable* v = function_->find_variable(name)) {
    Frame& f = frame(*function_);
    if (v->space == Space::kShared) return shared_offset(*v, f.shared);
    if (v->space == Space::kParam) return f.parameters.at(name);
    return f.locals.at(name);
  }
  for (const Variable& v : module_.variables()) {
    if (v.name != name) continue;
    if (v.space != Space::kShared) return static_cast<int64_t>(symbols_.address(name));
    if (v.is_extern) {
      program_.dynamic_shared_align = std::max(program_.dynamic_shared_align, v.align);
      return dynamic_shared_;
    }
    return shared_offset(v, module_shared_);
  }
  unsupported("nothing is called {}", name);
}

uint32_t Decoder::local_address(const Function& function, std::string_view variable) {
  return frame(function).locals.at(variable);
}

uint32_t Decoder::address(const Operand& operand, unsigned& bytes) {
  if (operand.kind != Operand::Kind::kAddress) unsupported("expected an address");
  out_.immediate = operand.offset;
  bytes = 8;
  if (operand.items.empty()) return constant(0, 8);
  const Operand& base = operand.items.front();
  if (base.kind == Operand::Kind::kVariable) {
    out_.immediate += variable_address(base.name);
    return constant(0, 8);
  }
  return any_register(base, bytes);
}

void Decoder::branch_to(std::string_view label, int scope) {
  fixups_.push_back({static_cast<uint32_t>(program_.code.size()), kNowhere, function_,
                     function_->label(label, scope)});
}

void Decoder::branch_table(std::string_view label, int scope) {
  for (int s = scope; s >= 0; s = function_->scopes[s].parent) {
    const auto found = function_->scopes[s].targets.find(label);
    if (found == function_->scopes[s].targets.end()) continue;
    for (std::string_view target : found->second) {
      fixups_.push_back({kNowhere, static_cast<uint32_t>(program_.list.size()), function_,
                         function_->label(target, s)});
      program_.list.push_back(0);
    }
    return;
  }
  unsupported("no table of targets {}", label);
}

const Function& Decoder::callee(std::string_view name) {
  const Function& result = module_.function(name);
  if (&result == function_) unsupported("{} calls itself", name);
  waiting_.push_back(&result);
  fixups_.push_back({static_cast<uint32_t>(program_.code.size()), kNowhere, &result, 0});
  return result;
}

uint32_t Decoder::return_register() { return frame(*function_).return_register; }
uint32_t Decoder::return_register(const Function& function) {
  return frame(function).return_register;
}

uint32_t Decoder::special(std::string_view name, unsigned bytes) {
  struct Named {
    std::string_view name;
    Special special;
  };
  static const std::unordered_map<std::string_view, Special> names = {
      {"%tid.x", Special::kTidX},
      {"%tid.y", Special::kTidY},
      {"%tid.z", Special::kTidZ},
      {"%ntid.x", Special::kNtidX},
      {"%ntid.y", Special::kNtidY},
      {"%ntid.z", Special::kNtidZ},
      {"%ctaid.x", Special::kCtaidX},
      {"%ctaid.y", Special::kCtaidY},
      {"%ctaid.z", Special::kCtaidZ},
      {"%nctaid.x", Special::kNctaidX},
      {"%nctaid.y", Special::kNctaidY},
      {"%nctaid.z", Special::kNctaidZ},
      {"%laneid", Special::kLaneId},
      {"%warpid", Special::kWarpId},
      {"%nwarpid", Special::kNwarpId},
      {"%lanemask_eq", Special::kLaneMaskEq},
      {"%lanemask_lt", Special::kLaneMaskLt},
      {"%lanemask_le", Special::kLaneMaskLe},
      {"%lanemask_gt", Special::kLaneMaskGt},
      {"%lanemask_ge", Special::kLaneMaskGe},
      {"%smid", Special::kSmId},
      {"%nsmid", Special::kNsmId},
      {"%gridid", Special::kGridId},
      {"%dynamic_smem_size", Special::kDynamicSharedBytes},
      {"%total_smem_size", Special::kTotalSharedBytes},
      {"%clusterid.x", Special::kClusterIdX},
      {"%clusterid.y", Special::kClusterIdY},
      {"%clusterid.z", Special::kClusterIdZ},
      {"%nclusterid.x", Special::kNclusterIdX},
      {"%nclusterid.y", Special::kNclusterIdY},
      {"%nclusterid.z", Special::kNclusterIdZ},
      {"%cluster_ctaid.x", Special::kClusterCtaIdX},
      {"%cluster_ctaid.y", Special::kClusterCtaIdY},
      {"%cluster_ctaid.z", Special::kClusterCtaIdZ},
      {"%cluster_nctaid.x", Special::kClusterNctaIdX},
      {"%cluster_nctaid.y", Special::kClusterNctaIdY},
      {"%cluster_nctaid.z", Special::kClusterNctaIdZ},
      {"%cluster_ctarank", Special::kClusterCtaRank},
      {"%cluster_nctarank", Special::kClusterNctaRank},
      {"%is_explicit_cluster", Special::kIsExplicitCluster}};
  if (name == "WARP_SZ") return constant(kWarpSize, bytes);
  const auto known = names.find(name);
  if (known == names.end())
    unsupported("the simulator does not know the special register {}", name);
  for (const Program::SpecialRegister& s : program_.specials) {
    if (s.special == known->second && s.bytes == bytes) return s.at;
  }
  const uint32_t at = new_place(std::max(bytes, 4u));
  program_.specials.push_back({at, bytes, known->second});
  return at;
}

// Where the launch's shared memory begins is known when all static variables were met.
Program make_program(Module& module, std::string_view kernel, const SymbolTable& symbols) {
  Program first;
  Decoder(module, symbols, 0, first).run(kernel);
  const uint32_t dynamic =
      align_up(first.static_shared_bytes, std::max(first.dynamic_shared_align, 16u));
  if (dynamic == 0) return first;
  Program result;
  Decoder(module, symbols, dynamic, result).run(kernel);
  return result;
}

}  // namespace sprocket::cuda_simulator
