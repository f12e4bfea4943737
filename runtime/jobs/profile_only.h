// A job that is started for its profile: `sprocket profile`.
#pragma once

#include <cstdint>
#include <string>

namespace sprocket::runtime {

// Instead of a run: one window of steps is made and thrown away but for its records.
struct ProfileOnly {
  int64_t steps = 20, warmup = 5;
  std::string folder;  // of the files
};

}  // namespace sprocket::runtime
