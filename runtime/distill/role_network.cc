#include "runtime/distill/role_network.h"

#include <fmt/format.h>

#include "base/error.h"
#include "runtime/checkpoint/latent_description.h"
#include "runtime/checkpoint/start_weights.h"
#include "runtime/jobs/rank_agreement.h"
#include "runtime/jobs/remote_kv_agreement.h"
#include "runtime/plan/job_specs.h"
#include "runtime/train/job_adapters.h"
#include "runtime/train/text_input.h"

namespace sprocket::runtime {
namespace {

Phase phase_of(config::NetworkRole role) {
  switch (role) {
    case config::NetworkRole::kStudent:
      return Phase::kStudent;
    case config::NetworkRole::kTeacher:
      return Phase::kTeacher;
    case config::NetworkRole::kFakeScore:
      return Phase::kFakeScore;
  }
  throw InternalError("a role without a phase");
}

// A checkpoint's weights are of other latents or texts than the job's.
void check_trained_on(const std::string& path, const LatentDescription& theirs,
                      const LatentDescription& ours, const std::string& data_path) {
  const bool same_codec = !ours.has_codec() || (theirs.codec() == ours.codec() &&
                                                theirs.codec_version() == ours.codec_version());
  if (!same_codec || theirs.channels() != ours.channels()) {
    throw InputError(
        fmt::format("{}: trained on latents of {} {} with {} channels, data.path has {} {} with {}",
                    path, theirs.codec(), theirs.codec_version(), theirs.channels(), ours.codec(),
                    ours.codec_version(), ours.channels()));
  }
  check_same_embedder(text_of(ours), data_path, text_of(theirs), path);
}

}  // namespace

RoleNetwork::RoleNetwork(const config::Job& job, config::NetworkRole role,
                         const parallel::Mesh& mesh, const RoleSetup& setup)
    : job_(config::role_job(job, role)) {
  comm::Communicator& world = mesh.world();
  const std::string name = config::name_of(role);
  if (!(mesh_shape(job_) == mesh.shape())) {
    own_mesh_ = std::make_unique<parallel::Mesh>(world.split(0, world.rank(), name),
                                                 mesh_shape(job_), mesh.device());
  }
  agree_on_remote_kv(job_, setup.shape, {setup.threads, setup.memory}, world);
  NetworkUse use;
  use.trained = role != config::NetworkRole::kTeacher;
  const bool has_frozen = !use.trained || trains_adapters(job_);
  run_on_all(world, [&] {
    if (!setup.from_checkpoint || has_frozen) {
      const StartWeights start = find_start_weights(job_, "the " + name);
      job_.mutable_model()->set_weights(start.path);
      if (start.state) {
        trained_on_ = start.state->latent();
        check_trained_on(start.path, *trained_on_, *setup.latent, job_.data().path());
      }
    }
    if (has_frozen) use.frozen = setup.frozen->of(job_, mesh);
    network_ = std::make_unique<Network>(
        job_, own_mesh_ ? *own_mesh_ : mesh, setup.threads,
        setup.from_checkpoint ? Network::Start::kCheckpoint : Network::Start::kFresh, use);
  });
  if (role == config::NetworkRole::kTeacher && job.distillation().teacher().offload()) {
    offloaded_ = std::make_unique<OffloadedWeights>(use.frozen, mesh.timeline());
  }
  denoiser_ = std::make_unique<NetworkDenoiser>(*network_, phase_of(role), offloaded_.get());
}

}  // namespace sprocket::runtime
