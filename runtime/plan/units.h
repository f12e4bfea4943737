// Numbers for people to read.
#pragma once

#include <cstdint>
#include <string>

namespace sprocket::runtime {

std::string grouped(int64_t number);       // "1,234,567"
std::string megabytes_text(double bytes);  // "0.12 MB", "123 MB", "4.56 GB": powers of ten
std::string gibibytes_text(double bytes);  // "1.23 GiB"
std::string seconds_text(double seconds);  // "12.3 us", "4.56 ms", "7.89 s"

}  // namespace sprocket::runtime
