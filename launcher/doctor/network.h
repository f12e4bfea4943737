// What the system tells about network adapters.
#pragma once

#include <string>

namespace sprocket::launcher {

// Bytes/s of the fastest adapter that is up and tells its speed, the loopback aside; 0: none does.
// `folder` is laid out as /sys/class/net.
double fastest_link_rate(const std::string& folder = "/sys/class/net");

}  // namespace sprocket::launcher
