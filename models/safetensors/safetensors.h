// Reading safetensors files (the format is documented in header.h).
//
//   const auto file = safetensors::File::open("weights.safetensors");
//   for (const auto& tensor : file.tensors()) use(tensor, file.data(tensor));
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "models/safetensors/header.h"

namespace sprocket::safetensors {

// A file mapped read-only. Movable; spans from data() live as long as the File they came from (or
// one it was moved to). Reading data of a file that somebody else truncates meanwhile is undefined.
class File {
 public:
  // Throws InputError when the file cannot be opened (with the system's reason) or parse_header
  // refuses it.
  static File open(const std::string& path);

  File(File&&) noexcept;
  File& operator=(File&&) noexcept;
  ~File();

  const std::string& path() const { return path_; }
  const Metadata& metadata() const { return header_.metadata; }
  // In the order of their data.
  const std::vector<TensorInfo>& tensors() const { return header_.tensors; }
  // Null when there is none of that name.
  const TensorInfo* find(std::string_view name) const;
  // Throws InputError naming file, tensor and how many others there are.
  const TensorInfo& at(std::string_view name) const;

  // The tensor's bytes in row-major order. Not necessarily aligned for its type.
  std::span<const std::byte> data(const TensorInfo& tensor) const;
  // A copy as float. Throws InputError unless the type is F64, F32, F16 or BF16.
  std::vector<float> floats(const TensorInfo& tensor) const;

 private:
  class Mapping;
  File(std::string path, std::unique_ptr<Mapping> mapping);

  std::string path_;
  std::unique_ptr<Mapping> mapping_;
  Header header_;
  std::unordered_map<std::string_view, size_t> by_name_;  // views into header_'s heap strings
};

}  // namespace sprocket::safetensors
