#include "launcher/doctor/ranks.h"

#include <algorithm>
#include <map>
#include <set>

#include <fmt/format.h>

namespace sprocket::launcher {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;
// What a rank of Open MPI and what its messages take of /dev/shm, generously.
constexpr int64_t kSharedMemoryOfRank = 32 * kMiB;
constexpr size_t kNamedHosts = 6;

struct Host {
  std::vector<int> ranks;
  std::set<int> cores;  // that some rank of it may use
};

std::map<std::string, Host> hosts_of(const std::vector<RankReport>& reports) {
  std::map<std::string, Host> hosts;
  for (const RankReport& report : reports) {
    Host& host = hosts[report.host];
    host.ranks.push_back(report.rank);
    host.cores.insert(report.cores.begin(), report.cores.end());
  }
  return hosts;
}

bool is_crowded(const Host& host) { return host.ranks.size() > host.cores.size(); }

// "a: 4 ranks on 2 processors, b: …"
std::string shares(const std::map<std::string, Host>& hosts) {
  std::string text;
  size_t named = 0;
  for (const auto& [name, host] : hosts) {
    if (++named > kNamedHosts) break;
    text += fmt::format("{}{}: {} rank{} on {} processor{}", text.empty() ? "" : ", ", name,
                        host.ranks.size(), host.ranks.size() == 1 ? "" : "s", host.cores.size(),
                        host.cores.size() == 1 ? "" : "s");
  }
  if (hosts.size() > kNamedHosts) {
    text += fmt::format(" and {} more hosts", hosts.size() - kNamedHosts);
  }
  return text;
}

}  // namespace

Finding describe_ranks(const std::vector<RankReport>& reports) {
  const auto hosts = hosts_of(reports);
  return {
      Verdict::kGood, "ranks",
      fmt::format("{} on {} host{}", reports.size(), hosts.size(), hosts.size() == 1 ? "" : "s"),
      ""};
}

Finding judge_versions(const std::vector<RankReport>& reports) {
  std::map<std::string, std::vector<int>> versions;
  for (const RankReport& report : reports) {
    versions[report.program + "; " + report.mpi].push_back(report.rank);
  }
  Finding finding{Verdict::kGood, "versions", "the same sprocket and MPI on all ranks", ""};
  if (versions.size() <= 1) return finding;
  finding.verdict = Verdict::kProblem;
  finding.found.clear();
  for (const auto& [version, ranks] : versions) {
    finding.found += fmt::format("{}{}: {}", finding.found.empty() ? "" : "; ",
                                 names_of(ranks, reports), version);
  }
  finding.remedy = "install the same sprocket and the same Open MPI at the same paths on all hosts";
  return finding;
}

std::vector<bool> find_crowded(const std::vector<RankReport>& reports) {
  const auto hosts = hosts_of(reports);
  std::vector<bool> crowded;
  for (const RankReport& report : reports) crowded.push_back(is_crowded(hosts.at(report.host)));
  return crowded;
}

Finding judge_cores_per_rank(const std::vector<RankReport>& reports) {
  const auto hosts = hosts_of(reports);
  Finding finding{Verdict::kGood, "processors", shares(hosts), ""};
  std::map<std::string, Host> crowded;
  for (const auto& [name, host] : hosts) {
    if (is_crowded(host)) crowded.emplace(name, host);
  }
  if (crowded.empty()) return finding;
  finding.verdict = Verdict::kAdvice;
  finding.found = shares(crowded);
  finding.remedy =
      "fewer ranks for each host: ranks that share a processor wait for each other in every "
      "exchange";
  return finding;
}

Finding judge_shared_memory_of_ranks(const std::vector<RankReport>& reports) {
  std::vector<int> short_of;
  int64_t least_room = -1;
  std::string least_host;
  for (const auto& [name, host] : hosts_of(reports)) {
    const auto ranks = static_cast<int64_t>(host.ranks.size());
    int64_t free = reports.at(host.ranks.front()).shared_memory;
    for (const int rank : host.ranks) free = std::min(free, reports.at(rank).shared_memory);
    if (least_room < 0 || free / ranks < least_room) {
      least_room = free / ranks;
      least_host = name;
    }
    if (free < ranks * kSharedMemoryOfRank) {
      short_of.insert(short_of.end(), host.ranks.begin(), host.ranks.end());
    }
  }
  Finding finding{Verdict::kGood, "room in /dev/shm",
                  fmt::format("{} MiB for each rank of {}", least_room / kMiB, least_host), ""};
  if (short_of.empty()) return finding;
  finding.verdict = Verdict::kAdvice;
  finding.found += fmt::format("; less than {} MiB for each: {}", kSharedMemoryOfRank / kMiB,
                               names_of(short_of, reports));
  finding.remedy =
      "MPI ranks of one machine meet there, and end when it is full: mount -o remount,size=1G "
      "/dev/shm; docker run --shm-size=1g";
  return finding;
}

}  // namespace sprocket::launcher
