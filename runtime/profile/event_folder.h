// The files of all ranks of a window, read step by step, side by side.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "runtime/profile/event_file.h"
#include "runtime/profile/operation_matching.h"

namespace sprocket::profile {

class EventFolder {
 public:
  // Throws InputError when there is no file that can be read, or files of different runs.
  explicit EventFolder(const std::string& folder);

  int world() const { return world_; }
  const events::Header& header() const { return readers_.front().header(); }
  size_t size() const { return readers_.size(); }  // ranks that are there
  const EventReader& reader(size_t i) const { return readers_[i]; }
  std::vector<const events::Header*> headers() const;
  const std::vector<int>& missing() const { return missing_; }
  // By world rank, empty where unknown.
  std::vector<std::string> hosts() const;

  // The next step that all ranks have; none when some rank's records are at their end. Steps that
  // some have not are passed over.
  std::optional<std::vector<RankStep>> next();
  // Whether all ended with all others; notes say what ended early, or could not be read.
  bool complete();
  const std::vector<std::string>& notes() const { return notes_; }

  // Where the step that next() returned last begins, by rank; and the step that begins there.
  const std::vector<int64_t>& places() const { return places_; }
  std::vector<RankStep> at(const std::vector<int64_t>& places);

 private:
  RankStep rank_step(size_t i, RecordedStep step) const;

  int world_ = 0;
  std::vector<EventReader> readers_;
  std::vector<int64_t> places_;
  std::vector<int> missing_;
  std::vector<std::string> notes_;
  int64_t last_step_ = -1;
};

}  // namespace sprocket::profile
