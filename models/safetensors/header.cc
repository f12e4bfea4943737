#include "models/safetensors/header.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>
#include <unordered_set>

#include "base/error.h"

static_assert(std::endian::native == std::endian::little, "the format is little-endian");

namespace sprocket::safetensors {
namespace {

using Json = nlohmann::json;

// Receives the header's JSON token by token, because a parser that builds a document keeps only the
// last of two equal keys. The nesting is at most three levels:
//   {"name": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, "__metadata__": {"k": "v"}}
class HeaderReader : public nlohmann::json_sax<Json> {
 public:
  HeaderReader(Header* header, const std::string& file) : header_(header), file_(file) {}

  bool null() override { return unexpected("null"); }
  bool boolean(bool) override { return unexpected("a boolean"); }
  bool number_integer(number_integer_t value) override {
    return unexpected(fmt::format("the negative number {}", value));
  }
  bool number_float(number_float_t, const string_t& text) override {
    return unexpected(fmt::format("the number {}", text.substr(0, 40)));
  }
  bool binary(binary_t&) override { return unexpected("binary data"); }

  bool number_unsigned(number_unsigned_t value) override {
    if (place_ != Place::kShape && place_ != Place::kOffsets) return unexpected("a number");
    if (value > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      return unexpected(fmt::format("the number {}", value));
    }
    if (place_ == Place::kShape) {
      if (tensor_.shape.size() == 64) fail("has more than 64 dimensions");
      tensor_.shape.push_back(static_cast<int64_t>(value));
    } else {
      if (offsets_.size() == 2) fail("data_offsets: expected 2 numbers, found more");
      offsets_.push_back(value);
    }
    return true;
  }

  bool string(string_t& value) override {
    if (place_ == Place::kMetadata) {
      header_->metadata[key_] = value;
      return true;
    }
    if (place_ != Place::kTensor || key_ != "dtype") return unexpected("a string");
    const auto type = parse_element_type(value);
    if (!type) {
      fail(fmt::format("dtype: found \"{}\", expected one of {}", value.substr(0, 40),
                       known_element_types()));
    }
    tensor_.type = *type;
    return true;
  }

  bool start_object(size_t) override {
    if (place_ == Place::kOutside) {
      place_ = Place::kRoot;
    } else if (place_ == Place::kRoot) {
      place_ = key_ == "__metadata__" ? Place::kMetadata : Place::kTensor;
      tensor_ = {};
      tensor_.name = key_;
      offsets_.clear();
      keys_.clear();
    } else {
      return unexpected("an object");
    }
    return true;
  }

  bool key(string_t& name) override {
    key_ = name;
    if (place_ == Place::kRoot) {
      tensor_.name = name;
      if (!names_.insert(name).second) fail("appears twice");
      return true;
    }
    if (!keys_.insert(name).second) fail(fmt::format("key \"{}\" appears twice", name));
    if (place_ == Place::kTensor && name != "dtype" && name != "shape" && name != "data_offsets") {
      fail(fmt::format("unknown key \"{}\", expected dtype, shape and data_offsets",
                       name.substr(0, 40)));
    }
    return true;
  }

  bool start_array(size_t) override {
    if (place_ != Place::kTensor || key_ == "dtype") return unexpected("an array");
    place_ = key_ == "shape" ? Place::kShape : Place::kOffsets;
    return true;
  }

  bool end_array() override {
    place_ = Place::kTensor;
    return true;
  }

  bool end_object() override {
    if (place_ == Place::kTensor) {
      finish_tensor();
      place_ = Place::kRoot;
    } else if (place_ == Place::kMetadata) {
      place_ = Place::kRoot;
    } else {
      place_ = Place::kOutside;
    }
    return true;
  }

  bool parse_error(size_t position, const std::string&,
                   const nlohmann::detail::exception& error) override {
    throw InputError(fmt::format("{}: the header is not valid JSON at byte {}: {}", file_,
                                 position + 8, error.what()));
  }

 private:
  enum class Place { kOutside, kRoot, kMetadata, kTensor, kShape, kOffsets };

  [[noreturn]] void fail(const std::string& text) const {
    throw InputError(
        fmt::format("{}: tensor \"{}\": {}", file_, tensor_.name.substr(0, 200), text));
  }

  bool unexpected(const std::string& found) const {
    switch (place_) {
      case Place::kOutside:
        throw InputError(
            fmt::format("{}: the header is not a JSON object, found {}", file_, found));
      case Place::kRoot:
        fail(fmt::format("expected an object, found {}", found));
      case Place::kMetadata:
        throw InputError(fmt::format("{}: __metadata__ key \"{}\": expected a string, found {}",
                                     file_, key_.substr(0, 200), found));
      case Place::kTensor:
      case Place::kShape:
      case Place::kOffsets:
        fail(fmt::format("{}: expected {}, found {}", key_,
                         key_ == "dtype" ? "a string" : "an array of numbers in 0..2^63-1", found));
    }
    return false;
  }

