#include "runtime/jobs/remote_kv_agreement.h"

#include <span>
#include <vector>

#include "base/log.h"
#include "parallel/mesh.h"
#include "runtime/plan/job_specs.h"

namespace sprocket::runtime {
namespace {

std::vector<RemoteKvRoom> gather(const RemoteKvRoom& room, comm::Communicator& world) {
  constexpr int kFigures = 3;
  std::vector<int64_t> mine{room.kept, room.fetched, room.at_hand};
  std::vector<int64_t> all(int64_t{kFigures} * world.size());
  const std::vector<int64_t> counts(world.size(), kFigures);
  world.all_gather(comm::Buffer::of(std::span(mine)), comm::Buffer::of(std::span(all)), counts)
      .wait_host();
  std::vector<RemoteKvRoom> ranks;
  for (size_t at = 0; at < all.size(); at += kFigures) {
    ranks.push_back({all[at], all[at + 1], all[at + 2]});
  }
  return ranks;
}

}  // namespace

RemoteKvChoice agree_on_remote_kv(config::Job& job, const data::LatentShape& shape,
                                  const RankResources& own, comm::Communicator& world) {
  RemoteKvChoice choice;
  if (remote_kv_is_open(job)) {
    const parallel::MeshShape mesh = mesh_shape(job);
    const config::LatentShape cells{static_cast<int>(shape.c), static_cast<int>(shape.t),
                                    static_cast<int>(shape.h), static_cast<int>(shape.w)};
    // Every thread of the attention kernel has memory of its own.
    config::Job subject = job;
    subject.mutable_compute()->set_threads(own.threads);
    choice = choose_remote_kv(
        gather(training_room(subject, cells, world.rank() % mesh.sequence(), own.memory), world));
    if (world.rank() == 0) spdlog::info("{} (parallel.remote_kv: AUTO)", choice.text());
  } else if (job.parallel().remote_kv() != config::Parallel::AUTO) {
    choice.value = job.parallel().remote_kv();
  }
  job.mutable_parallel()->set_remote_kv(choice.value);
  return choice;
}

}  // namespace sprocket::runtime
