// Writing a safetensors file tensor by tensor under a temporary name.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "models/safetensors/writer.h"

namespace sprocket::runtime {

// The file takes its name in finish(); without it, nothing of it remains.
class OutputTensors {
 public:
  // Throws OutputError: no such folder, not writable, or `path` is there and no regular file.
  OutputTensors(const std::string& path, std::vector<safetensors::TensorSpec> tensors,
                const safetensors::Metadata& metadata);
  ~OutputTensors();
  OutputTensors(const OutputTensors&) = delete;
  OutputTensors& operator=(const OutputTensors&) = delete;

  void write(const std::string& name, std::span<const std::byte> data) {
    writer_->write(name, data);
  }
  void finish();

 private:
  std::string path_, temporary_;
  std::unique_ptr<safetensors::Writer> writer_;
};

}  // namespace sprocket::runtime
