#include "launcher/doctor/libraries.h"

#include <fstream>
#include <set>
#include <sstream>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <google/protobuf/stubs/common.h>
#include <libxsmm_version.h>
#include <torch/headeronly/version.h>

#include "launcher/build_info.h"

extern "C" {
#include <libavutil/avutil.h>
}

namespace sprocket::launcher {
namespace {

Finding judge_protobuf() {
  const std::string headers = google::protobuf::internal::VersionString(GOOGLE_PROTOBUF_VERSION);
  return {Verdict::kGood, "protobuf", headers, ""};
}

}  // namespace

std::string own_maps() {
  std::ifstream stream("/proc/self/maps");
  std::ostringstream text;
  text << stream.rdbuf();
  return text.str();
}

std::vector<std::string> loaded_files(const std::string& maps, std::string_view library) {
  std::set<std::string> files;
  std::istringstream lines(maps);
  std::string line;
  while (std::getline(lines, line)) {
    const size_t path = line.find('/');
    if (path == std::string::npos) continue;
    const std::string file = line.substr(path);
    if (std::string_view(file).substr(file.rfind('/') + 1).starts_with(library)) files.insert(file);
  }
  return {files.begin(), files.end()};
}

std::vector<std::string> loaded_files(const std::vector<std::string_view>& libraries) {
  const std::string maps = own_maps();
  std::vector<std::string> all;
  for (const std::string_view library : libraries) {
    for (std::string& file : loaded_files(maps, library)) all.push_back(std::move(file));
  }
  return all;
}

Finding judge_single_copy(std::string_view subject, const std::vector<std::string>& files,
                          bool required) {
  Finding finding{Verdict::kGood, std::string(subject), fmt::format("{}", fmt::join(files, ", ")),
                  ""};
  if (files.size() > 1) {
    finding.verdict = Verdict::kProblem;
    finding.remedy = fmt::format(
        "{} copies are loaded and will fight: unset LD_LIBRARY_PATH and LD_PRELOAD, or configure a "
        "new "
        "build folder",
        files.size());
  } else if (files.empty()) {
    finding.found = "not loaded";
    if (required) {
      finding.verdict = Verdict::kProblem;
      finding.remedy = "this program is not complete: run scripts/setup, then scripts/build";
    }
  }
  return finding;
}

std::vector<Finding> check_libraries() {
  return {
      {Verdict::kGood, "sprocket", fmt::format("{}, {}, {}", kVersion, kCompiler, kBuildType), ""},
      {Verdict::kGood, "CUDA and NCCL", kCuda, ""},
      {Verdict::kGood, "LibTorch", TORCH_VERSION, ""},
      judge_single_copy("LibTorch library", loaded_files({"libtorch_cpu.so"}), true),
      judge_single_copy("OpenMP runtime", loaded_files({"libgomp", "libiomp", "libomp.so"}), true),
      judge_single_copy("MPI library", loaded_files({"libmpi.so"}), true),
      judge_single_copy("CUDA runtime", loaded_files({"libcudart.so"}), false),
      judge_single_copy("NCCL", loaded_files({"libnccl.so"}), false),
      judge_protobuf(),
      judge_single_copy("protobuf library", loaded_files({"libprotobuf.so"}), true),
      {Verdict::kGood, "libav", av_version_info(), ""},
      {Verdict::kGood, "LIBXSMM", LIBXSMM_CONFIG_VERSION, ""},
  };
}

}  // namespace sprocket::launcher
