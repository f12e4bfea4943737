// Writing safetensors files: equal input gives equal bytes.
//
// Data are laid out by descending element size, then by name, behind a header padded with spaces to
// a multiple of 8 bytes, so that every tensor is aligned for its type.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "models/safetensors/header.h"

namespace sprocket::safetensors {

struct TensorSpec {
  std::string name;
  ElementType type = ElementType::kF32;
  std::vector<int64_t> shape;
};

// Writes one tensor at a time, in any order, so that a model never has to be in memory twice. The
// header is written last: a file whose writer did not reach close() is refused by every reader.
class Writer {
 public:
  // Creates or truncates `path`. Throws InternalError for duplicate names; OutputError with the
  // system's reason when the file cannot be created.
  Writer(const std::string& path, std::vector<TensorSpec> tensors, const Metadata& metadata = {});
  // Does not finish the file; close() does.
  ~Writer();
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;

  // Row-major little-endian elements, all of the tensor, once. Throws OutputError (disk full, …).
  void write(std::string_view name, std::span<const std::byte> data);
  // Writes the header, optionally waits until the disk holds the file, and closes it. All tensors
  // must have been written. Throws OutputError.
  void close(bool sync);

  // Bytes of the finished file.
  uint64_t file_bytes() const { return data_begin_ + data_bytes_; }

 private:
  struct Slot {
    uint64_t offset;
    uint64_t bytes;
    bool written;
  };
  void write_at(std::span<const std::byte> data, uint64_t position);

  std::string path_;
  int descriptor_ = -1;
  std::string header_;
  uint64_t data_begin_ = 0;
  uint64_t data_bytes_ = 0;
  std::unordered_map<std::string, Slot> slots_;
};

struct TensorToWrite {
  TensorSpec spec;
  std::span<const std::byte> data;
};

// A whole file at once.
void write_file(const std::string& path, const std::vector<TensorToWrite>& tensors,
                const Metadata& metadata = {}, bool sync = false);

}  // namespace sprocket::safetensors
