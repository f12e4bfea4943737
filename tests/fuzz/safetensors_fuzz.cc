// Any bytes are read as a safetensors file or refused with InputError. What is read covers the file
// exactly, and every tensor can be had.
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <vector>

#include "base/error.h"
#include "models/safetensors/safetensors.h"
#include "tests/fuzz/expect.h"

namespace sprocket::safetensors {
namespace {

// A file in memory, for the reader maps what it reads.
class MemoryFile {
 public:
  MemoryFile() : descriptor_(memfd_create("fuzz", MFD_CLOEXEC)) { FUZZ_EXPECT(descriptor_ >= 0); }
  ~MemoryFile() { close(descriptor_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  void hold(const uint8_t* data, size_t size) {
    FUZZ_EXPECT(ftruncate(descriptor_, static_cast<off_t>(size)) == 0);
    FUZZ_EXPECT(pwrite(descriptor_, data, size, 0) == static_cast<ssize_t>(size));
  }
  std::string path() const { return fmt::format("/proc/self/fd/{}", descriptor_); }

 private:
  const int descriptor_;
};

void check_tensor(const File& file, const TensorInfo& tensor) {
  FUZZ_EXPECT(file.find(tensor.name) == &tensor);
  FUZZ_EXPECT(tensor.elements() == checked_elements(tensor.shape, size_of(tensor.type), "tensor"));
  const std::span<const std::byte> bytes = file.data(tensor);
  FUZZ_EXPECT(bytes.size() == tensor.bytes);
  const std::vector<std::byte> copy(bytes.begin(), bytes.end());
  try {
    FUZZ_EXPECT(file.floats(tensor).size() == static_cast<size_t>(tensor.elements()));
  } catch (const InputError&) {
    FUZZ_EXPECT(tensor.type != ElementType::kF32);
  }
}

void read(const uint8_t* data, size_t size) {
  const Header header = parse_header({reinterpret_cast<const std::byte*>(data), size}, "fuzz");
  uint64_t end = header.data_begin;
  for (const TensorInfo& tensor : header.tensors) {
    FUZZ_EXPECT(header.data_begin + tensor.offset == end);
    end += tensor.bytes;
  }
  FUZZ_EXPECT(end == size);

  static MemoryFile memory;
  memory.hold(data, size);
  const File file = File::open(memory.path());
  FUZZ_EXPECT(file.tensors().size() == header.tensors.size());
  FUZZ_EXPECT(file.metadata() == header.metadata);
  for (const TensorInfo& tensor : file.tensors()) check_tensor(file, tensor);
}

}  // namespace
}  // namespace sprocket::safetensors

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    sprocket::safetensors::read(data, size);
  } catch (const sprocket::InputError&) {
  }
  return 0;
}