  void finish_tensor() {
    for (const char* needed : {"dtype", "shape", "data_offsets"}) {
      if (!keys_.contains(needed)) fail(fmt::format("\"{}\" is missing", needed));
    }
    if (offsets_.size() != 2) {
      fail(fmt::format("data_offsets: expected 2 numbers, found {}", offsets_.size()));
    }
    if (offsets_[1] < offsets_[0]) {
      fail(
          fmt::format("data_offsets: the end {} is before the begin {}", offsets_[1], offsets_[0]));
    }
    tensor_.offset = offsets_[0];
    tensor_.bytes = offsets_[1] - offsets_[0];
    const uint64_t expected =
        checked_elements(tensor_.shape, size_of(tensor_.type),
                         fmt::format("{}: tensor \"{}\"", file_, tensor_.name.substr(0, 200))) *
        size_of(tensor_.type);
    if (tensor_.bytes != expected) {
      fail(fmt::format("{} x shape [{}] takes {} bytes, but data_offsets [{}, {}] hold {}",
                       name_of(tensor_.type), fmt::join(tensor_.shape, ", "), expected, offsets_[0],
                       offsets_[1], tensor_.bytes));
    }
    header_->tensors.push_back(std::move(tensor_));
  }

  Header* header_;
  const std::string& file_;
  Place place_ = Place::kOutside;
  std::string key_;
  TensorInfo tensor_;
  std::vector<uint64_t> offsets_;
  std::unordered_set<std::string> names_;
  std::unordered_set<std::string> keys_;  // of the object being read
};

void check_ranges(Header* header, uint64_t data_bytes, const std::string& file) {
  std::sort(header->tensors.begin(), header->tensors.end(),
            [](const TensorInfo& a, const TensorInfo& b) {
              return std::tie(a.offset, a.bytes, a.name) < std::tie(b.offset, b.bytes, b.name);
            });
  uint64_t end = 0;
  for (const TensorInfo& tensor : header->tensors) {
    if (tensor.offset != end) {
      throw InputError(fmt::format(
          "{}: tensor \"{}\": its data begin at byte {}, expected {} ({})", file,
          tensor.name.substr(0, 200), tensor.offset, end,
          tensor.offset < end ? "it overlaps the tensor before it" : "a hole lies before it"));
    }
    end += tensor.bytes;
    if (end > data_bytes) {
      throw InputError(
          fmt::format("{}: tensor \"{}\": its data end at byte {}, but the file has "
                      "only {} bytes of data (is it truncated?)",
                      file, tensor.name.substr(0, 200), end, data_bytes));
    }
  }
  if (end != data_bytes) {
    throw InputError(
        fmt::format("{}: the tensors end at byte {} of the data, but the file has {} "
                    "bytes of data",
                    file, end, data_bytes));
  }
}

}  // namespace

int64_t checked_elements(std::span<const int64_t> shape, size_t element_bytes,
                         const std::string& what) {
  constexpr int64_t kMax = std::numeric_limits<int64_t>::max();
  int64_t bytes = static_cast<int64_t>(element_bytes);
  bool overflow = false;
  bool empty = false;
  for (const int64_t dim : shape) {
    if (dim < 0) {
      throw InputError(
          fmt::format("{}: shape [{}] has a negative dimension", what, fmt::join(shape, ", ")));
    }
    empty = empty || dim == 0;
    overflow = overflow || (dim != 0 && bytes > kMax / dim);
    bytes = overflow || dim == 0 ? bytes : bytes * dim;
  }
  if (overflow) {
    throw InputError(fmt::format("{}: shape [{}] of {}-byte elements takes more than 2^63 bytes",
                                 what, fmt::join(shape, ", "), element_bytes));
  }
  return empty ? 0 : bytes / static_cast<int64_t>(element_bytes);
}

Header parse_header(std::span<const std::byte> bytes, const std::string& file) {
  if (bytes.size() < 8) {
    throw InputError(fmt::format("{}: expected a safetensors file of at least 8 bytes, found {}",
                                 file, bytes.size()));
  }
  uint64_t length = 0;
  std::memcpy(&length, bytes.data(), sizeof(length));
  if (length > kMaxHeaderBytes) {
    throw InputError(
        fmt::format("{}: the header claims {} bytes, the limit is {}; this is no "
                    "safetensors file or it is damaged",
                    file, length, kMaxHeaderBytes));
  }
  if (length > bytes.size() - 8) {
    throw InputError(
        fmt::format("{}: the header claims {} bytes, but the file has only {} after "
                    "the length (is it truncated?)",
                    file, length, bytes.size() - 8));
  }
  const char* text = reinterpret_cast<const char*>(bytes.data()) + 8;
  if (length == 0 || text[0] != '{') {
    throw InputError(fmt::format(
        "{}: expected a header that begins with '{{', found {}", file,
        length == 0 ? "an empty one (was the file never finished?)" : "something else"));
  }
  Header header;
  HeaderReader reader(&header, file);
  Json::sax_parse(text, text + length, &reader);
  header.data_begin = 8 + length;
  check_ranges(&header, bytes.size() - header.data_begin, file);
  return header;
}

}  // namespace sprocket::safetensors
