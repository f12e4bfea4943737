#include "launcher/doctor/pairs.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <functional>

#include <fmt/format.h>

namespace sprocket::launcher {
namespace {

constexpr int kAllPairs = 8;  // ranks
constexpr int kSmallRounds = 101, kLargeRounds = 9;
constexpr int64_t kSmallMessage = 8;
// A message through shared memory is copied twice, or once by the kernel; TCP reaches most of a
// link. What lies far below is worth a look.
constexpr double kShareOfCopies = 0.15, kShareOfLink = 0.5;
// Of the median of the pairs of its kind.
constexpr double kSlowShare = 1.0 / 3;
constexpr double kLongLatency = 1e-3;
constexpr size_t kNamedPairs = 6;
constexpr double kGiga = 1e9, kMicro = 1e-6;

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// `bytes` of `buffer` from one rank to another; nothing for all others. Collective.
void pass(comm::Communicator& world, int from, int to, std::vector<uint8_t>& buffer,
          int64_t bytes) {
  const comm::Segment out{to, 0, bytes}, in{from, 0, bytes};
  std::vector<uint8_t> none;
  const bool sends = world.rank() == from, takes = world.rank() == to;
  world
      .exchange(comm::Buffer::of(std::span(sends ? buffer : none)),
                sends ? std::span(&out, 1) : std::span<const comm::Segment>(),
                comm::Buffer::of(std::span(takes ? buffer : none)),
                takes ? std::span(&in, 1) : std::span<const comm::Segment>())
      .wait_host();
}

// Seconds of one way. Collective; the result counts on the pair's ranks.
double one_way(comm::Communicator& world, const RankPair& pair, std::vector<uint8_t>& buffer,
               int64_t bytes, int rounds) {
  std::vector<double> times;
  for (int round = 0; round <= rounds; ++round) {
    const double start = seconds_now();
    pass(world, pair.first, pair.second, buffer, bytes);
    pass(world, pair.second, pair.first, buffer, bytes);
    // The first round makes the connection.
    if (round > 0) times.push_back((seconds_now() - start) / 2);
  }
  return median(times);
}

std::string rate_text(double rate) { return fmt::format("{:.3g} GB/s", rate / kGiga); }

std::string latency_text(double latency) {
  const double micro = latency / kMicro;
  return micro < 10 ? fmt::format("{:.2g} us", micro) : fmt::format("{:.0f} us", micro);
}

std::string pair_text(const PairTime& time) {
  return fmt::format("{}-{} {}, {}", time.pair.first, time.pair.second, rate_text(time.rate),
                     latency_text(time.latency));
}

std::string pairs_text(const std::vector<PairTime>& times) {
  std::string text;
  for (size_t i = 0; i < times.size() && i < kNamedPairs; ++i) {
    text += (i == 0 ? "" : "; ") + pair_text(times[i]);
  }
  if (times.size() > kNamedPairs) {
    text += fmt::format(" and {} more", times.size() - kNamedPairs);
  }
  return text;
}

// Pairs of one kind, and how fast each should be at least; 0: not known.
struct Kind {
  const char* subject;
  std::string expectation;
  std::string remedy;
  std::vector<PairTime> times;
  std::vector<double> least;
};

std::vector<double> collect(const std::vector<PairTime>& times,
                            const std::function<double(const PairTime&)>& value) {
  std::vector<double> values;
  for (const PairTime& time : times) values.push_back(value(time));
  return values;
}

Finding judge(const Kind& kind, bool crowded) {
  const std::vector<double> rates = collect(kind.times, [](const auto& t) { return t.rate; });
  const std::vector<double> latencies =
      collect(kind.times, [](const auto& t) { return t.latency; });
  const double usual_rate = median(rates), usual_latency = median(latencies);
  Finding finding{Verdict::kGood, kind.subject, "", ""};
  if (rates.size() == 1) {
    finding.found =
        fmt::format("1 pair: {}, {}", rate_text(usual_rate), latency_text(usual_latency));
  } else {
    finding.found = fmt::format(
        "{} pairs: {} (slowest {}), {} (longest {})", rates.size(), rate_text(usual_rate),
        rate_text(*std::min_element(rates.begin(), rates.end())), latency_text(usual_latency),
        latency_text(*std::max_element(latencies.begin(), latencies.end())));
  }
  finding.found += "; " + kind.expectation;
  if (crowded) {
    finding.found += "; not judged, because ranks share processors";
    return finding;
  }
  std::vector<PairTime> slow;
  for (size_t i = 0; i < kind.times.size(); ++i) {
    const PairTime& time = kind.times[i];
    if (time.rate < kind.least[i] || time.rate < kSlowShare * usual_rate ||
        time.latency > std::max(kLongLatency, usual_latency / kSlowShare)) {
      slow.push_back(time);
    }
  }
  if (slow.empty()) return finding;
  std::sort(slow.begin(), slow.end(),
            [](const PairTime& a, const PairTime& b) { return a.rate < b.rate; });
  finding.verdict = Verdict::kAdvice;
  finding.found += "; slow: " + pairs_text(slow);
  finding.remedy = kind.remedy;
  return finding;
}

}  // namespace

std::vector<RankPair> plan_pairs(int ranks) {
  std::vector<RankPair> pairs;
  if (ranks <= kAllPairs) {
    for (int first = 0; first < ranks; ++first) {
      for (int second = first + 1; second < ranks; ++second) pairs.push_back({first, second});
    }
    return pairs;
  }
  for (int rank = 0; rank + 1 < ranks; ++rank) pairs.push_back({rank, rank + 1});
  for (int rank = 0; rank < ranks / 2; ++rank) pairs.push_back({rank, rank + ranks / 2});
  return pairs;
}

std::vector<PairTime> measure_pairs(comm::Communicator& world, const std::vector<RankPair>& pairs) {
  std::vector<PairTime> times;
  std::vector<uint8_t> buffer(kLargeMessage, 1);
  for (const RankPair& pair : pairs) {
    world.barrier();
    std::vector<double> measured = {one_way(world, pair, buffer, kSmallMessage, kSmallRounds),
                                    static_cast<double>(kLargeMessage) /
                                        one_way(world, pair, buffer, kLargeMessage, kLargeRounds)};
    world.broadcast(comm::Buffer::of(std::span(measured)), pair.first).wait_host();
    if (world.rank() == 0) times.push_back({pair, measured[0], measured[1]});
  }
  return times;
}

double measure_copy_rate() {
  const std::vector<uint8_t> from(kLargeMessage, 1);
  std::vector<uint8_t> to(kLargeMessage);
  std::vector<double> times;
  for (int round = 0; round < kLargeRounds; ++round) {
    const double start = seconds_now();
    std::memcpy(to.data(), from.data(), to.size());
    times.push_back(seconds_now() - start);
  }
  return static_cast<double>(kLargeMessage) / median(times);
}

std::vector<Finding> judge_pairs(const std::vector<PairTime>& times,
                                 const std::vector<RankReport>& reports,
                                 const std::vector<bool>& crowded) {
  Kind inside{"pairs of a host",
              "",
              "other programs may be using these hosts; look at `mpirun --display-map` and the "
              "processors' NUMA nodes, and try `--bind numa`",
              {},
              {}};
  Kind across{"pairs of hosts",
              "",
              "is this the network that was meant? `mpirun --mca btl_tcp_if_include NAME` chooses "
              "an interface; look at the adapters (ethtool), cables and switches of these hosts",
              {},
              {}};
  double slowest_copies = 0, slowest_link = 0;
  bool inside_crowded = false, across_crowded = false;
  const auto note = [](double& least, double value) {
    if (value > 0 && (least == 0 || value < least)) least = value;
  };
  for (const PairTime& time : times) {
    const RankReport& a = reports.at(time.pair.first);
    const RankReport& b = reports.at(time.pair.second);
    const bool shared = crowded.at(time.pair.first) || crowded.at(time.pair.second);
    if (a.host == b.host) {
      const double copies = std::min(a.copy_rate, b.copy_rate);
      note(slowest_copies, copies);
      inside.times.push_back(time);
      inside.least.push_back(kShareOfCopies * copies);
      inside_crowded = inside_crowded || shared;
    } else {
      const double link = std::min(a.link_rate, b.link_rate);
      note(slowest_link, link);
      across.times.push_back(time);
      across.least.push_back(kShareOfLink * link);
      across_crowded = across_crowded || shared;
    }
  }
  inside.expectation =
      fmt::format("expected at least {}, {:.0f} % of a copy in memory",
                  rate_text(kShareOfCopies * slowest_copies), 100 * kShareOfCopies);
  across.expectation =
      slowest_link > 0
          ? fmt::format("expected at least {}, {:.0f} % of the slowest adapter's speed",
                        rate_text(kShareOfLink * slowest_link), 100 * kShareOfLink)
          : "no expectation: the system does not tell the adapters' speed";
  std::vector<Finding> findings;
  if (!inside.times.empty()) findings.push_back(judge(inside, inside_crowded));
  if (!across.times.empty()) findings.push_back(judge(across, across_crowded));
  return findings;
}

}  // namespace sprocket::launcher
