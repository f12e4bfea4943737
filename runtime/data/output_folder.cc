#include "runtime/data/output_folder.h"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "base/error.h"

namespace sprocket::data {
namespace {

namespace fs = std::filesystem;

void sync_path(const std::string& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  int error = descriptor < 0 || ::fsync(descriptor) != 0 ? errno : 0;
  if (descriptor >= 0) ::close(descriptor);
  if (error != 0) {
    throw OutputError(
        fmt::format("{}: cannot be flushed to the disk: {}", path, std::strerror(error)));
  }
}

std::string parent_of(const std::string& path) {
  const std::string parent = fs::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

}  // namespace

OutputFolder::OutputFolder(const std::string& path)
    : path_(fs::path(path + "/").parent_path().lexically_normal().string()),
      temporary_(fmt::format("{}.tmp-{}", path_, ::getpid())) {
  std::error_code error;
  if (fs::exists(path_, error)) {
    if (!fs::is_directory(path_, error) || !fs::is_empty(path_, error)) {
      throw OutputError(fmt::format(
          "{}: the output folder already holds something; remove it or choose another --output",
          path_));
    }
  }
  fs::create_directories(parent_of(path_), error);
  if (!error) fs::remove_all(temporary_, error);
  if (!error) fs::create_directory(temporary_, error);
  if (error) {
    throw OutputError(
        fmt::format("{}: the output folder cannot be created: {}", path_, error.message()));
  }
}

OutputFolder::~OutputFolder() {
  std::error_code ignored;
  if (!committed_) fs::remove_all(temporary_, ignored);
}

void OutputFolder::commit() {
  for (const auto& entry : fs::directory_iterator(temporary_)) sync_path(entry.path().string());
  sync_path(temporary_);
  if (std::rename(temporary_.c_str(), path_.c_str()) != 0) {
    throw OutputError(fmt::format("{}: the finished folder {} cannot be renamed to it: {}", path_,
                                  temporary_, std::strerror(errno)));
  }
  committed_ = true;
  sync_path(parent_of(path_));
}

}  // namespace sprocket::data
