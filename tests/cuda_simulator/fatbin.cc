#include "tests/cuda_simulator/fatbin.h"

#include <cctype>
#include <cstdint>
#include <cstring>

#include "tests/cuda_simulator/error.h"

namespace sprocket::cuda_simulator {
namespace {

struct Wrapper {
  uint32_t magic;
  uint32_t version;
  const std::byte* data;
  const void* others;
};

struct Header {
  uint32_t magic;
  uint16_t version;
  uint16_t header_bytes;
  uint64_t bytes;  // of what follows
};

struct Entry {
  uint16_t kind;
  uint16_t version;
  uint32_t header_bytes;
  uint64_t bytes;
  uint32_t compressed_bytes;
  uint32_t unknown;
  uint16_t minor, major;
  uint32_t architecture;
  uint32_t name_offset, name_bytes;
  uint64_t flags;
};

constexpr uint32_t kWrapperMagic = 0x466243b1, kMagic = 0xba55ed50;
constexpr uint16_t kPtx = 1;
constexpr uint64_t kCompressed = 0x2000 | 0x8000;  // by either of two methods

template <typename T>
T read(const std::byte* at) {
  T result;
  std::memcpy(&result, at, sizeof result);
  return result;
}

}  // namespace

std::vector<std::string> ptx_of_fatbin(const void* wrapper) {
  const auto* w = static_cast<const Wrapper*>(wrapper);
  if (w->magic != kWrapperMagic) unsupported("a fatbin wrapper with magic {:#x}", w->magic);
  const auto header = read<Header>(w->data);
  if (header.magic != kMagic) unsupported("a fatbin with magic {:#x}", header.magic);
  std::vector<std::string> result;
  const std::byte* at = w->data + header.header_bytes;
  const std::byte* end = at + header.bytes;
  while (at < end) {
    const auto entry = read<Entry>(at);
    if (entry.kind == kPtx) {
      if (entry.flags & kCompressed) {
        unsupported("the PTX for sm_{} is compressed: compile with --compress-mode=none",
                    entry.architecture);
      }
      const auto* text = reinterpret_cast<const char*>(at + entry.header_bytes);
      result.emplace_back(text, strnlen(text, entry.bytes));
    }
    at += entry.header_bytes + entry.bytes;
  }
  return result;
}

std::string ptx_target(const std::string& text) {
  const size_t at = text.find(".target sm_");
  if (at == std::string::npos) unsupported("PTX without .target");
  const size_t begin = at + std::strlen(".target sm_");
  size_t end = begin;
  while (end < text.size() && std::isalnum(static_cast<unsigned char>(text[end]))) ++end;
  return text.substr(begin, end - begin);
}

int choose_target(const std::vector<std::string>& targets, int capability) {
  int best = -1, best_number = -1;
  for (size_t i = 0; i < targets.size(); ++i) {
    const int number = std::stoi(targets[i]);
    const bool specific = std::isalpha(static_cast<unsigned char>(targets[i].back())) != 0;
    if (specific && number == capability) return static_cast<int>(i);
    if (specific || number > capability || number <= best_number) continue;
    best = static_cast<int>(i);
    best_number = number;
  }
  return best;
}

}  // namespace sprocket::cuda_simulator
