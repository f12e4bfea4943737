// GFLOP/s of the linear layer's three products on one thread, as JSON lines.
//
// The clock is the thread's own processor time and the best of several runs counts, so that other
// work on the machine disturbs the figures little.
#include <fmt/format.h>
#include <time.h>

#include <algorithm>
#include <cstdio>
#include <limits>
#include <vector>

#include "base/philox.h"
#include "kernels/gemm.h"
#include "kernels/isa.h"

namespace {

double thread_seconds() {
  timespec now;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

template <class Call>
double best_seconds(Call call) {
  double best = std::numeric_limits<double>::infinity();
  for (int i = 0; i < 5; ++i) {
    const double start = thread_seconds();
    call();
    best = std::min(best, thread_seconds() - start);
  }
  return best;
}

std::vector<float> normal_values(int64_t count, uint64_t sample) {
  std::vector<float> values(count);
  sprocket::RandomStream(1, 0, sample, sprocket::RandomPurpose::kTest).normal(values);
  return values;
}

struct Shape {
  int64_t m, n, k;
};

}  // namespace

int main() {
  using namespace sprocket::kernels;
  for (const auto& [m, n, k] : std::vector<Shape>{{8192, 384, 384},
                                                  {8192, 1536, 384},
                                                  {8192, 384, 1536},
                                                  {8192, 1536, 1536},
                                                  {2048, 384, 384},
                                                  {512, 384, 384},
                                                  {8192, 64, 384},
                                                  {4, 2304, 384}}) {
    const auto x = normal_values(m * k, 1), w = normal_values(n * k, 2),
               dy = normal_values(m * n, 3);
    std::vector<float> bias(n), y(m * n), dx(m * k), dw(n * k), db(n);
    const double flops = 2.0 * m * n * k;
    const double forward = best_seconds(
        [&] { linear_forward(x.data(), w.data(), bias.data(), y.data(), m, n, k, 1); });
    const double input =
        best_seconds([&] { linear_backward_input(dy.data(), w.data(), dx.data(), m, n, k, 1); });
    const double weight = best_seconds([&] {
      linear_backward_weight(dy.data(), x.data(), dw.data(), db.data(), m, n, k, true, 1);
    });
    fmt::print(
        "{{\"bench\": \"gemm\", \"isa\": \"{}\", \"m\": {}, \"n\": {}, \"k\": {}, "
        "\"forward_gflops\": {:.1f}, \"backward_input_gflops\": {:.1f}, "
        "\"backward_weight_gflops\": {:.1f}}}\n",
        name_of(current_isa()), m, n, k, flops / forward * 1e-9, flops / input * 1e-9,
        flops / weight * 1e-9);
    std::fflush(stdout);
  }
}
