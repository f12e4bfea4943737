// What the processor's multiply-add units can do: the yardstick of every rate.
#pragma once

namespace sprocket::bench {

struct MachinePeaks {
  double fp32_gflops = 0;
  double bf16_gflops = 0;  // 0 without AVX512-BF16
};

// Best of several short runs by `threads` threads together.
MachinePeaks measure_peaks(int threads);

}  // namespace sprocket::bench
