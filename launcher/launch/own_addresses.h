// By which addresses ranks reach this host.
#pragma once

#include <string>
#include <vector>

namespace sprocket::launcher {

// Numeric IPv4 addresses of the interfaces that are up, without the loopback's; it comes last.
std::vector<std::string> own_addresses();

}  // namespace sprocket::launcher
