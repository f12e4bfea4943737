#include "launcher/launch/host_record.h"

#include <algorithm>

#include <fmt/format.h>

namespace sprocket::launcher {
namespace {

bool is_among(const std::string& name, const std::vector<std::string>& names) {
  return std::any_of(names.begin(), names.end(),
                     [&](const std::string& other) { return same_host(name, other); });
}

}  // namespace

void HostRecord::failed(const std::vector<std::string>& hosts) {
  for (const std::string& host : hosts) ++failures_[host];
}

std::vector<std::string> HostRecord::due(const std::vector<HostSlots>& hosts) const {
  std::vector<std::string> names;
  for (const HostSlots& host : hosts) {
    int count = 0;
    for (const auto& [name, failures] : failures_) {
      if (same_host(name, host.name)) count += failures;
    }
    if (limit_ > 0 && count >= limit_) names.push_back(host.name);
  }
  return names;
}

Retreat retreat(const std::vector<HostSlots>& hosts, const std::vector<std::string>& dropped,
                const parallel::MeshShape& mesh, const MeshProblem& problem) {
  Retreat found;
  for (const HostSlots& host : hosts) {
    if (!is_among(host.name, dropped)) found.hosts.push_back(host);
  }
  const int slots = total_slots(found.hosts);
  const int degrees = std::min(mesh.data, slots / mesh.sequence());
  if (degrees == 0) {
    found.why_not = fmt::format(
        "the other hosts take {} ranks, and one replica needs {} (outer {} x ulysses {})", slots,
        mesh.sequence(), mesh.outer, mesh.ulysses);
    return found;
  }
  for (int data = degrees; data > 0; --data) {
    const parallel::MeshShape lower{data, mesh.outer, mesh.ulysses};
    std::string why = data == mesh.data ? "" : problem(lower);
    if (why.empty()) {
      found.possible = true;
      found.ranks = lower.world();
      found.data = data;
      return found;
    }
    if (found.why_not.empty()) found.why_not = std::move(why);
  }
  return found;
}

}  // namespace sprocket::launcher
