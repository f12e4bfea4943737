// The file in which a rank records a window of steps (events.proto).
//
// Written step by step, so that what a rank recorded before it died is there; read step by step, so
// that a reader's memory does not grow with the steps. A reader has its file open while it reads a
// step: there may be more ranks than files that a process may open.
#pragma once

#include <cstdint>
#include <fstream>
#include <optional>
#include <string>
#include <vector>

#include "runtime/profile/events.pb.h"
#include "runtime/profile/recorded_step.h"

namespace sprocket::profile {

// "FOLDER/rank_000003.events".
std::string event_file_path(const std::string& folder, int rank);

class EventWriter {
 public:
  // Replaces a file that is there. Throws OutputError, as all of it does.
  EventWriter(std::string path, const events::Header& header);

  NameTable& names() { return names_; }
  // Its intervals and work have numbers of names(). Given to the system at once.
  void append(const RecordedStep& step);
  void end(const events::End& end);

 private:
  void write(const events::Record& record);

  const std::string path_;
  std::ofstream file_;
  NameTable names_;
  size_t written_names_ = 0;
};

class EventReader {
 public:
  // Throws InputError when the file cannot be read, is no such file, or its header is damaged.
  explicit EventReader(std::string path);

  const events::Header& header() const { return header_; }
  const NameTable& names() const { return names_; }

  // The next step; none after the last one. A damaged or truncated record ends the file: damage()
  // then says what and where.
  std::optional<RecordedStep> next();
  const std::optional<events::End>& end() const { return end_; }
  const std::string& damage() const { return damage_; }

  // Where the next record begins, to come back to by seek: names that were read before are kept.
  int64_t position() const { return position_; }
  void seek(int64_t position);

 private:
  bool read(events::Record& record);

  const std::string path_;
  int64_t size_ = 0;
  int64_t position_ = 0;
  events::Header header_;
  NameTable names_;
  std::optional<events::End> end_;
  std::string damage_;
  int64_t names_known_until_ = 0;  // of the file
};

}  // namespace sprocket::profile
