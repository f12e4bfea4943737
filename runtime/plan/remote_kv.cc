#include "runtime/plan/remote_kv.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "base/error.h"
#include "runtime/plan/memory_estimate.h"
#include "runtime/plan/units.h"

namespace sprocket::runtime {
namespace {

std::string size(int64_t bytes) { return gibibytes_text(static_cast<double>(bytes)); }

}  // namespace

bool RemoteKvRoom::keeps() const { return kept <= at_hand || fetched >= kept; }

RemoteKvRoom training_room(const config::Job& job, const config::LatentShape& shape,
                           int sequence_rank, int64_t at_hand) {
  const RankShare share = rank_share(job, shape, sequence_rank);
  config::Job variant = job;
  const auto bytes = [&](config::Parallel::RemoteKv value) {
    variant.mutable_parallel()->set_remote_kv(value);
    return estimate_training_memory(variant, share).total();
  };
  return {bytes(config::Parallel::KEEP), bytes(config::Parallel::FETCH_AGAIN), at_hand};
}

std::string RemoteKvChoice::text() const {
  const bool keep = value == config::Parallel::KEEP;
  std::string text = fmt::format("K and V of other ranks are {}",
                                 keep ? "kept for the backward" : "fetched again");
  if (!by_memory) return text;
  if (!keep) {
    return text + fmt::format(": rank {} would need {} to keep them and {} without, of {}", rank,
                              size(room.kept), size(room.fetched), size(room.at_hand));
  }
  return text + fmt::format(": rank {}, which has least room, needs {} of {}", rank,
                            size(room.kept), size(room.at_hand));
}

bool receives_remote_kv(const config::Job& job) {
  return job.parallel().outer() > 1 && job.parallel().strategy() != config::Parallel::RING;
}

bool remote_kv_is_open(const config::Job& job) {
  return job.parallel().remote_kv() == config::Parallel::AUTO && receives_remote_kv(job);
}

RemoteKvChoice choose_remote_kv(std::span<const RemoteKvRoom> ranks) {
  SPROCKET_CHECK(!ranks.empty(), "no rank has said what it has room for");
  RemoteKvChoice choice;
  choice.by_memory = true;
  // A rank that cannot keep them is the reason, whoever has less room and gains nothing.
  const auto least = std::min_element(
      ranks.begin(), ranks.end(), [](const RemoteKvRoom& a, const RemoteKvRoom& b) {
        return std::pair(a.keeps(), a.left()) < std::pair(b.keeps(), b.left());
      });
  choice.rank = static_cast<int>(least - ranks.begin());
  choice.room = *least;
  choice.value = least->keeps() ? config::Parallel::KEEP : config::Parallel::FETCH_AGAIN;
  return choice;
}

}  // namespace sprocket::runtime
