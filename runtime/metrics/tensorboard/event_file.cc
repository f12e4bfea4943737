#include "runtime/metrics/tensorboard/event_file.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstring>
#include <filesystem>

#include "base/error.h"
#include "base/host_name.h"
#include "runtime/metrics/tensorboard/event.pb.h"
#include "runtime/metrics/tensorboard/record.h"

namespace sprocket::tensorboard {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kPrefix = "events.out.tfevents.";

double now_seconds() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

// The largest in the names of the folder's event files; 0 without any.
int64_t newest_seconds(const std::string& folder, std::error_code& error) {
  int64_t newest = 0;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename().string();
    if (!name.starts_with(kPrefix)) continue;
    int64_t seconds = 0;
    std::from_chars(name.data() + kPrefix.size(), name.data() + name.size(), seconds);
    newest = std::max(newest, seconds);
  }
  return newest;
}

Event event_at(int64_t step) {
  Event event;
  event.set_wall_time(now_seconds());
  event.set_step(step);
  return event;
}

}  // namespace

EventFile::EventFile(const std::string& folder, int64_t first_step) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) throw OutputError(fmt::format("{}: cannot be created: {}", folder, error.message()));
  const int64_t newest = newest_seconds(folder, error);
  if (error) throw OutputError(fmt::format("{}: cannot be read: {}", folder, error.message()));
  // A clock may have been set back, and two parts of a run may start within one second.
  const int64_t seconds = std::max(static_cast<int64_t>(now_seconds()), newest + 1);
  path_ = (fs::path(folder) /
           fmt::format("{}{:010}.{}.{}", kPrefix, seconds, own_host_name(), ::getpid()))
              .string();
  descriptor_ = ::open(path_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC, 0666);
  if (descriptor_ < 0) {
    throw OutputError(fmt::format("{}: cannot be created: {}", path_, std::strerror(errno)));
  }
  try {
    Event version = event_at(0);
    version.set_file_version("brain.Event:2");
    append(version.SerializeAsString());
    Event start = event_at(first_step);
    start.mutable_session_log()->set_status(SessionLog::START);
    append(start.SerializeAsString());
  } catch (...) {
    ::close(descriptor_);
    throw;
  }
}

EventFile::~EventFile() { ::close(descriptor_); }

void EventFile::write(int64_t step, const std::vector<Scalar>& scalars) {
  Event event = event_at(step);
  for (const Scalar& scalar : scalars) {
    Summary::Value& value = *event.mutable_summary()->add_value();
    value.set_tag(scalar.tag);
    value.set_simple_value(static_cast<float>(scalar.value));
  }
  append(event.SerializeAsString());
}

void EventFile::write(int64_t step, const Picture& picture) {
  Event event = event_at(step);
  Summary::Value& value = *event.mutable_summary()->add_value();
  value.set_tag(picture.tag);
  SummaryMetadata& metadata = *value.mutable_metadata();
  metadata.mutable_plugin_data()->set_plugin_name("images");
  metadata.set_display_name(picture.tag);
  metadata.set_summary_description(picture.description);
  metadata.set_data_class(DATA_CLASS_BLOB_SEQUENCE);
  Summary::Image& image = *value.mutable_image();
  constexpr int kRgb = 3;
  image.set_width(picture.width);
  image.set_height(picture.height);
  image.set_colorspace(kRgb);
  image.set_encoded_image_string(picture.file.data(), picture.file.size());
  append(event.SerializeAsString());
}

void EventFile::append(const std::string& event) {
  const std::string bytes = record(event);
  size_t done = 0;
  while (done < bytes.size()) {
    const ssize_t count = ::write(descriptor_, bytes.data() + done, bytes.size() - done);
    if (count > 0) {
      done += static_cast<size_t>(count);
    } else if (count == 0 || errno != EINTR) {
      const int code = count == 0 ? EIO : errno;
      // A reader would take half a record for one that is still being written, and wait.
      const bool whole = ::ftruncate(descriptor_, size_) == 0;
      throw OutputError(fmt::format("{}: cannot be written: {}{}", path_, std::strerror(code),
                                    whole ? "" : "; its last record is damaged"));
    }
  }
  size_ += static_cast<int64_t>(bytes.size());
}

}  // namespace sprocket::tensorboard
