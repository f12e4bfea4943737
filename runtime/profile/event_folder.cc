#include "runtime/profile/event_folder.h"

#include <algorithm>
#include <filesystem>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/error.h"

namespace sprocket::profile {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> event_files(const std::string& folder) {
  std::vector<std::string> files;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(folder, error)) {
    if (entry.path().extension() == ".events") files.push_back(entry.path().string());
  }
  if (error) throw InputError(fmt::format("{}: cannot be read: {}", folder, error.message()));
  std::sort(files.begin(), files.end());
  return files;
}

void check_same_run(const events::Header& a, const events::Header& b, const std::string& file) {
  if (a.world() == b.world() && a.job_identity() == b.job_identity() &&
      a.first_step() == b.first_step() && a.asked_steps() == b.asked_steps()) {
    return;
  }
  throw InputError(fmt::format(
      "{}: of another run than the files before it: {} ranks and steps {} to {} of “{}”, found {} "
      "ranks and steps {} to {} of “{}”",
      file, a.world(), a.first_step(), a.first_step() + a.asked_steps(), a.job_title(), b.world(),
      b.first_step(), b.first_step() + b.asked_steps(), b.job_title()));
}

// "0 to 3, 7"
std::string ranks_text(const std::vector<int>& ranks) {
  std::vector<std::string> parts;
  for (size_t i = 0, end = 0; i < ranks.size(); i = end) {
    end = i + 1;
    while (end < ranks.size() && ranks[end] == ranks[end - 1] + 1) ++end;
    parts.push_back(end - i > 2 ? fmt::format("{} to {}", ranks[i], ranks[end - 1])
                                : fmt::format("{}", ranks[i]));
    if (end - i == 2) parts.push_back(fmt::format("{}", ranks[i + 1]));
  }
  return fmt::format("{}", fmt::join(parts, ", "));
}

}  // namespace

EventFolder::EventFolder(const std::string& folder) {
  const std::vector<std::string> files = event_files(folder);
  for (const std::string& file : files) {
    try {
      EventReader reader(file);
      if (!readers_.empty()) check_same_run(readers_.front().header(), reader.header(), file);
      readers_.push_back(std::move(reader));
    } catch (const InputError& error) {
      if (files.size() == 1) throw;
      notes_.push_back(error.what());
    }
  }
  if (readers_.empty()) {
    throw InputError(fmt::format("{}: no recorded events that can be read; expected files like {}",
                                 folder, event_file_path(folder, 0)));
  }
  world_ = header().world();
  std::vector<bool> there(world_);
  for (const EventReader& reader : readers_) {
    const int rank = reader.header().rank();
    if (rank < 0 || rank >= world_ || there[rank]) {
      throw InputError(
          fmt::format("{}: rank {} of {} twice, or none of them", folder, rank, world_));
    }
    there[rank] = true;
  }
  for (int rank = 0; rank < world_; ++rank) {
    if (!there[rank]) missing_.push_back(rank);
  }
  if (!missing_.empty()) {
    notes_.push_back(fmt::format("no records of {} {}", missing_.size() == 1 ? "rank" : "ranks",
                                 ranks_text(missing_)));
  }
  places_.resize(readers_.size());
}

std::vector<const events::Header*> EventFolder::headers() const {
  std::vector<const events::Header*> headers;
  for (const EventReader& reader : readers_) headers.push_back(&reader.header());
  return headers;
}

std::vector<std::string> EventFolder::hosts() const {
  std::vector<std::string> hosts(world_);
  for (const EventReader& reader : readers_) {
    hosts[reader.header().rank()] = reader.header().host();
  }
  return hosts;
}

RankStep EventFolder::rank_step(size_t i, RecordedStep step) const {
  return {readers_[i].header().rank(), &readers_[i].header(), &readers_[i].names(),
          std::move(step)};
}

std::optional<std::vector<RankStep>> EventFolder::next() {
  std::vector<RankStep> ranks(readers_.size());
  std::vector<bool> at_hand(readers_.size());
  int64_t wanted = -1;
  for (bool equal = false; !equal;) {
    equal = true;
    for (size_t i = 0; i < readers_.size(); ++i) {
      while (!at_hand[i] || ranks[i].step.step < wanted) {
        places_[i] = readers_[i].position();
        auto step = readers_[i].next();
        if (!step) return std::nullopt;
        ranks[i] = rank_step(i, std::move(*step));
        at_hand[i] = true;
      }
      if (ranks[i].step.step > wanted && i > 0) equal = false;
      wanted = std::max(wanted, ranks[i].step.step);
    }
  }
  last_step_ = wanted;
  return ranks;
}

bool EventFolder::complete() {
  bool complete = missing_.empty();
  for (EventReader& reader : readers_) {
    // What is after the last common step is passed over, to see whether it ends well.
    while (reader.next()) {
    }
    if (reader.end()) continue;
    complete = false;
    notes_.push_back(
        reader.damage().empty()
            ? fmt::format("rank {} ended without closing its records; the last step that all ranks "
                          "have is {}",
                          reader.header().rank(), last_step_)
            : reader.damage());
  }
  return complete;
}

std::vector<RankStep> EventFolder::at(const std::vector<int64_t>& places) {
  std::vector<RankStep> ranks;
  for (size_t i = 0; i < readers_.size(); ++i) {
    readers_[i].seek(places[i]);
    auto step = readers_[i].next();
    if (!step) throw InputError(readers_[i].damage());
    ranks.push_back(rank_step(i, std::move(*step)));
  }
  return ranks;
}

}  // namespace sprocket::profile
