#include "bench/machine_peaks.h"

#include <immintrin.h>
#include <omp.h>

#include <algorithm>
#include <chrono>

#include "kernels/isa.h"

namespace sprocket::bench {
namespace {

constexpr int kChains = 20;  // independent sums: latency times units, with room to spare
constexpr int kSteps = 400000;

// Multiply-adds of registers only.
__attribute__((target("avx512f"))) float fp32_avx512() {
  __m512 sums[kChains];
  for (__m512& sum : sums) sum = _mm512_set1_ps(1);
  const __m512 a = _mm512_set1_ps(1.0000001f), b = _mm512_set1_ps(1e-9f);
  for (int step = 0; step < kSteps; ++step) {
#pragma GCC unroll 20
    for (__m512& sum : sums) sum = _mm512_fmadd_ps(sum, a, b);
  }
  float total = 0;
  for (const __m512& sum : sums) total += _mm512_cvtss_f32(sum);
  return total;
}

__attribute__((target("avx2,fma"))) float fp32_avx2() {
  __m256 sums[kChains / 2];
  for (__m256& sum : sums) sum = _mm256_set1_ps(1);
  const __m256 a = _mm256_set1_ps(1.0000001f), b = _mm256_set1_ps(1e-9f);
  for (int step = 0; step < kSteps; ++step) {
#pragma GCC unroll 10
    for (__m256& sum : sums) sum = _mm256_fmadd_ps(sum, a, b);
  }
  float total = 0;
  for (const __m256& sum : sums) total += _mm256_cvtss_f32(sum);
  return total;
}

__attribute__((target("avx512f,avx512bf16"))) float bf16_avx512() {
  __m512 sums[kChains];
  for (__m512& sum : sums) sum = _mm512_setzero_ps();
  const __m512bh a = (__m512bh)_mm512_set1_epi32(0x3f803f80);
  for (int step = 0; step < kSteps; ++step) {
#pragma GCC unroll 20
    for (__m512& sum : sums) sum = _mm512_dpbf16_ps(sum, a, a);
  }
  float total = 0;
  for (const __m512& sum : sums) total += _mm512_cvtss_f32(sum);
  return total;
}

// GFLOP/s of all threads; `flop` is one thread's work in a run.
template <class Run>
double best_rate(int threads, double flop, Run run) {
  double best = 0;
  for (int repetition = 0; repetition < 10; ++repetition) {
    float sink = 0;
    std::chrono::steady_clock::time_point start;
#pragma omp parallel num_threads(threads) reduction(+ : sink)
    {
#pragma omp barrier
#pragma omp master
      start = std::chrono::steady_clock::now();
      sink += run();
    }
    const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - start;
    // The sums must be made.
    if (sink == 0.5f) return 0;
    best = std::max(best, 1e-9 * flop * threads / elapsed.count());
  }
  return best;
}

}  // namespace

MachinePeaks measure_peaks(int threads) {
  const double fma_512 = 2.0 * 16 * kChains * kSteps, fma_256 = 2.0 * 8 * kChains / 2 * kSteps;
  MachinePeaks peaks;
  switch (kernels::detected_isa()) {
    case kernels::Isa::kBaseline:
      break;
    case kernels::Isa::kAvx2:
      peaks.fp32_gflops = best_rate(threads, fma_256, fp32_avx2);
      break;
    case kernels::Isa::kAvx512:
      peaks.fp32_gflops = best_rate(threads, fma_512, fp32_avx512);
      if (__builtin_cpu_supports("avx512bf16")) {
        peaks.bf16_gflops = best_rate(threads, 2 * fma_512, bf16_avx512);
      }
      break;
  }
  return peaks;
}

}  // namespace sprocket::bench
