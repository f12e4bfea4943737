#include "launcher/host_flags.h"

namespace sprocket::launcher {

void add_host_flags(CLI::App& command, HostFlags& flags, const std::string& hosts) {
  CLI::Option* const list = command.add_option("--hosts", flags.hosts, hosts)->option_text("HOSTS");
  command
      .add_option("--hostfile", flags.hostfile, "The same from a file, in lines of `a slots=8`.")
      ->option_text("FILE")
      ->excludes(list);
  command
      .add_option("--agent", flags.agent,
                  "What reaches another host: called with the host's name and a command for its "
                  "shell. ssh -o BatchMode=yes -o ConnectTimeout=10.")
      ->option_text("COMMAND");
}

std::vector<HostSlots> hosts_of(const HostFlags& flags) {
  if (!flags.hostfile.empty()) return read_hostfile(flags.hostfile);
  if (!flags.hosts.empty()) return parse_hosts(flags.hosts);
  return {};
}

}  // namespace sprocket::launcher
