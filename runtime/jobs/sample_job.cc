#include "runtime/jobs/sample_job.h"

#include <fmt/format.h>

#include <filesystem>

#include "base/error.h"
#include "base/log.h"
#include "configs/defaults.h"
#include "parallel/mesh.h"
#include "runtime/checkpoint/architecture.h"
#include "runtime/checkpoint/checkpoint_io.h"
#include "runtime/checkpoint/run_checkpoints.h"
#include "runtime/jobs/run_on_mesh.h"
#include "runtime/plan/job_specs.h"
#include "runtime/sample/sample_set.h"

namespace sprocket::runtime {
namespace {

namespace fs = std::filesystem;

std::unique_ptr<data::LatentDataset> open_data(const config::Job& job) {
  if (job.data().path().empty()) return nullptr;
  if (job.sampling().prompt_size() > 0 && !fs::exists(job.data().path())) return nullptr;
  return std::make_unique<data::LatentDataset>(job.data().path());
}

SampleResult sample(const config::Job& job, const parallel::Mesh& mesh,
                    const SampleOptions& options) {
  comm::Communicator& world = mesh.world();
  const bool first = world.rank() == 0;
  std::string path;
  run_on_all(world, [&] {
    if (!first) return;
    path =
        open_checkpoint(options.checkpoint.empty() ? job.output().directory() : options.checkpoint)
            .path;
  });
  path = broadcast_text(world, path, 0);

  std::optional<Network> network;
  std::unique_ptr<data::LatentDataset> data;
  std::vector<SampleTask> tasks;
  CheckpointState state;
  run_on_all(world, [&] {
    state = read_state(path);
    check_architecture(path, state.job(), job);
    data = open_data(job);
    tasks = plan_samples(job.sampling(), state.latent(), data.get());
    network.emplace(job, mesh, options.threads, Network::Start::kCheckpoint);
    const FlatState weights = network->checkpoint_state();
    load_tensors(path, {weights.tensors(), {}});
    weights.write_back();
  });
  std::optional<Progress> progress;
  if (first) {
    const int64_t own = (std::ssize(tasks) + mesh.shape().data - 1) / mesh.shape().data;
    spdlog::info("sampling from {}", path);
    progress.emplace(options.terminal, own * job.sampling().steps(), job.sampling().steps());
  }
  const std::string folder = options.output.empty()
                                 ? (fs::path(job.output().directory()) / "samples").string()
                                 : options.output;
  SampleResult result;
  result.step = state.step();
  result.samples = make_samples(*network, job.sampling(), state.latent(), tasks, data.get(),
                                state.step(), folder, false, progress ? &*progress : nullptr);
  return result;
}

}  // namespace

config::Job job_of_checkpoint(const std::string& path) {
  config::Job job = read_state(open_checkpoint(path).path).job();
  config::apply_defaults(job);
  return job;
}

SampleResult run_sampling(const config::Job& job, std::unique_ptr<comm::Communicator> world,
                          const SampleOptions& options) {
  return run_on_mesh(std::move(world), mesh_shape(job), options.device,
                     [&](const parallel::Mesh& mesh) { return sample(job, mesh, options); });
}

}  // namespace sprocket::runtime
