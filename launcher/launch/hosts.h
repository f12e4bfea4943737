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

// The first of them that together take `ranks`; the others are spare. All, if they do not suffice.
std::vector<HostSlots> hosts_for(const std::vector<HostSlots>& hosts, int ranks);

// Whether two names are of one host: equal, or one is the other without its domain.
bool same_host(const std::string& a, const std::string& b);

}  // namespace sprocket::launcher
