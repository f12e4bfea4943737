#include "kernels/isa.h"

#include <libxsmm.h>

#include <algorithm>

namespace sprocket::kernels {
namespace {

Isa detect() {
  __builtin_cpu_init();
  if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") ||
      !__builtin_cpu_supports("bmi2")) {
    return Isa::kBaseline;
  }
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
    return Isa::kAvx512;
  }
  return Isa::kAvx2;
}

Isa& chosen_isa() {
  static Isa isa = detected_isa();
  return isa;
}

}  // namespace

std::string_view name_of(Isa isa) {
  switch (isa) {
    case Isa::kBaseline:
      return "x86-64";
    case Isa::kAvx2:
      return "AVX2";
    case Isa::kAvx512:
      return "AVX-512";
  }
  return "?";
}

Isa detected_isa() {
  static const Isa isa = detect();
  return isa;
}

Isa current_isa() { return chosen_isa(); }

void limit_isa(Isa limit) {
  libxsmm_init();  // later it would undo the choice
  chosen_isa() = std::min(limit, detected_isa());
  switch (limit) {
    case Isa::kBaseline:
      libxsmm_set_target_archid(LIBXSMM_X86_SSE3);
      break;
    case Isa::kAvx2:
      libxsmm_set_target_archid(LIBXSMM_X86_AVX2);
      break;
    case Isa::kAvx512:
      libxsmm_set_target_archid(libxsmm_cpuid());
      break;
  }
}

}  // namespace sprocket::kernels
