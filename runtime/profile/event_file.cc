#include "runtime/profile/event_file.h"

#include <xxhash.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "base/error.h"
#include "runtime/profile/event_records.h"

namespace sprocket::profile {
namespace {

constexpr char kMagic[] = "SPKEVNT2";
constexpr size_t kMagicBytes = sizeof kMagic - 1;

constexpr size_t kFrameBytes = sizeof(uint32_t) + sizeof(uint64_t);

std::string reason() { return errno != 0 ? std::strerror(errno) : "unknown reason"; }

std::ifstream opened(const std::string& path) {
  errno = 0;
  std::ifstream file(path, std::ios::binary);
  if (!file) throw InputError(fmt::format("{}: cannot be read: {}", path, reason()));
  return file;
}

}  // namespace

std::string event_file_path(const std::string& folder, int rank) {
  return fmt::format("{}/rank_{:06}.events", folder, rank);
}

EventWriter::EventWriter(std::string path, const events::Header& header) : path_(std::move(path)) {
  errno = 0;
  file_.open(path_, std::ios::binary | std::ios::trunc);
  if (!file_) throw OutputError(fmt::format("{}: cannot be created: {}", path_, reason()));
  file_.write(kMagic, kMagicBytes);
  events::Record record;
  *record.mutable_header() = header;
  write(record);
}

void EventWriter::append(const RecordedStep& step) {
  events::Record record;
  *record.mutable_step() = pack(step);
  for (; written_names_ < names_.size(); ++written_names_) {
    record.mutable_step()->add_new_names(names_[static_cast<uint32_t>(written_names_)]);
  }
  write(record);
}

void EventWriter::end(const events::End& end) {
  events::Record record;
  *record.mutable_end() = end;
  write(record);
  file_.close();
}

void EventWriter::write(const events::Record& record) {
  const std::string bytes = record.SerializeAsString();
  const auto length = static_cast<uint32_t>(bytes.size());
  const uint64_t hash = XXH3_64bits(bytes.data(), bytes.size());
  errno = 0;
  file_.write(reinterpret_cast<const char*>(&length), sizeof length);
  file_.write(reinterpret_cast<const char*>(&hash), sizeof hash);
  file_.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file_.flush();
  if (!file_) throw OutputError(fmt::format("{}: cannot be written: {}", path_, reason()));
}

EventReader::EventReader(std::string path) : path_(std::move(path)) {
  std::ifstream file = opened(path_);
  std::error_code error;
  size_ = static_cast<int64_t>(std::filesystem::file_size(path_, error));
  if (error) throw InputError(fmt::format("{}: cannot be read: {}", path_, error.message()));
  char magic[kMagicBytes] = {};
  file.read(magic, kMagicBytes);
  if (!file || std::memcmp(magic, kMagic, kMagicBytes) != 0) {
    const bool other_version = file && std::memcmp(magic, kMagic, kMagicBytes - 1) == 0;
    throw InputError(
        other_version
            ? fmt::format("{}: events of version {}, this program reads version {}", path_,
                          magic[kMagicBytes - 1], kMagic[kMagicBytes - 1])
            : fmt::format("{}: no file of recorded events: expected its first bytes to be {}",
                          path_, kMagic));
  }
  position_ = kMagicBytes;
  events::Record record;
  if (!read(record) || !record.has_header()) {
    throw InputError(damage_.empty() ? fmt::format("{}: has no header", path_) : damage_);
  }
  header_ = record.header();
}

bool EventReader::read(events::Record& record) {
  const int64_t at = position_;
  if (at == size_) return false;
  const auto damaged = [&](const std::string& what) {
    damage_ = fmt::format("{}: byte {}: {}", path_, at, what);
    return false;
  };
  std::ifstream file = opened(path_);
  file.seekg(at);
  char frame_bytes[kFrameBytes];
  if (size_ - at < static_cast<int64_t>(kFrameBytes)) return damaged("the file ends in a record");
  file.read(frame_bytes, kFrameBytes);
  uint32_t bytes = 0;
  uint64_t hash = 0;
  std::memcpy(&bytes, frame_bytes, sizeof bytes);
  std::memcpy(&hash, frame_bytes + sizeof bytes, sizeof hash);
  const int64_t left = size_ - at - static_cast<int64_t>(kFrameBytes);
  if (bytes > left) {
    return damaged(fmt::format("a record of {} bytes, of which {} are there", bytes, left));
  }
  std::string buffer(bytes, '\0');
  file.read(buffer.data(), bytes);
  if (!file) return damaged("cannot be read");
  if (XXH3_64bits(buffer.data(), buffer.size()) != hash) {
    return damaged("a record with another checksum than the one it was written with");
  }
  if (!record.ParseFromString(buffer)) return damaged("no record of events");
  position_ = at + static_cast<int64_t>(kFrameBytes) + bytes;
  return true;
}

std::optional<RecordedStep> EventReader::next() {
  if (end_ || !damage_.empty()) return std::nullopt;
  const int64_t at = position_;
  events::Record record;
  if (!read(record)) return std::nullopt;
  if (record.has_end()) {
    end_ = record.end();
    return std::nullopt;
  }
  if (!record.has_step()) {
    damage_ = fmt::format("{}: byte {}: expected a step", path_, at);
    return std::nullopt;
  }
  if (at >= names_known_until_) {
    for (const std::string& name : record.step().new_names()) names_.append(name);
    names_known_until_ = position_;
  }
  try {
    return unpack(record.step(), names_.size(), header_.groups_size());
  } catch (const InputError& error) {
    damage_ = fmt::format("{}: byte {}: {}", path_, at, error.what());
    return std::nullopt;
  }
}

void EventReader::seek(int64_t position) {
  position_ = position;
  end_.reset();
  damage_.clear();
}

}  // namespace sprocket::profile
