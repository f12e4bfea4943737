#include "launcher/launch/straggler_watch.h"

#include <algorithm>
#include <utility>

#include "runtime/profile/shift.h"

namespace sprocket::launcher {
namespace {

constexpr size_t kSteps = 20;
constexpr double kSeconds = 5;
constexpr double kBegins = 1.2, kEnds = 1.1;
constexpr double kBeginsShare = 2.0 / 3, kEndsShare = 0.5;
constexpr double kWaitedShare = 0.05;
// Steps that some rank never tells: it was too fast for its heartbeats.
constexpr size_t kOpenSteps = 256;

}  // namespace

StragglerWatch::Judged StragglerWatch::judge(const std::vector<Times>& step) {
  const auto longest = std::max_element(
      step.begin(), step.end(), [](const Times& a, const Times& b) { return a.own < b.own; });
  std::vector<double> others;
  for (auto other = step.begin(); other != step.end(); ++other) {
    if (other != longest) others.push_back(other->own);
  }
  const double usual = profile::median(others);
  Judged judged;
  judged.slowest = static_cast<int>(longest - step.begin());
  judged.wall = longest->own + longest->exposed;
  judged.waited = longest->own - usual;
  // Others that do nothing at all are waiting all the time, whatever the ratio.
  judged.ratio = longest->own / std::max(usual, 1e-6);
  return judged;
}

void StragglerWatch::append(const Judged& step) {
  window_.push_back(step);
  window_seconds_ += step.wall;
  while (window_.size() > kSteps && window_seconds_ - window_.front().wall >= kSeconds) {
    window_seconds_ -= window_.front().wall;
    window_.pop_front();
  }
}

void StragglerWatch::take(int rank, const control::Heartbeat& beat) {
  if (ranks_ < 2) return;
  bool complete = false;
  for (const control::StepTime& time : beat.step_time()) {
    if (time.step() <= newest_ || !time.has_exposed_us()) continue;
    std::vector<Times>& step = open_.try_emplace(time.step(), ranks_).first->second;
    const double exposed = 1e-6 * static_cast<double>(time.exposed_us());
    step[rank] = {std::max(0.0, 1e-6 * static_cast<double>(time.wall_us()) - exposed), exposed};
    const bool all =
        std::all_of(step.begin(), step.end(), [](const Times& t) { return t.own >= 0; });
    if (!all) continue;
    append(judge(step));
    newest_ = time.step();
    open_.erase(open_.begin(), open_.upper_bound(newest_));
    complete = true;
  }
  while (open_.size() > kOpenSteps) open_.erase(open_.begin());
  if (complete) conclude();
}

std::optional<Straggler> StragglerWatch::find(int rank, double ratio, double share) const {
  std::vector<double> ratios, waited, walls;
  for (const Judged& step : window_) {
    if (step.slowest != rank || step.ratio < ratio) continue;
    if (step.waited < kWaitedShare * step.wall) continue;
    ratios.push_back(step.ratio);
    waited.push_back(step.waited);
    walls.push_back(step.wall);
  }
  const auto least = share * static_cast<double>(window_.size());
  if (ratios.empty() || static_cast<double>(ratios.size()) < least) return std::nullopt;
  return Straggler{rank, profile::median(ratios), profile::median(waited), profile::median(walls)};
}

void StragglerWatch::conclude() {
  if (now_) {
    const std::optional<Straggler> still = find(now_->rank, kEnds, kEndsShare);
    if (!still) changes_.push_back({false, *now_});
    now_ = still;
  }
  if (now_ || window_.size() < kSteps || window_seconds_ < kSeconds) return;
  std::vector<size_t> times(ranks_);
  for (const Judged& step : window_) ++times[step.slowest];
  const auto most = std::max_element(times.begin(), times.end());
  now_ = find(static_cast<int>(most - times.begin()), kBegins, kBeginsShare);
  if (now_) changes_.push_back({true, *now_});
}

}  // namespace sprocket::launcher
