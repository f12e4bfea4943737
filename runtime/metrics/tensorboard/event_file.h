// One event file, which TensorBoard shows while it grows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace sprocket::tensorboard {

// A point of a curve; of `value` readers see the nearest float. Texts are UTF-8. What stands before
// the first / of a tag is the group that it is shown in.
struct Scalar {
  std::string tag;
  double value = 0;
};

struct Picture {
  std::string tag;
  std::string description;  // Markdown
  int width = 0;
  int height = 0;
  std::span<const std::byte> file;  // a PNG (animated or not), JPEG or GIF of RGB colours
};

class EventFile {
 public:
  // Creates `folder` if it is absent and in it
  //   events.out.tfevents.<seconds since 1970>.<host>.<process>
  // whose name sorts behind those of all event files that are there, since readers take them in
  // that order, as parts of one run. Points of earlier files at `first_step` or later are void from
  // now on: the run makes those steps again. Throws OutputError.
  EventFile(const std::string& folder, int64_t first_step);
  ~EventFile();
  EventFile(const EventFile&) = delete;
  EventFile& operator=(const EventFile&) = delete;

  const std::string& path() const { return path_; }

  // Written through at once, all points of a call as one record. After an error the file ends with
  // the last whole record. Throws OutputError.
  void write(int64_t step, const std::vector<Scalar>& scalars);
  void write(int64_t step, const Picture& picture);

 private:
  void append(const std::string& event);

  std::string path_;
  int descriptor_ = -1;
  int64_t size_ = 0;  // of the whole records
};

}  // namespace sprocket::tensorboard
