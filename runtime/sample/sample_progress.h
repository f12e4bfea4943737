// How far the samples are that replicas of a mesh make side by side.
#pragma once

#include <cstdint>
#include <functional>

#include "configs/job.pb.h"
#include "parallel/mesh.h"

namespace sprocket::runtime {

// After an evaluation of the network.
struct SampleProgress {
  size_t task = 0;      // that it belongs to
  int64_t done = 0;     // evaluations of this replica
  int64_t total = 0;    // that it is to make
  int64_t video = 1;    // of this replica, from 1
  int64_t videos = 1;   // of this replica
  int64_t wall_ns = 0;  // since the one before, or since the first video began
};

// Called on every rank; empty: nobody is told.
using SampleWatch = std::function<void(const SampleProgress&)>;

// Counts for one replica.
class SampleCount {
 public:
  SampleCount(const parallel::Mesh& mesh, const config::Sampling& sampling, size_t tasks,
              SampleWatch watch);
  // From here on the time counts.
  void begin();
  // `evaluations`: of the video of `task`, the last one included.
  void evaluated(size_t task, int evaluations);

 private:
  SampleWatch watch_;
  int steps_;
  int first_task_, replicas_;
  int64_t videos_;
  int64_t last_ns_ = 0;
};

}  // namespace sprocket::runtime
