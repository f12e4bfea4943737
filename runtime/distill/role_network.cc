#include "runtime/distill/role_network.h"

#include <fmt/format.h>

#include <filesystem>

#include "base/error.h"
#include "base/log.h"
#include "runtime/checkpoint/architecture.h"
#include "runtime/checkpoint/latent_description.h"
#include "runtime/checkpoint/run_checkpoints.h"
#include "runtime/jobs/rank_agreement.h"
#include "runtime/jobs/remote_kv_agreement.h"
#include "runtime/plan/job_specs.h"
#include "runtime/train/text_input.h"

namespace sprocket::runtime {
namespace {

namespace fs = std::filesystem;

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

void check_latent(const std::string& path, const LatentDescription& theirs,
                  const LatentDescription& ours) {
  const bool same_codec = !ours.has_codec() || (theirs.codec() == ours.codec() &&
                                                theirs.codec_version() == ours.codec_version());
  if (same_codec && theirs.channels() == ours.channels()) return;
  throw InputError(
      fmt::format("{}: trained on latents of {} {} with {} channels, data.path has {} {} with {}",
                  path, theirs.codec(), theirs.codec_version(), theirs.channels(), ours.codec(),
                  ours.codec_version(), ours.channels()));
}

// Where a run or a checkpoint is given: its weights, when they fit.
struct Weights {
  std::string path;
  std::optional<LatentDescription> trained_on;
};

Weights weights_of(const config::Job& job, const std::string& role,
                   const LatentDescription& latent) {
  const std::string& given = job.model().weights();
  if (given.empty() || !fs::is_directory(given)) return {given, std::nullopt};
  const bool may_be_run =
      fs::exists(fs::path(given) / "state.txtpb") || !list_checkpoints(given).empty();
  if (!may_be_run) return {given, std::nullopt};  // a folder of safetensors
  const std::string path = open_checkpoint(given).path;
  const CheckpointState state = read_state(path);
  const std::vector<std::string> differences = model_differences(state.job(), job);
  if (!differences.empty()) {
    throw InputError(fmt::format("{}: no weights for the {}, whose model differs:\n  {}", path,
                                 role, fmt::join(differences, "\n  ")));
  }
  check_latent(path, state.latent(), latent);
  check_same_embedder(text_of(latent), job.data().path(), text_of(state.latent()), path);
  if (state.job().flow().shift() != job.flow().shift()) {
    spdlog::warn("{}: trained with flow.shift {}, the {} continues with {}", path,
                 state.job().flow().shift(), role, job.flow().shift());
  }
  return {(fs::path(path) / "model").string(), state.latent()};
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
  run_on_all(world, [&] {
    if (!setup.from_checkpoint) {
      Weights weights = weights_of(job_, name, *setup.latent);
      job_.mutable_model()->set_weights(weights.path);
      trained_on_ = std::move(weights.trained_on);
    }
    network_ = std::make_unique<Network>(
        job_, own_mesh_ ? *own_mesh_ : mesh, setup.threads,
        setup.from_checkpoint ? Network::Start::kCheckpoint : Network::Start::kFresh);
  });
  denoiser_ = std::make_unique<NetworkDenoiser>(*network_, phase_of(role));
}

}  // namespace sprocket::runtime
