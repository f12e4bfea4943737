#include "runtime/sample/sample_progress.h"

#include <utility>

#include "base/timeline.h"
#include "runtime/sample/noise_schedule.h"

namespace sprocket::runtime {

SampleCount::SampleCount(const parallel::Mesh& mesh, const config::Sampling& sampling, size_t tasks,
                         SampleWatch watch)
    : watch_(std::move(watch)),
      steps_(sampling_steps(sampling)),
      first_task_(mesh.coordinate().data),
      replicas_(mesh.shape().data),
      videos_((static_cast<int64_t>(tasks) - first_task_ + replicas_ - 1) / replicas_) {
  begin();
}

void SampleCount::begin() { last_ns_ = monotonic_ns(); }

void SampleCount::evaluated(size_t task, int evaluations) {
  if (!watch_) return;
  const int64_t now = monotonic_ns();
  const int64_t before = (static_cast<int64_t>(task) - first_task_) / replicas_;
  watch_(
      {task, before * steps_ + evaluations, videos_ * steps_, before + 1, videos_, now - last_ns_});
  last_ns_ = now;
}

}  // namespace sprocket::runtime
