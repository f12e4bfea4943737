#include "launcher/doctor/network.h"

#include <algorithm>
#include <filesystem>
#include <fstream>

namespace sprocket::launcher {

double fastest_link_rate(const std::string& folder) {
  constexpr double kBytesPerMegabit = 1e6 / 8;
  double fastest = 0;
  std::error_code error;
  for (const auto& adapter : std::filesystem::directory_iterator(folder, error)) {
    std::string state;
    double megabits = 0;
    std::ifstream(adapter.path() / "operstate") >> state;
    // Unreadable, or -1, where there is no speed.
    const bool told = static_cast<bool>(std::ifstream(adapter.path() / "speed") >> megabits);
    if (adapter.path().filename() == "lo" || state != "up" || !told) continue;
    fastest = std::max(fastest, megabits * kBytesPerMegabit);
  }
  return fastest;
}

}  // namespace sprocket::launcher
