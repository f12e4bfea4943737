#include "tests/profile/synthetic_window.h"

#include <algorithm>
#include <numeric>

namespace sprocket::testing {

SyntheticWindow::SyntheticWindow(int ranks, std::vector<int64_t> clocks)
    : clocks_(std::move(clocks)),
      now_(ranks),
      ranks_(ranks),
      hosts_(ranks, "host"),
      recorded_(ranks) {
  clocks_.resize(ranks);
  std::iota(ranks_.begin(), ranks_.end(), 0);
  for (int rank = 0; rank < ranks; ++rank) {
    profile::events::Header& header = headers_.emplace_back();
    header.set_rank(rank);
    header.set_world(ranks);
    header.set_data(1);
    header.set_outer(ranks);
    header.set_ulysses(1);
    header.set_host(hosts_[rank]);
    header.set_threads(1);
    profile::events::Group& group = *header.add_groups();
    group.set_name("sp");
    for (const int member : ranks_) group.add_members(member);
    names_.emplace_back();
  }
  begin_step();
}

void SyntheticWindow::begin_step() {
  steps_.clear();
  const int64_t begin = *std::max_element(now_.begin(), now_.end());
  for (const int rank : ranks_) {
    now_[rank] = begin;
    profile::RankStep& step = steps_.emplace_back();
    step.rank = rank;
    step.header = &headers_[rank];
    step.names = &names_[rank];
    step.step.step = step_;
    step.step.begin_ns = begin + clocks_[rank];
  }
}

void SyntheticWindow::activity(int rank, Activity activity, int layer, int64_t ns,
                               const std::string& name) {
  const int64_t begin = now_[rank] + clocks_[rank];
  steps_[rank].step.intervals.push_back({activity, Phase::kForward, static_cast<int16_t>(layer),
                                         names_[rank].number_of(name), begin, begin + ns});
  now_[rank] += ns;
}

void SyntheticWindow::compute(int rank, int layer, int64_t ns, const std::string& kernel) {
  activity(rank, Activity::kCompute, layer, ns, kernel);
}

void SyntheticWindow::density(int rank, int layer, double density) {
  auto& layers = steps_[rank].step.layers;
  if (std::ssize(layers) <= layer) layers.resize(layer + 1);
  layers[layer].density.add(density);
}

void SyntheticWindow::operation(int rank, comm::OpKind op, int64_t end, int last_peer,
                                int64_t alone_ns) {
  profile::RecordedOperation record;
  record.op = op;
  record.sequence = sequence_;
  record.start_ns = now_[rank] + clocks_[rank];
  record.end_ns = end + clocks_[rank];
  record.last_peer = last_peer;
  record.last_alone_ns = alone_ns;
  steps_[rank].step.operations.push_back(record);
}

void SyntheticWindow::collective(int64_t transfer_ns, int slow_rank, int64_t slow_ns,
                                 bool buffered) {
  std::vector<int64_t> came = now_;
  std::sort(came.begin(), came.end());
  const auto last = std::max_element(now_.begin(), now_.end());
  const int late = static_cast<int>(last - now_.begin());
  // Of members other than the late one, how long it was the only one that had not come.
  const int64_t late_alone = came.size() > 1 ? came.back() - came[came.size() - 2] : 0;
  const int64_t end = *last + transfer_ns + slow_ns;
  for (const int rank : ranks_) {
    if (slow_rank >= 0) {
      const bool own = rank == slow_rank;
      operation(rank, comm::OpKind::kAllToAll, own && buffered ? end - slow_ns : end,
                own ? -1 : slow_rank, own ? 0 : slow_ns + (slow_rank == late ? late_alone : 0));
    } else {
      const bool waits = rank != late && late_alone > 0;
      operation(rank, comm::OpKind::kAllToAll, end, waits ? late : -1, waits ? late_alone : 0);
    }
  }
  std::fill(now_.begin(), now_.end(), end);
  if (buffered) now_[slow_rank] -= slow_ns;
  ++sequence_;
}

void SyntheticWindow::behind_compute(int64_t compute_ns, int64_t transfer_ns, int slow_rank,
                                     int64_t slow_ns) {
  const int64_t came = *std::max_element(now_.begin(), now_.end());
  for (const int rank : ranks_) {
    const bool waits = rank != slow_rank;
    const int64_t end = came + transfer_ns + slow_ns;
    operation(rank, comm::OpKind::kAllToAll, end, waits ? slow_rank : -1, waits ? slow_ns : 0);
    compute(rank, 0, compute_ns);
    now_[rank] = std::max(now_[rank], end);
  }
  ++sequence_;
}

void SyntheticWindow::shift(int64_t transfer_ns) {
  const std::vector<int64_t> began = now_;
  const int ranks = static_cast<int>(ranks_.size());
  for (const int rank : ranks_) {
    const int before = (rank + ranks - 1) % ranks;
    const int64_t end = std::max(began[rank], began[before]) + transfer_ns;
    const int64_t alone = std::max<int64_t>(0, began[before] - began[rank]);
    operation(rank, comm::OpKind::kExchange, end, alone > 0 ? before : -1, alone);
    now_[rank] = end;
  }
  ++sequence_;
}

void SyntheticWindow::end_step() {
  for (profile::RankStep& step : steps_) {
    step.step.wall_ns = now_[step.rank] + clocks_[step.rank] - step.step.begin_ns;
  }
  std::vector<const profile::events::Header*> headers;
  for (const auto& header : headers_) headers.push_back(&header);
  sums_.add(steps_, match_operations(profile::GroupTable(headers), steps_), hosts_);
  for (const profile::RankStep& step : steps_) recorded_[step.rank].push_back(step.step);
  ++step_;
  begin_step();
}

void SyntheticWindow::write(const std::string& folder) const {
  for (const int rank : ranks_) {
    profile::events::Header header = headers_[rank];
    header.set_asked_steps(step_);
    profile::EventWriter file(profile::event_file_path(folder, rank), header);
    for (uint32_t name = 0; name < names_[rank].size(); ++name) {
      file.names().number_of(names_[rank][name]);
    }
    for (const profile::RecordedStep& step : recorded_[rank]) file.append(step);
    file.end({});
  }
}

}  // namespace sprocket::testing
