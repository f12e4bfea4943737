// Whether the hosts of a job can be reached, asked before ranks are started there: mpirun says that
// some daemon did not start, and not on which host or why.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "launcher/launch/asked_to_end.h"
#include "launcher/launch/start_command.h"

namespace sprocket::launcher {

struct Absence {
  std::string host;
  std::string why;
};

struct RollCall {
  std::vector<Absence> absences;
  std::vector<std::string> crowded;  // hosts with fewer processors than they take ranks
};

std::vector<std::string> hosts_of(const std::vector<Absence>& absences);
// "host b cannot be …; host c …"
std::string words_of(const std::vector<Absence>& absences);

// What the agent is given for `host`.
std::vector<std::string> question_to(const HostSlots& host, const StartPlan& plan);
// What its exit code says; none: it has not ended. An empty reason: ranks can be started there.
std::string reason_of_absence(std::optional<int> status, const StartPlan& plan);
bool means_crowded(std::optional<int> status);

// Whether `name`, as a list of hosts has it, is this host, which mpirun reaches without the agent.
bool is_this_host(const std::string& name);

// Asks all hosts that the plan's ranks need, this one by itself, by the plan's agent; those that do
// not answer are asked again, at growing intervals, until `patience` is over or a signal comes.
RollCall call_hosts(const StartPlan& plan, std::chrono::seconds patience, const AskedToEnd& asked);

}  // namespace sprocket::launcher
