// This host's name, and by which addresses ranks reach it.
#pragma once

#include <string>
#include <vector>

namespace sprocket::launcher {

// Numeric IPv4 addresses of the interfaces that are up, without the loopback's; it comes last.
std::vector<std::string> own_addresses();

std::string own_host_name();

}  // namespace sprocket::launcher
