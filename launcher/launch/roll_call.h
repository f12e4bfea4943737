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
std::vector<std::string> hosts_of(const std::vector<Absence>& absences);
// "host b cannot be …; host c …"
std::string words_of(const std::vector<Absence>& absences);

// What the agent is given for `host`: it ends with 0 when ranks can be started there.
std::vector<std::string> question_to(const std::string& host, const StartPlan& plan);
// What its exit code says; none: it has not ended. Empty: the host is there.
std::string reason_of_absence(std::optional<int> status, const StartPlan& plan);

// Whether `name`, as a list of hosts has it, is this host, which mpirun reaches without the agent.
bool is_this_host(const std::string& name);

// Asks all hosts that the plan's ranks need, except this one, by the plan's agent; those that do
// not answer are asked again, at growing intervals, until `patience` is over or a signal comes.
std::vector<Absence> absent_hosts(const StartPlan& plan, std::chrono::seconds patience,
                                  const AskedToEnd& asked);

}  // namespace sprocket::launcher
