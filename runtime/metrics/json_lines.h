// A file of JSON objects, one a line and each of one step, that a resumed run continues.
#pragma once

#include <cstdint>
#include <fstream>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace sprocket::runtime {

class JsonLines {
 public:
  // Keeps the lines of a file that is there whose "step" is at most last_step and drops the others:
  // they are about to be made again. Throws OutputError.
  JsonLines(const std::string& path, int64_t last_step);

  // Written through at once. Throws OutputError.
  void write(const nlohmann::json& line);

 private:
  std::string path_;
  std::ofstream out_;
};

}  // namespace sprocket::runtime
