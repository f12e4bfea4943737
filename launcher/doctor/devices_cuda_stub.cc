#include "launcher/doctor/devices.h"

namespace sprocket::launcher {

std::vector<Finding> check_devices() { return {}; }

}  // namespace sprocket::launcher
