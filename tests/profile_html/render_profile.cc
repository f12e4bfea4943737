// render_profile PROFILE.json REPORT.html
#include <fstream>
#include <iostream>
#include <iterator>

#include "runtime/profile/html_report.h"

int main(int argc, char** argv) {
  if (argc != 3) {
    std::cerr << "usage: render_profile PROFILE.json REPORT.html\n";
    return 2;
  }
  std::ifstream in(argv[1], std::ios::binary);
  const std::string json(std::istreambuf_iterator<char>(in), {});
  std::ofstream out(argv[2], std::ios::binary);
  out << sprocket::profile::html_report(json);
  return in && out.flush() ? 0 : 1;
}
