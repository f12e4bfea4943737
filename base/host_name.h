// The name of the machine that this process runs on.
#pragma once

#include <string>

namespace sprocket {

// As gethostname has it; "localhost" where there is none.
std::string own_host_name();

}  // namespace sprocket
