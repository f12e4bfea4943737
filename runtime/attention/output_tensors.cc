#include "runtime/attention/output_tensors.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include <fmt/format.h>

#include "base/error.h"

namespace sprocket::runtime {

OutputTensors::OutputTensors(const std::string& path, std::vector<safetensors::TensorSpec> tensors,
                             const safetensors::Metadata& metadata)
    : path_(path), temporary_(fmt::format("{}.tmp-{}", path, ::getpid())) {
  std::error_code ignored;
  if (std::filesystem::exists(path, ignored) && !std::filesystem::is_regular_file(path, ignored)) {
    throw OutputError(fmt::format("{}: cannot be written: it is there and no regular file", path));
  }
  writer_ = std::make_unique<safetensors::Writer>(temporary_, std::move(tensors), metadata);
}

OutputTensors::~OutputTensors() {
  if (writer_ != nullptr) ::unlink(temporary_.c_str());
}

void OutputTensors::finish() {
  writer_->close(true);
  if (std::rename(temporary_.c_str(), path_.c_str()) != 0) {
    throw OutputError(fmt::format("{}: cannot be written: {}", path_, std::strerror(errno)));
  }
  writer_.reset();
}

}  // namespace sprocket::runtime
