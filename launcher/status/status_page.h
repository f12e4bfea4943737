// The page that shows a job's status, as it is sent: one file, which refers to nothing outside.
#pragma once

#include <string_view>

namespace sprocket::launcher {

std::string_view status_page();

}  // namespace sprocket::launcher
