// The linker gives what calls LatentDataset::load_or_substitute the function below, and the real
// one the name that it calls (--wrap, tests/profile/CMakeLists.txt).
#include <chrono>
#include <thread>

#include "runtime/data/latent_dataset.h"
#include "tests/profile/slow_rank.h"

namespace sprocket::testing {
namespace {

std::chrono::nanoseconds data_delay{0};

}  // namespace

data::Sample real_load(data::LatentDataset* data, int64_t index) __asm__(
    "__real__ZN8sprocket4data13LatentDataset18load_or_substituteEl");
data::Sample slow_load(data::LatentDataset* data, int64_t index) __asm__(
    "__wrap__ZN8sprocket4data13LatentDataset18load_or_substituteEl");

data::Sample slow_load(data::LatentDataset* data, int64_t index) {
  std::this_thread::sleep_for(data_delay);
  return real_load(data, index);
}

void delay_data(std::chrono::nanoseconds delay) { data_delay = delay; }

}  // namespace sprocket::testing
