#include "runtime/metrics/progress.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "base/log.h"
#include "runtime/profile/quantity.h"

namespace sprocket::runtime {
namespace {

constexpr double kMeanWeight = 0.1;

}  // namespace

Progress::Progress(bool live, int64_t steps, int64_t interval)
    : live_(live), steps_(steps), interval_(std::max<int64_t>(interval, 1)) {}

Progress::~Progress() {
  if (drawn_) std::fputs("\n", stderr);
}

void Progress::step(int64_t done, const StepOutcome& o) {
  const double seconds = 1e-9 * static_cast<double>(o.times.wall_ns);
  const double exposed = 100.0 * static_cast<double>(o.times.exposed_ns) /
                         static_cast<double>(std::max<int64_t>(o.times.wall_ns, 1));
  show(done, seconds,
       fmt::format("loss {:.4f}  {:.3f} s/step  {:.0f} tokens/s  exposed communication {:.1f} %{}",
                   o.loss, seconds, static_cast<double>(o.tokens) / seconds, exposed,
                   o.skipped ? "  skipped: gradient not finite" : ""));
}

void Progress::step(int64_t done, const std::string& what, double seconds) {
  show(done, seconds, fmt::format("{}  {:.3f} s/step", what, seconds));
}

void Progress::show(int64_t done, double seconds, const std::string& text) {
  mean_seconds_ =
      mean_seconds_ == 0 ? seconds : (1 - kMeanWeight) * mean_seconds_ + kMeanWeight * seconds;
  const std::string eta =
      profile::duration_text(static_cast<double>(steps_ - done) * mean_seconds_);
  if (live_) {
    // Return, the line, erase to its end.
    fmt::print(stderr, "\rstep {}/{}  {}  ETA {}\033[K", done, steps_, text, eta);
    std::fflush(stderr);
    drawn_ = true;
  } else if (done % interval_ == 0 || done == steps_) {
    spdlog::info("step {}/{}  {}  ETA {}", done, steps_, text, eta);
  }
}

void Progress::pause() {
  if (!drawn_) return;
  std::fputs("\r\033[K", stderr);
  std::fflush(stderr);
  drawn_ = false;
}

}  // namespace sprocket::runtime
