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

#include "runtime/control/pulse.h"
#include "runtime/control/server.h"

namespace sprocket::launcher {

// Seconds without any progress after which a section counts as hung, by section.
struct SectionLimits {
  std::array<double, control::kSections> seconds = {1800, 600, 1800, 1800, 1800, 600, 600};
  double& operator[](control::Section section) { return seconds[static_cast<size_t>(section)]; }
  double operator[](control::Section section) const {
    return seconds[static_cast<size_t>(section)];
  }
};

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
  bool all_finished() const;
  // Of all ranks; -1: none.
  int64_t newest_step() const;
  int64_t newest_checkpoint() const;
  // Of the ranks that are lost the one that was first.
  std::optional<int> first_lost() const;
  // The error that came first; one that is no other rank's fault before any that is.
  std::optional<int> first_error() const;
  // Removes and returns what was noticed.
  std::vector<Return> take_returns() { return std::exchange(returns_, {}); }

  // No rank has made progress for as long as the section allows. False while all have lost their
  // connections: then nothing is known.
  bool is_hung() const;
  // One sentence: who, where, and what the others wait for.
  std::string hang_sentence() const;
  // All that ranks answered to a DUMP, and what is known of those that did not.
  std::string hang_report() const;
  // "rank 3 (node7, process 4711)"
  std::string name_of(int rank) const;

 private:
  double limit() const;
  double last_progress() const;
  std::vector<int> silent_ranks() const;
  std::vector<int> suspects() const;
  std::vector<const control::Heartbeat*> beats() const;

  std::vector<RankView> ranks_;
  SectionLimits limits_;
  double now_ = 0;
  std::vector<int> error_order_;
  std::vector<int> lost_order_;
  std::vector<Return> returns_;
};

}  // namespace sprocket::launcher
