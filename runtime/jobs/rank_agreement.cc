#include "runtime/jobs/rank_agreement.h"

#include <cstdint>
#include <numeric>
#include <span>

#include "base/error.h"
#include "runtime/jobs/device_errors.h"

namespace sprocket::runtime {
namespace {

// The types that a rank can meet alone, by one letter.
enum class ErrorKind : char {
  kConfig = 'c',
  kInput = 'i',
  kOutput = 'o',
  kNonFinite = 'n',
  kCuda = 'd',
  kInternal = 'x',
};

ErrorKind kind_of(const std::exception& error) {
  if (dynamic_cast<const ConfigError*>(&error)) return ErrorKind::kConfig;
  if (dynamic_cast<const InputError*>(&error)) return ErrorKind::kInput;
  if (dynamic_cast<const OutputError*>(&error)) return ErrorKind::kOutput;
  if (dynamic_cast<const NonFiniteError*>(&error)) return ErrorKind::kNonFinite;
  if (dynamic_cast<const CudaError*>(&error)) return ErrorKind::kCuda;
  return ErrorKind::kInternal;
}

template <class E>
class Agreed : public E, public AgreedError {
 public:
  using E::E;
};

[[noreturn]] void throw_agreed(ErrorKind kind, const std::string& what) {
  switch (kind) {
    case ErrorKind::kConfig:
      throw Agreed<ConfigError>(what);
    case ErrorKind::kInput:
      throw Agreed<InputError>(what);
    case ErrorKind::kOutput:
      throw Agreed<OutputError>(what);
    case ErrorKind::kNonFinite:
      throw Agreed<NonFiniteError>(what);
    case ErrorKind::kCuda:
      throw Agreed<CudaError>(what);
    case ErrorKind::kInternal:
      break;
  }
  throw Agreed<InternalError>(what);
}

}  // namespace

std::vector<std::string> gather_text(comm::Communicator& group, const std::string& text) {
  const int size = group.size();
  const std::vector<int64_t> ones(size, 1);
  int64_t own = static_cast<int64_t>(text.size());
  std::vector<int64_t> counts(size);
  group.all_gather(comm::Buffer::of(std::span(&own, 1)), comm::Buffer::of(std::span(counts)), ones)
      .wait_host();
  const int64_t total = std::accumulate(counts.begin(), counts.end(), int64_t{0});
  if (total == 0) return std::vector<std::string>(size);
  std::vector<uint8_t> in(text.begin(), text.end());
  std::vector<uint8_t> out(total);
  group.all_gather(comm::Buffer::of(std::span(in)), comm::Buffer::of(std::span(out)), counts)
      .wait_host();
  std::vector<std::string> texts(size);
  auto from = out.begin();
  for (int r = 0; r < size; ++r) {
    texts[r].assign(from, from + counts[r]);
    from += counts[r];
  }
  return texts;
}

std::string broadcast_text(comm::Communicator& group, const std::string& text, int root) {
  int64_t count = static_cast<int64_t>(text.size());
  group.broadcast(comm::Buffer::of(std::span(&count, 1)), root).wait_host();
  std::vector<uint8_t> bytes(text.begin(), text.end());
  bytes.resize(count);
  group.broadcast(comm::Buffer::of(std::span(bytes)), root).wait_host();
  return {bytes.begin(), bytes.end()};
}

void run_on_all(comm::Communicator& group, const std::function<void()>& work) {
  std::string outcome;
  try {
    with_device_errors(work);
  } catch (const CommError&) {
    throw;
  } catch (const std::exception& error) {
    outcome = static_cast<char>(kind_of(error)) + std::string(error.what());
  }
  for (const std::string& other : gather_text(group, outcome)) {
    if (!other.empty()) throw_agreed(static_cast<ErrorKind>(other.front()), other.substr(1));
  }
}

void throw_agreed_non_finite(const std::string& what) { throw_agreed(ErrorKind::kNonFinite, what); }

}  // namespace sprocket::runtime
