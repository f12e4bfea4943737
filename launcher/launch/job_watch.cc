#include "launcher/launch/job_watch.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include <fmt/format.h>

#include "launcher/launch/operation_words.h"
#include "runtime/profile/quantity.h"

namespace sprocket::launcher {
namespace {

using control::Heartbeat;
using control::Operation;
using control::Section;

// More than a supervisor that is awake needs for a round.
constexpr double kLongestTick = 2;
// Heartbeats come every half second; a machine under load delays them.
constexpr double kSilence = 4;
// More than heartbeats need to tell of progress.
constexpr double kStall = 1.5;
// From the first rank's report to those of all.
constexpr double kForReporting = 60;
// Ranks that a sentence names.
constexpr size_t kNamed = 8;

bool same_progress(const Heartbeat& a, const Heartbeat& b) {
  if (a.section() != b.section() || a.step() != b.step() ||
      a.checkpoint_step() != b.checkpoint_step() || a.operation_size() != b.operation_size()) {
    return false;
  }
  for (int i = 0; i < a.operation_size(); ++i) {
    if (a.operation(i).sequence() != b.operation(i).sequence() ||
        a.operation(i).unfinished() != b.operation(i).unfinished()) {
      return false;
    }
  }
  return true;
}

}  // namespace

Section section_of(const Heartbeat& beat) {
  return static_cast<Section>(std::clamp(beat.section(), 0, control::kSections - 1));
}

JobWatch::JobWatch(int ranks, const SectionLimits& limits)
    : ranks_(ranks), limits_(limits), stragglers_(ranks) {}

void JobWatch::tick(double seconds) { now_ += std::min(seconds, kLongestTick); }

void JobWatch::take(const control::Report& report) {
  if (report.rank < 0) return;
  RankView& rank = ranks_.at(report.rank);
  switch (report.kind) {
    case control::Report::Kind::kJoined:
      if (rank.joined) note_return(report.rank);
      if (!any_joined()) first_joined_at_ = now_;
      rank.joined = rank.connected = true;
      rank.host = report.message.hello().host();
      rank.process = report.message.hello().process();
      rank.progress_at = rank.heard_at = now_;
      rank.lost = false;
      std::erase(lost_order_, report.rank);
      return;
    case control::Report::Kind::kLost:
      rank.connected = false;
      if (rank.finished) return;
      rank.lost = true;
      lost_order_.push_back(report.rank);
      return;
    case control::Report::Kind::kRefused:
      return;
    case control::Report::Kind::kMessage:
      break;
  }
  note_return(report.rank);
  rank.heard_at = now_;
  if (report.message.has_heartbeat()) {
    if (!same_progress(rank.beat, report.message.heartbeat())) note_progress(rank);
    rank.beat = report.message.heartbeat();
    stragglers_.take(report.rank, rank.beat);
  } else if (report.message.has_error()) {
    rank.finished = true;
    rank.error = report.message.error();
    error_order_.push_back(report.rank);
  } else if (report.message.has_finished()) {
    rank.finished = true;
    rank.progress_at = now_;
  } else if (report.message.has_dump()) {
    rank.dump = report.message.dump();
  }
}

void JobWatch::note_return(int rank) {
  const double silent = now_ - ranks_[rank].heard_at;
  if (silent > kSilence) returns_.push_back({rank, silent, std::min(silent, waited_lately())});
}

void JobWatch::note_progress(RankView& rank) {
  const double gap = now_ - last_progress();
  if (gap > kStall) {
    stall_ = gap;
    stall_end_ = now_;
  }
  rank.progress_at = now_;
}

// Those that waited for a rank may be heard before it is.
double JobWatch::waited_lately() const {
  if (ranks_.size() == 1) return 0;
  const double now = now_ - last_progress();
  if (now > kStall) return now;
  return now_ - stall_end_ < kStall ? stall_ : 0;
}

bool JobWatch::any_joined() const {
  return std::any_of(ranks_.begin(), ranks_.end(), [](const RankView& r) { return r.joined; });
}

std::vector<int> JobWatch::never_joined() const {
  std::vector<int> found;
  for (size_t i = 0; i < ranks_.size(); ++i) {
    if (!ranks_[i].joined) found.push_back(static_cast<int>(i));
  }
  return found;
}

int64_t JobWatch::newest_step() const {
  int64_t step = -1;
  for (const RankView& rank : ranks_) {
    if (rank.beat.has_step()) step = std::max(step, rank.beat.step());
  }
  return step;
}

int64_t JobWatch::newest_checkpoint() const {
  int64_t step = -1;
  for (const RankView& rank : ranks_) {
    if (rank.beat.has_checkpoint_step()) step = std::max(step, rank.beat.checkpoint_step());
  }
  return step;
}

std::optional<int> JobWatch::first_lost() const {
  if (lost_order_.empty()) return std::nullopt;
  return lost_order_.front();
}

std::optional<int> JobWatch::first_error() const {
  for (const int rank : error_order_) {
    if (!ranks_[rank].error->of_a_peer()) return rank;
  }
  if (error_order_.empty()) return std::nullopt;
  return error_order_.front();
}

double JobWatch::limit() const {
  double longest = 0;
  for (const RankView& rank : ranks_) {
    longest = std::max(longest, limits_[section_of(rank.beat)]);
  }
  return longest;
}

double JobWatch::last_progress() const {
  double last = 0;
  for (const RankView& rank : ranks_) last = std::max(last, rank.progress_at);
  return last;
}

bool JobWatch::is_hung() const {
  const bool anyone = std::any_of(ranks_.begin(), ranks_.end(),
                                  [](const RankView& rank) { return rank.connected; });
  const double idle = now_ - last_progress();
  if (idle > limit()) return anyone || !any_joined();
  // With nobody heard at all the supervisor's own network may be what is gone.
  const bool anyone_heard = std::any_of(ranks_.begin(), ranks_.end(), [this](const RankView& rank) {
    return rank.connected && !is_silent(rank);
  });
  return idle > limits_.silence && anyone_heard && !silent_hosts().empty();
}

bool JobWatch::is_silent(const RankView& rank) const {
  return rank.connected && !rank.finished && now_ - rank.heard_at > kSilence;
}

std::vector<std::string> JobWatch::silent_hosts() const {
  std::map<std::string, bool> heard, silent;
  for (const RankView& rank : ranks_) {
    if (!rank.joined) continue;
    heard[rank.host] |= !rank.lost && !is_silent(rank);
    silent[rank.host] |= is_silent(rank);
  }
  std::vector<std::string> hosts;
  for (const auto& [host, is_one] : silent) {
    if (is_one && !heard[host]) hosts.push_back(host);
  }
  return hosts;
}

std::vector<int> JobWatch::missing_ranks() const {
  std::vector<int> missing;
  if (first_joined_at_ < 0 || now_ - first_joined_at_ < kForReporting) return missing;
  for (size_t i = 0; i < ranks_.size(); ++i) {
    if (!ranks_[i].joined) missing.push_back(static_cast<int>(i));
  }
  return missing;
}

std::vector<std::string> JobWatch::suspected_hosts() const {
  std::set<std::string> hosts;
  for (const int rank : suspects()) {
    if (ranks_[rank].joined) hosts.insert(ranks_[rank].host);
  }
  return {hosts.begin(), hosts.end()};
}

std::vector<int> JobWatch::silent_ranks() const {
  std::vector<int> silent;
  for (size_t i = 0; i < ranks_.size(); ++i) {
    const RankView& rank = ranks_[i];
    if (!rank.joined || rank.lost || is_silent(rank)) {
      silent.push_back(static_cast<int>(i));
    }
  }
  return silent;
}

// Those that nobody hears; else those that wait in no operation while others do; else those that
// have not reached the newest operation of a group.
std::vector<int> JobWatch::suspects() const {
  std::vector<int> found = silent_ranks();
  if (!found.empty()) return found;
  for (size_t i = 0; i < ranks_.size(); ++i) {
    const Operation* operation = newest(ranks_[i].beat);
    if (!ranks_[i].finished && (!operation || !operation->unfinished())) {
      found.push_back(static_cast<int>(i));
    }
  }
  if (!found.empty()) return found;
  return ranks_behind(beats());
}

std::vector<const Heartbeat*> JobWatch::beats() const {
  std::vector<const Heartbeat*> all;
  for (const RankView& rank : ranks_) all.push_back(&rank.beat);
  return all;
}

std::string JobWatch::name_of(int rank) const {
  const RankView& view = ranks_.at(rank);
  if (!view.joined) return fmt::format("rank {}", rank);
  return fmt::format("rank {} ({}, process {})", rank, view.host, view.process);
}

std::string JobWatch::sentence(const Straggler& straggler) const {
  return fmt::format(
      "{}: its own part of a step takes {:.2f} times the median of the others; the others waited "
      "{} of each {} for it",
      name_of(straggler.rank), straggler.ratio, profile::seconds_text(straggler.waited),
      profile::seconds_text(straggler.step_seconds));
}

std::string JobWatch::sentence(const Return& back) const {
  std::string text =
      fmt::format("{} is heard again after {:.1f} s of silence", name_of(back.rank), back.silent);
  if (back.waited > 0) {
    text += fmt::format(": a straggler, the others waited {:.1f} s for it", back.waited);
  }
  return text;
}

std::string JobWatch::hang_sentence() const {
  const std::vector<int> blamed = suspects();
  const double idle = now_ - last_progress();
  const std::string others = what_others_wait_in(beats(), blamed);
  if (blamed.empty()) {
    return fmt::format("no rank has made progress for {:.1f} s: all are in the same operations{}",
                       idle, others);
  }
  std::string names;
  for (size_t i = 0; i < blamed.size() && i < kNamed; ++i) {
    names += (i == 0 ? "" : ", ") + name_of(blamed[i]);
  }
  if (blamed.size() > kNamed) names += fmt::format(" and {} more", blamed.size() - kNamed);
  const RankView& first = ranks_[blamed.front()];
  std::string state;
  if (!first.joined) {
    state = fmt::format("never reported in {:.1f} s", now_);
  } else if (!first.connected || now_ - first.heard_at > kSilence) {
    state = fmt::format("silent for {:.1f} s", now_ - first.heard_at);
  } else {
    state = fmt::format("without progress for {:.1f} s", idle);
  }
  const Operation* last = newest(first.beat);
  const std::string seen = fmt::format(
      "; last seen in section {}{}", control::name_of(section_of(first.beat)),
      last ? fmt::format(", {} {}", last->unfinished() ? "in" : "after", words_of(*last)) : "");
  return fmt::format("{} {}{}{}", names, state, first.joined ? seen : "", others);
}

std::string JobWatch::hang_report() const {
  std::string text = hang_sentence() + "\n";
  for (size_t i = 0; i < ranks_.size(); ++i) {
    const RankView& rank = ranks_[i];
    text += fmt::format(
        "\n{}: section {} for {:.1f} s, {} steps done, heard {:.1f} s ago, progress {:.1f} s "
        "ago{}\n",
        name_of(static_cast<int>(i)), control::name_of(section_of(rank.beat)),
        1e-3 * static_cast<double>(rank.beat.section_age_ms()), rank.beat.step(),
        now_ - rank.heard_at, now_ - rank.progress_at,
        rank.dump ? "" : "; it did not answer, these are its last known operations");
    const auto& operations = rank.dump ? rank.dump->operation() : rank.beat.operation();
    for (const Operation& operation : operations) text += line_of(operation);
  }
  return text;
}

}  // namespace sprocket::launcher
