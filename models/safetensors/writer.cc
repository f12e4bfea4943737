#include "models/safetensors/writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace sprocket::safetensors {
namespace {

[[noreturn]] void fail(const std::string& path, const char* what) {
  const int error = errno;
  throw OutputError(fmt::format("{}: {}: {}", path, what, std::strerror(error)));
}

}  // namespace

Writer::Writer(const std::string& path, std::vector<TensorSpec> tensors, const Metadata& metadata)
    : path_(path) {
  std::sort(tensors.begin(), tensors.end(), [](const TensorSpec& a, const TensorSpec& b) {
    const size_t size_a = size_of(a.type), size_b = size_of(b.type);
    return size_a != size_b ? size_a > size_b : a.name < b.name;
  });
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  std::string text = header.dump();
  text.pop_back();
  for (const TensorSpec& tensor : tensors) {
    const uint64_t bytes =
        checked_elements(tensor.shape, size_of(tensor.type), tensor.name) * size_of(tensor.type);
    SPROCKET_CHECK(tensor.name != "__metadata__", "reserved for the file's metadata");
    SPROCKET_CHECK(slots_.try_emplace(tensor.name, Slot{data_bytes_, bytes, false}).second,
                   "two tensors are called {}", tensor.name);
    nlohmann::ordered_json entry;
    entry["dtype"] = name_of(tensor.type);
    entry["shape"] = tensor.shape;
    entry["data_offsets"] = {data_bytes_, data_bytes_ + bytes};
    if (text.size() > 1) text += ',';
    text += nlohmann::ordered_json(tensor.name).dump() + ':' + entry.dump();
    data_bytes_ += bytes;
  }
  text += '}';
  text.resize((text.size() + 7) / 8 * 8, ' ');
  if (text.size() > kMaxHeaderBytes) {
    throw OutputError(fmt::format("{}: the header would take {} bytes, the format allows {}", path_,
                                  text.size(), kMaxHeaderBytes));
  }
  const uint64_t length = text.size();
  header_.assign(reinterpret_cast<const char*>(&length), sizeof(length));
  header_ += text;
  data_begin_ = header_.size();
  descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
  if (descriptor_ < 0) fail(path_, "cannot be created");
}

Writer::~Writer() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void Writer::write(std::string_view name, std::span<const std::byte> data) {
  const auto found = slots_.find(std::string(name));
  SPROCKET_CHECK(found != slots_.end(), "no tensor {} was announced", name);
  Slot& slot = found->second;
  SPROCKET_CHECK(!slot.written, "{} is written twice", name);
  SPROCKET_CHECK(slot.bytes == data.size(), "{}: expected {} bytes, found {}", name, slot.bytes,
                 data.size());
  write_at(data, data_begin_ + slot.offset);
  slot.written = true;
}

void Writer::write_at(std::span<const std::byte> data, uint64_t position) {
  while (!data.empty()) {
    const ssize_t count =
        ::pwrite(descriptor_, data.data(), data.size(), static_cast<off_t>(position));
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) fail(path_, "cannot be written");
    position += static_cast<uint64_t>(count);
    data = data.subspan(static_cast<size_t>(count));
  }
}

void Writer::close(bool sync) {
  for (const auto& [name, slot] : slots_) {
    SPROCKET_CHECK(slot.written, "{} was announced and never written", name);
  }
  write_at(std::as_bytes(std::span(header_)), 0);
  if (sync && ::fsync(descriptor_) != 0) fail(path_, "cannot be flushed to the disk");
  const int descriptor = descriptor_;
  descriptor_ = -1;
  if (::close(descriptor) != 0) fail(path_, "cannot be closed");
}

void write_file(const std::string& path, const std::vector<TensorToWrite>& tensors,
                const Metadata& metadata, bool sync) {
  std::vector<TensorSpec> specs;
  specs.reserve(tensors.size());
  for (const TensorToWrite& tensor : tensors) specs.push_back(tensor.spec);
  Writer writer(path, std::move(specs), metadata);
  for (const TensorToWrite& tensor : tensors) writer.write(tensor.spec.name, tensor.data);
  writer.close(sync);
}

}  // namespace sprocket::safetensors
