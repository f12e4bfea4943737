// Quantities as the report's texts say them.
#pragma once

#include <string>

namespace sprocket::profile {

std::string percent(double share);         // "12.3 %"
std::string seconds_text(double seconds);  // "1.920 s", "38.2 ms"
std::string ms_text(double ms);
// "1:02:03", "4:05"; rounded to whole seconds, never negative.
std::string duration_text(double seconds);
std::string bytes_text(double bytes);  // "3.20 MB", powers of 1000

}  // namespace sprocket::profile
