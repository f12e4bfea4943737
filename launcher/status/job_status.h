// What is going on in a supervised job: one value, from which the table, the page, the metrics and
// the health are made. Times are seconds.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "launcher/launch/job_watch.h"

namespace sprocket::launcher {

enum class JobState : uint8_t {
  kStarting,  // no rank has begun its first step, validation or sample
  kRunning,
  kStopping,  // asked to finish the step, save and end
  kWaiting,   // between two attempts
};
inline constexpr int kJobStates = 4;
const char* name_of(JobState state);

struct RankStatus {
  int rank = 0;
  std::string host;
  int process = 0;         // 0: it has not reported yet
  bool connected = false;  // now
  bool lost = false;       // its connection ended before it had finished
  std::string section;
  std::string operation;      // the last one, as "exchange #41 of sp.outer[0] (layer 3, backward)"
  bool in_operation = false;  // it is not complete
  int64_t step = -1;          // steps done; -1: none yet
  int64_t memory_bytes = 0;   // resident
  double silent_seconds = 0;
  // Of the last steps, medians.
  std::optional<double> own_seconds;  // of a step without its exposed communication
  std::optional<double> exposed_share;
};

struct JobStatus {
  std::string command;  // of a shell
  std::string folder;   // of the job's output; empty: not known yet
  std::string host;     // of the supervisor
  int process = 0;
  JobState state = JobState::kStarting;
  double seconds = 0;       // since the launch
  int64_t step = -1;        // steps done; -1: none yet
  int64_t total_steps = 0;  // 0: unknown
  std::optional<double> loss;
  // Of the last steps.
  std::optional<double> step_seconds;
  std::optional<double> tokens_per_second;
  std::optional<double> exposed_share;  // mean of the ranks
  std::optional<double> eta_seconds;
  std::optional<int> slowest_rank;  // the one with the longest own time
  std::optional<int> straggler;     // StragglerWatch
  std::string straggler_sentence;   // about it; empty: there is none
  int restarts = 0;
  std::string last_failure;      // why the last attempt ended; empty: none has failed
  int64_t checkpoint_step = -1;  // the newest that was saved since the launch; -1: none
  std::optional<double> checkpoint_age;
  double idle_seconds = 0;  // since any rank made progress
  double idle_limit = 0;    // after which it counts as hung
  std::vector<RankStatus> ranks;
};

// What the supervisor knows beside what the ranks say.
struct JobFacts {
  std::vector<std::string> job;  // "train", "--config", …
  int ranks = 1;
  std::string host;
  int process = 0;
  double seconds = 0;  // since the launch
  bool stop_asked = false;
  int restarts = 0;
  std::string last_failure;
  int64_t checkpoint_step = -1;
  double checkpoint_at = 0;  // by `seconds`
};

// `watch` is of the attempt that runs; null: none does.
JobStatus make_status(const JobFacts& facts, const JobWatch* watch);

// Why the job counts as unhealthy: it waits for a restart, a rank is lost, or none has
// made progress for half as long as makes a hang. Empty: it is healthy.
std::string trouble_of(const JobStatus& status);

}  // namespace sprocket::launcher
