#include "runtime/metrics/json_lines.h"

#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "runtime/media/output_file.h"

namespace sprocket::runtime {
namespace {

using nlohmann::json;

std::string lines_up_to(const std::string& path, int64_t last_step) {
  std::ifstream in(path);
  std::string kept, line;
  while (std::getline(in, line)) {
    const json object = json::parse(line, nullptr, false);
    if (object.is_object() && object.value("step", int64_t{-1}) <= last_step) kept += line + "\n";
  }
  return kept;
}

}  // namespace

JsonLines::JsonLines(const std::string& path, int64_t last_step) : path_(path) {
  const std::string kept = lines_up_to(path, last_step);
  media::write_output_file(path, std::as_bytes(std::span(kept)));
  out_.open(path, std::ios::app);
  if (!out_) throw OutputError(fmt::format("{}: cannot be opened: {}", path, std::strerror(errno)));
}

void JsonLines::write(const json& line) {
  out_ << line.dump() << "\n" << std::flush;
  if (!out_) throw OutputError(fmt::format("{}: cannot be written (disk full?)", path_));
}

}  // namespace sprocket::runtime
