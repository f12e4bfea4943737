#include "launcher/doctor/clocks.h"

#include <sys/timex.h>

#include <cmath>
#include <ctime>

#include <fmt/format.h>

namespace sprocket::launcher {
namespace {

constexpr int kQuestions = 25;
// Times in logs and curves of several hosts are compared by eye.
constexpr double kLargestOffset = 0.1;
// A clock is slewed by at most 500 parts in a million; reading three of them takes a moment.
constexpr double kLargestSlew = 1e-3, kReading = 5e-3;
constexpr const char* kSynchronise =
    "synchronise the hosts' clocks, with chrony or systemd-timesyncd: times in logs and curves do "
    "not fit together (results and recovery do not depend on it)";

int64_t now_ns(clockid_t clock) {
  timespec time{};
  clock_gettime(clock, &time);
  return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

double seconds(int64_t ns) { return 1e-9 * static_cast<double>(ns); }

// One value from `from` to `to`; for all others nothing. Collective.
int64_t pass(comm::Communicator& world, int from, int to, int64_t value) {
  const comm::Segment out{to, 0, 1}, in{from, 0, 1};
  int64_t received = 0;
  const auto sends = world.rank() == from ? std::span(&out, 1) : std::span<const comm::Segment>();
  const auto takes = world.rank() == to ? std::span(&in, 1) : std::span<const comm::Segment>();
  world
      .exchange(comm::Buffer::of(std::span(&value, 1)), sends,
                comm::Buffer::of(std::span(&received, 1)), takes)
      .wait_host();
  return received;
}

}  // namespace

ClockOffset offset_of(int rank, int64_t sent, int64_t answer, int64_t heard) {
  const int64_t half = (heard - sent) / 2;
  return {rank, seconds(answer - (sent + half)), seconds(heard - sent - half)};
}

std::vector<ClockOffset> measure_clock_offsets(comm::Communicator& world) {
  std::vector<ClockOffset> offsets;
  for (int rank = 1; rank < world.size(); ++rank) {
    world.barrier();
    ClockOffset best;
    for (int question = 0; question < kQuestions; ++question) {
      const int64_t sent = now_ns(CLOCK_REALTIME);
      pass(world, 0, rank, sent);
      const int64_t answer = pass(world, rank, 0, now_ns(CLOCK_REALTIME));
      const ClockOffset offset = offset_of(rank, sent, answer, now_ns(CLOCK_REALTIME));
      if (question == 0 || offset.error < best.error) best = offset;
    }
    if (world.rank() == 0) offsets.push_back(best);
  }
  return offsets;
}

Finding judge_clock_offsets(const std::vector<ClockOffset>& offsets,
                            const std::vector<RankReport>& reports) {
  Finding finding{Verdict::kGood, "clocks of ranks", "one rank", ""};
  const ClockOffset* farthest = nullptr;
  std::vector<int> off;
  for (const ClockOffset& offset : offsets) {
    if (!farthest || std::abs(offset.seconds) > std::abs(farthest->seconds)) farthest = &offset;
    if (std::abs(offset.seconds) - offset.error > kLargestOffset) off.push_back(offset.rank);
  }
  if (!farthest) return finding;
  finding.found = fmt::format(
      "farthest from rank 0's: that of {}, by {:+.3f} ms, known to {:.3f} ms",
      names_of({farthest->rank}, reports), 1e3 * farthest->seconds, 1e3 * farthest->error);
  if (off.empty()) return finding;
  finding.verdict = Verdict::kAdvice;
  finding.found +=
      fmt::format("; more than {:.0f} ms off: {}", 1e3 * kLargestOffset, names_of(off, reports));
  finding.remedy = kSynchronise;
  return finding;
}

ClockWatch::ClockWatch()
    : steady_(now_ns(CLOCK_MONOTONIC)),
      raw_(now_ns(CLOCK_MONOTONIC_RAW)),
      wall_(now_ns(CLOCK_REALTIME)) {}

ClockRun ClockWatch::elapsed() {
  ClockRun run{seconds(now_ns(CLOCK_MONOTONIC) - steady_),
               seconds(now_ns(CLOCK_MONOTONIC_RAW) - raw_), seconds(now_ns(CLOCK_REALTIME) - wall_),
               false};
  for (int64_t i = 0, before = steady_; i < 10'000; ++i) {
    const int64_t now = now_ns(CLOCK_MONOTONIC);
    run.backwards = run.backwards || now < before;
    before = now;
  }
  return run;
}

Finding judge_clock_run(const ClockRun& run) {
  Finding finding{Verdict::kGood, "steady clock", fmt::format("even over {:.1f} s", run.steady),
                  ""};
  const double slack = kReading + kLargestSlew * std::abs(run.raw);
  if (run.backwards || std::abs(run.steady - run.raw) > slack) {
    finding.verdict = Verdict::kAdvice;
    finding.found = run.backwards ? "went backwards"
                                  : fmt::format("counted {:.3f} s in {:.3f} s of the oscillator",
                                                run.steady, run.raw);
    finding.remedy =
        "time-outs and profiles of this host are wrong: see `dmesg | grep -i clocksource`, and the "
        "settings of the virtual machine";
  } else if (std::abs(run.wall - run.steady) > slack) {
    finding.verdict = Verdict::kAdvice;
    finding.found = fmt::format("even; the wall clock stepped by {:+.3f} s in {:.1f} s",
                                run.wall - run.steady, run.steady);
    finding.remedy = "somebody sets the wall clock: look at the host's time service";
  }
  return finding;
}

Synchronisation clock_synchronisation() {
  timex state{};
  const int code = adjtimex(&state);
  if (code < 0) return Synchronisation::kUnknown;
  return (state.status & STA_UNSYNC) == 0 && code != TIME_ERROR ? Synchronisation::kYes
                                                                : Synchronisation::kNo;
}

Finding judge_synchronisation(Synchronisation state) {
  switch (state) {
    case Synchronisation::kYes:
      return {Verdict::kGood, "wall clock", "synchronised, the kernel says", ""};
    case Synchronisation::kNo:
      // Its host may do it for a virtual machine: the offsets between ranks decide.
      return {Verdict::kGood, "wall clock", "not synchronised by a time service of this system",
              ""};
    case Synchronisation::kUnknown:
      return {Verdict::kGood, "wall clock", "the kernel does not tell whether it is synchronised",
              ""};
  }
  return {};
}

}  // namespace sprocket::launcher
