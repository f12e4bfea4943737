// Choice of the instruction set at run time, for kernels written in portable C++.
//
// The library is compiled for baseline x86-64. A kernel is a struct with an always-inlined static
// `run`; run_on_isa compiles it once for each instruction set and calls the best one the processor
// has. No ifunc (target_clones): its resolvers run before a sanitizer's runtime is ready.
//
// Fused multiply-adds exist on some instruction sets only, so results are bitwise reproducible
// between processors of one instruction set, not across them.
#pragma once

#include <string_view>

#define SPROCKET_INLINE [[gnu::always_inline]] inline

namespace sprocket::kernels {

enum class Isa { kBaseline, kAvx2, kAvx512 };  // x86-64, x86-64-v3, x86-64-v4

std::string_view name_of(Isa isa);

// What the processor has.
Isa detected_isa();

// What kernels use: the lower of detected_isa() and the limit.
Isa current_isa();

// Lowers what kernels use, LIBXSMM's included, so that tests reach the fallbacks. Not thread-safe.
void limit_isa(Isa limit);

template <class Kernel, class... Args>
[[gnu::target("arch=x86-64-v4")]] void run_for_avx512(Args... args) {
  Kernel::run(args...);
}

template <class Kernel, class... Args>
[[gnu::target("arch=x86-64-v3")]] void run_for_avx2(Args... args) {
  Kernel::run(args...);
}

// Kernel::run(args...). Arguments are passed by value: pointers, sizes, scalars.
template <class Kernel, class... Args>
void run_on_isa(Args... args) {
  switch (current_isa()) {
    case Isa::kAvx512:
      run_for_avx512<Kernel, Args...>(args...);
      break;
    case Isa::kAvx2:
      run_for_avx2<Kernel, Args...>(args...);
      break;
    case Isa::kBaseline:
      Kernel::run(args...);
      break;
  }
}

}  // namespace sprocket::kernels
