#include "models/safetensors/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/error.h"

namespace sprocket::safetensors {

class File::Mapping {
 public:
  explicit Mapping(const std::string& path) {
    const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) fail(path, errno);
    struct stat status {};
    int error = ::fstat(descriptor, &status) == 0 ? 0 : errno;
    if (error == 0 && !S_ISREG(status.st_mode)) error = S_ISDIR(status.st_mode) ? EISDIR : EINVAL;
    if (error == 0 && status.st_size > 0) {
      size_ = static_cast<size_t>(status.st_size);
      address_ = ::mmap(nullptr, size_, PROT_READ, MAP_PRIVATE, descriptor, 0);
      if (address_ == MAP_FAILED) error = errno;
    }
    ::close(descriptor);
    if (error != 0) fail(path, error);
  }
  ~Mapping() {
    if (size_ > 0) ::munmap(address_, size_);
  }
  Mapping(const Mapping&) = delete;
  Mapping& operator=(const Mapping&) = delete;

  std::span<const std::byte> bytes() const {
    return {static_cast<const std::byte*>(address_), size_};
  }

 private:
  [[noreturn]] static void fail(const std::string& path, int error) {
    throw InputError(
        fmt::format("{}: cannot be read as a safetensors file: {}", path, std::strerror(error)));
  }

  void* address_ = nullptr;
  size_t size_ = 0;
};

File File::open(const std::string& path) { return File(path, std::make_unique<Mapping>(path)); }

File::File(std::string path, std::unique_ptr<Mapping> mapping)
    : path_(std::move(path)),
      mapping_(std::move(mapping)),
      header_(parse_header(mapping_->bytes(), path_)) {
  by_name_.reserve(header_.tensors.size());
  for (size_t i = 0; i < header_.tensors.size(); ++i) by_name_[header_.tensors[i].name] = i;
}

File::File(File&&) noexcept = default;
File& File::operator=(File&&) noexcept = default;
File::~File() = default;

const TensorInfo* File::find(std::string_view name) const {
  const auto found = by_name_.find(name);
  return found == by_name_.end() ? nullptr : &header_.tensors[found->second];
}

const TensorInfo& File::at(std::string_view name) const {
  const TensorInfo* tensor = find(name);
  if (tensor == nullptr) {
    throw InputError(fmt::format("{}: expected a tensor \"{}\", found {} others and not this one",
                                 path_, name, header_.tensors.size()));
  }
  return *tensor;
}

std::span<const std::byte> File::data(const TensorInfo& tensor) const {
  return mapping_->bytes().subspan(header_.data_begin + tensor.offset, tensor.bytes);
}

std::vector<float> File::floats(const TensorInfo& tensor) const {
  std::vector<float> values(static_cast<size_t>(tensor.elements()));
  if (!convert_to_float(tensor.type, data(tensor), values)) {
    throw InputError(
        fmt::format("{}: tensor \"{}\": expected a floating type (F64, F32, F16 or BF16), found {}",
                    path_, tensor.name, name_of(tensor.type)));
  }
  return values;
}

}  // namespace sprocket::safetensors
