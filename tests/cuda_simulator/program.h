// A kernel ready to run: its instructions, and how a warp's register file is laid out.
#pragma once

#include <string>
#include <vector>

#include "tests/cuda_simulator/instruction.h"
#include "tests/cuda_simulator/module.h"

namespace sprocket::cuda_simulator {

enum class Special : uint8_t {
  kTidX,
  kTidY,
  kTidZ,
  kNtidX,
  kNtidY,
  kNtidZ,
  kCtaidX,
  kCtaidY,
  kCtaidZ,
  kNctaidX,
  kNctaidY,
  kNctaidZ,
  kLaneId,
  kWarpId,
  kNwarpId,
  kLaneMaskEq,
  kLaneMaskLt,
  kLaneMaskLe,
  kLaneMaskGt,
  kLaneMaskGe,
  kSmId,
  kNsmId,
  kGridId,
  kDynamicSharedBytes,
  kTotalSharedBytes,
  kClusterIdX,
  kClusterIdY,
  kClusterIdZ,
  kNclusterIdX,
  kNclusterIdY,
  kNclusterIdZ,
  kClusterCtaIdX,
  kClusterCtaIdY,
  kClusterCtaIdZ,
  kClusterNctaIdX,
  kClusterNctaIdY,
  kClusterNctaIdZ,
  kClusterCtaRank,
  kClusterNctaRank,
  kIsExplicitCluster,
  kClock,
  kClock64,
  kGlobalTimer,
  kActiveMask
};

struct Program {
  std::string name;
  std::vector<Instruction> code;
  std::vector<uint32_t> list;
  struct Place {
    std::string_view text;
    uint32_t line;
  };
  std::vector<Place> places;  // by Instruction::statement

  uint32_t register_bytes = 0;
  struct Constant {
    uint32_t at;
    unsigned bytes;
    uint64_t value;
  };
  std::vector<Constant> constants;
  struct SpecialRegister {
    uint32_t at;
    unsigned bytes;
    Special special;
  };
  std::vector<SpecialRegister> specials;

  uint32_t parameter_bytes = 0;
  struct Parameter {
    uint32_t offset;
    uint32_t bytes;
  };
  std::vector<Parameter> parameters;
  uint32_t local_bytes = 0;
  uint32_t static_shared_bytes = 0;  // the launch's memory comes after
  uint32_t dynamic_shared_align = 1;
  unsigned max_threads = 0;
  unsigned cluster[3] = {0, 0, 0};
};

// Addresses of a module's variables in global and constant memory.
class SymbolTable {
 public:
  virtual ~SymbolTable() = default;
  virtual uint64_t address(std::string_view name) const = 0;
};

Program make_program(Module& module, std::string_view kernel, const SymbolTable& symbols);

}  // namespace sprocket::cuda_simulator
