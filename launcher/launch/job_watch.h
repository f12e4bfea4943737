// What a supervisor knows of the ranks of one attempt, and what it concludes.
//
// Pure bookkeeping: it is told what came in and how time goes by, so that every conclusion is
// tested without processes. Times are seconds of the time that the supervisor was awake: one that
// was stopped for a while does not take its own absence for that of others.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "launcher/launch/straggler_watch.h"
#include "runtime/control/pulse.h"
#include "runtime/control/server.h"

namespace sprocket::launcher {

// Seconds without any progress after which a section counts as hung, by section.
struct SectionLimits {
  std::array<double, control::kSections> seconds = {1800, 600, 1800, 1800, 1800, 600, 600};
  // The same for a host that is not heard at all, where that is less.
  double silence = 60;
  double& operator[](control::Section section) { return seconds[static_cast<size_t>(section)]; }
  double operator[](control::Section section) const {
    return seconds[static_cast<size_t>(section)];
  }
};

control::Section section_of(const control::Heartbeat& beat);

struct RankView {
  bool joined = false;     // ever
  bool connected = false;  // now
  bool finished = false;   // has said so, or said with what error it ends
  std::string host;
  int process = 0;
  control::Heartbeat beat;  // the last one
  double heard_at = 0;
  double progress_at = 0;
  bool lost = false;  // its connection ended before it had finished, and was not made again
  std::optional<control::ErrorReport> error;
  std::optional<control::Dump> dump;
};

// A rank that was silent for a while and is heard again.
struct Return {
  int rank = 0;
  double silent = 0;
  double waited = 0;  // of it, in which no other rank made progress either
};

class JobWatch {
 public:
  JobWatch(int ranks, const SectionLimits& limits);

  // Time went by.
  void tick(double seconds);
  double now() const { return now_; }
  void take(const control::Report& report);

  const std::vector<RankView>& ranks() const { return ranks_; }
  bool any_joined() const;
  // Of which nothing was ever heard.
  std::vector<int> never_joined() const;
  // Of all ranks; -1: none.
  int64_t newest_step() const;
  int64_t newest_checkpoint() const;
  // Of the ranks that are lost the one that was first.
  std::optional<int> first_lost() const;
  // The error that came first; one that is no other rank's fault before any that is.
  std::optional<int> first_error() const;
  // Removes and returns what was noticed.
  std::vector<Return> take_returns() { return std::exchange(returns_, {}); }
  StragglerWatch& stragglers() { return stragglers_; }
  const StragglerWatch& stragglers() const { return stragglers_; }
  // "rank 2 (node7, process 4711): its own part of a step takes 1.31 times the median of the
  // others; the others waited 240.0 ms of each 1.020 s for it"
  std::string sentence(const Straggler& straggler) const;
  // "rank 2 (node7, process 4711) is heard again after 5.1 s of silence: a straggler, the others
  // waited 4.8 s for it"
  std::string sentence(const Return& back) const;

  // No rank has made progress for as long as the section allows. False while all have lost their
  // connections: then nothing is known.
  bool is_hung() const;
  // After how many seconds without progress that is.
  double limit() const;
  double last_progress() const;
  // Whose every rank has not been heard for a while, or has lost its connection; one at least has
  // not: the host or the link to it is gone.
  std::vector<std::string> silent_hosts() const;
  // That have not reported although others have, a minute ago.
  std::vector<int> missing_ranks() const;
  // Where those run that a hang is blamed on.
  std::vector<std::string> suspected_hosts() const;
  // One sentence: who, where, and what the others wait for.
  std::string hang_sentence() const;
  // All that ranks answered to a DUMP, and what is known of those that did not.
  std::string hang_report() const;
  // "rank 3 (node7, process 4711)"
  std::string name_of(int rank) const;

 private:
  void note_return(int rank);
  void note_progress(RankView& rank);
  double waited_lately() const;
  bool is_silent(const RankView& rank) const;
  std::vector<int> silent_ranks() const;
  std::vector<int> suspects() const;
  std::vector<const control::Heartbeat*> beats() const;

  std::vector<RankView> ranks_;
  SectionLimits limits_;
  double now_ = 0;
  double first_joined_at_ = -1;
  std::vector<int> error_order_;
  std::vector<int> lost_order_;
  std::vector<Return> returns_;
  StragglerWatch stragglers_;
  // The last time for which no rank made progress, and when it was over.
  double stall_ = 0, stall_end_ = 0;
};

}  // namespace sprocket::launcher
