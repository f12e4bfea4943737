#include "runtime/profile/trace_file.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <map>
#include <nlohmann/json.hpp>
#include <utility>

#include <fmt/format.h>

#include "base/error.h"

namespace sprocket::profile {
namespace {

constexpr size_t kBufferBytes = 1 << 20;

std::string quoted(const std::string& text) {
  return nlohmann::json(text).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

double us(int64_t ns) { return 1e-3 * static_cast<double>(ns); }

// For every operation of a rank the first lane that is free when it starts: what overlaps needs
// lanes of its own.
std::vector<int> lanes_of(const std::vector<RecordedOperation>& operations) {
  std::vector<size_t> order(operations.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    return operations[a].start_ns < operations[b].start_ns;
  });
  std::vector<int64_t> ends;
  std::vector<int> lanes(operations.size());
  for (const size_t i : order) {
    const auto free = std::find_if(ends.begin(), ends.end(),
                                   [&](int64_t end) { return end <= operations[i].start_ns; });
    lanes[i] = static_cast<int>(free - ends.begin());
    if (free == ends.end()) {
      ends.push_back(operations[i].end_ns);
    } else {
      *free = operations[i].end_ns;
    }
  }
  return lanes;
}

}  // namespace

TraceFile::TraceFile(std::string path, int64_t most_events)
    : path_(std::move(path)), most_events_(most_events) {
  errno = 0;
  file_.open(path_, std::ios::binary | std::ios::trunc);
  if (!file_) {
    throw OutputError(fmt::format("{}: cannot be created: {}", path_, std::strerror(errno)));
  }
  buffer_ = "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n";
}

void TraceFile::add_event(const std::string& json) {
  if (!first_) buffer_ += ",\n";
  first_ = false;
  buffer_ += json;
  if (buffer_.size() >= kBufferBytes) write();
}

void TraceFile::write() {
  errno = 0;
  file_.write(buffer_.data(), static_cast<std::streamsize>(buffer_.size()));
  buffer_.clear();
  if (!file_) {
    throw OutputError(fmt::format("{}: cannot be written: {}", path_, std::strerror(errno)));
  }
}

void TraceFile::name_rank(const RankStep& rank) {
  if (!named_.insert(rank.rank).second) return;
  add_event(fmt::format(R"({{"ph":"M","name":"process_name","pid":{},"args":{{"name":{}}}}})",
                        rank.rank,
                        quoted(fmt::format("rank {} ({})", rank.rank, rank.header->host()))));
  add_event(fmt::format(
      R"({{"ph":"M","name":"process_sort_index","pid":{0},"args":{{"sort_index":{0}}}}})",
      rank.rank));
  add_event(fmt::format(
      R"({{"ph":"M","name":"thread_name","pid":{},"tid":0,"args":{{"name":"activities"}}}})",
      rank.rank));
}

void TraceFile::add(std::span<const RankStep> ranks, std::span<const MatchedOperation> operations,
                    std::span<const int64_t> offsets) {
  if (full_) return;
  int64_t wanted = 0;
  size_t fitting = 0;
  for (; fitting < ranks.size(); ++fitting) {
    const RecordedStep& step = ranks[fitting].step;
    const auto events = static_cast<int64_t>(step.intervals.size() + 2 * step.operations.size());
    if (events_ + wanted + events > most_events_) break;
    wanted += events;
  }
  full_ = fitting < ranks.size();
  if (full_ && steps_ > 0) return;
  ranks = ranks.first(fitting);
  if (steps_ == 0 && !ranks.empty()) zero_ns_ = ranks.front().step.begin_ns;
  events_ += wanted;
  ++steps_;
  std::map<const RecordedOperation*, int> lanes;
  for (size_t r = 0; r < ranks.size(); ++r) {
    const RankStep& rank = ranks[r];
    name_rank(rank);
    const auto at = [&](int64_t ns) { return us(ns - offsets[r] - zero_ns_); };
    add_event(fmt::format(
        R"({{"ph":"X","name":"step {}","cat":"step","pid":{},"tid":0,"ts":{:.3f},"dur":{:.3f}}})",
        rank.step.step, rank.rank, at(rank.step.begin_ns), us(rank.step.wall_ns)));
    for (const RecordedInterval& interval : rank.step.intervals) {
      add_event(fmt::format(
          R"({{"ph":"X","name":{},"cat":"{}","pid":{},"tid":0,"ts":{:.3f},"dur":{:.3f},"args":{{"phase":"{}","layer":{}}}}})",
          quoted((*rank.names)[interval.name]), name_of(interval.activity), rank.rank,
          at(interval.begin_ns), us(interval.end_ns - interval.begin_ns), name_of(interval.phase),
          interval.layer));
    }
    const std::vector<int> own = lanes_of(rank.step.operations);
    for (size_t i = 0; i < own.size(); ++i) {
      const RecordedOperation& op = rank.step.operations[i];
      if (!op.completed()) continue;
      lanes[&op] = own[i] + 1;
      add_event(fmt::format(
          R"({{"ph":"X","name":"{} {}","cat":"operation","pid":{},"tid":{},"ts":{:.3f},"dur":{:.3f},"args":{{"group":{},"sequence":{},"phase":"{}","layer":{},"sent_bytes":{}}}}})",
          rank.header->groups(op.group).name(), comm::name_of(op.op), rank.rank, own[i] + 1,
          at(op.start_ns), us(op.duration_ns()),
          quoted(fmt::format("{}[{}]", rank.header->groups(op.group).name(),
                             rank.header->groups(op.group).index())),
          op.sequence, name_of(op.phase), op.layer, op.sent_bytes));
    }
  }
  for (const MatchedOperation& operation : operations) {
    if (!operation.matched) continue;
    std::vector<OperationMember> drawn;
    for (const OperationMember& member : operation.members) {
      if (lanes.contains(member.operation)) drawn.push_back(member);
    }
    if (drawn.size() < 2) continue;
    const int64_t flow = ++flows_;
    for (size_t m = 0; m < drawn.size(); ++m) {
      const RecordedOperation& op = *drawn[m].operation;
      const char* const step = m == 0 ? "s" : m + 1 == drawn.size() ? "f" : "t";
      const int64_t middle = (op.start_ns + op.end_ns) / 2;
      add_event(fmt::format(
          R"({{"ph":"{}","name":"{}","cat":"flow","id":{},"pid":{},"tid":{},"ts":{:.3f},"bp":"e"}})",
          step, comm::name_of(op.op), flow, drawn[m].rank, lanes.at(&op),
          us(middle - offsets[drawn[m].rank_step] - zero_ns_)));
    }
  }
}

void TraceFile::close() {
  buffer_ += "\n]}\n";
  write();
  file_.close();
  if (!file_) {
    throw OutputError(fmt::format("{}: cannot be written: {}", path_, std::strerror(errno)));
  }
}

}  // namespace sprocket::profile
