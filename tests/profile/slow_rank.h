// A rank that is slowed on purpose, from outside of the program: more compute, a slow link, a slow
// disk. What the report must find out (causes_mpi_test.cc).
#pragma once

#include <chrono>
#include <functional>
#include <memory>

#include "base/timeline.h"
#include "parallel/comm/backend.h"

namespace sprocket::testing {

struct Slowness {
  // Called before this rank begins an operation of any group; may be empty.
  std::function<void()> before_operation;
  // For so long what this rank sends and receives stays away; the rank itself goes on.
  std::chrono::nanoseconds link_delay{0};
};

// A decorator. Groups split from it are slow too.
std::unique_ptr<comm::Backend> make_slow_backend(std::unique_ptr<comm::Backend> inner,
                                                 Slowness slowness);

// Takes `length` of the calling thread's processor time, in a compute scope of that name.
void compute_for(Timeline& timeline, const char* name, std::chrono::nanoseconds length);

// Every sample that this process loads takes so much longer from now on. The program must be linked
// with slow_data.cc in the place of the data set's loading (tests/profile/CMakeLists.txt).
void delay_data(std::chrono::nanoseconds delay);

}  // namespace sprocket::testing
