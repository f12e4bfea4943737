// Where ranks are to run, as flags of the subcommands that start them.
#pragma once

#include <string>
#include <vector>

#include "launcher/command.h"
#include "launcher/launch/hosts.h"

namespace sprocket::launcher {

struct HostFlags {
  std::string hosts, hostfile;
  std::string agent = "ssh -o BatchMode=yes -o ConnectTimeout=10";
};

// --hosts, --hostfile and --agent. `hosts` is the help of the first.
void add_host_flags(CLI::App& command, HostFlags& flags, const std::string& hosts);

// Empty where none are given. Throws ConfigError.
std::vector<HostSlots> hosts_of(const HostFlags& flags);

}  // namespace sprocket::launcher
