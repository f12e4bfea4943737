// Where ranks are to run, as mpirun understands it.
#pragma once

#include <string>
#include <vector>

namespace sprocket::launcher {

struct HostSlots {
  std::string name;
  int slots = 1;  // ranks that it takes
  bool operator==(const HostSlots&) const = default;
};

// "a:8,b:8"; without a number a host has one slot. Throws ConfigError for a name or a number that
// is none, and for a host that is named twice.
std::vector<HostSlots> parse_hosts(const std::string& text);

// Open MPI's host file: lines of `NAME [slots=N]`, comments behind #. Throws ConfigError, which
// names the line.
std::vector<HostSlots> read_hostfile(const std::string& path);

int total_slots(const std::vector<HostSlots>& hosts);

}  // namespace sprocket::launcher
