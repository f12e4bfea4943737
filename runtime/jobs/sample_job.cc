#include "runtime/jobs/sample_job.h"

#include <fmt/format.h>

#include <cmath>
#include <filesystem>

#include "base/error.h"
#include "base/log.h"
#include "configs/defaults.h"
#include "configs/roles.h"
#include "parallel/mesh.h"
#include "runtime/checkpoint/architecture.h"
#include "runtime/checkpoint/average.h"
#include "runtime/checkpoint/checkpoint_tensors.h"
#include "runtime/checkpoint/diffusion_check.h"
#include "runtime/checkpoint/durable.h"
#include "runtime/checkpoint/latent_description.h"
#include "runtime/checkpoint/run_checkpoints.h"
#include "runtime/checkpoint/start_weights.h"
#include "runtime/jobs/run_on_mesh.h"
#include "runtime/jobs/run_profile.h"
#include "runtime/metrics/progress.h"
#include "runtime/plan/flops.h"
#include "runtime/plan/job_specs.h"
#include "runtime/sample/noise_schedule.h"
#include "runtime/sample/sample_set.h"
#include "runtime/sample/sampler.h"
#include "runtime/sample/timed_samples.h"
#include "runtime/train/job_adapters.h"
#include "runtime/train/text_input.h"

namespace sprocket::runtime {
namespace {

namespace fs = std::filesystem;

// What data.path holds; neither where it is not there and not needed.
struct Sources {
  std::unique_ptr<data::LatentDataset> data;
  std::unique_ptr<data::PromptSet> prompts;
};

Sources open_sources(const config::Job& job) {
  const std::string& path = job.data().path();
  Sources sources;
  if (path.empty()) return sources;
  if (job.sampling().prompt_size() > 0 && !fs::exists(path)) return sources;
  if (data::is_prompt_set(path)) {
    sources.prompts = std::make_unique<data::PromptSet>(path);
  } else {
    sources.data = std::make_unique<data::LatentDataset>(path);
  }
  return sources;
}

// What two models must share for the same noise and prompts to mean the same.
void check_same_videos(const std::string& path, const LatentDescription& latent,
                       const Reference& reference) {
  const LatentDescription& other = reference.latent;
  std::string problems;
  const auto compare = [&](const char* what, const auto& here, const auto& there) {
    if (here == there) return;
    problems += fmt::format("\n  {}: {} here, {} there", what, here, there);
  };
  compare("latents [C, T, H, W]", data::to_string(shape_of(latent)),
          data::to_string(shape_of(other)));
  compare("codec", latent.codec(), other.codec());
  compare("version of the codec", latent.codec_version(), other.codec_version());
  compare("text embedder", latent.text(), other.text());
  compare("version of the text embedder", latent.text_version(), other.text_version());
  compare("tokens of a text", latent.text_tokens(), other.text_tokens());
  compare("width of a text", latent.text_dim(), other.text_dim());
  if (problems.empty()) return;
  throw InputError(
      fmt::format("{}: cannot make the videos of {}:{}", path, reference.checkpoint, problems));
}

class SampleJob {
 public:
  SampleJob(const config::Job& job, const parallel::Mesh& mesh, const SampleOptions& options)
      : job_(job), mesh_(mesh), world_(mesh.world()), options_(options) {}

  SampleResult run() {
    find_checkpoint();
    run_on_all(world_, [&] { load(); });
    const control::SectionScope section(options_.pulse, control::Section::kSample);
    SampleResult result;
    result.step = state_.step();
    if (options_.profile_only) {
      profile();
    } else if (options_.timed) {
      start_progress();
      result.timed = make_timed_samples(*network_, job_.sampling(), tasks_, state_.step(), watch());
    } else {
      result.samples = sample();
    }
    result.as_reference = {path_, state_.latent(), tasks_};
    return result;
  }

 private:
  bool first() const { return world_.rank() == 0; }

  void find_checkpoint() {
    if (options_.random_weights) return;
    run_on_all(world_, [&] {
      if (!first()) return;
      const std::string& given = options_.checkpoint;
      path_ = open_checkpoint(given.empty() ? job_.output().directory() : given).path;
    });
    path_ = broadcast_text(world_, path_, 0);
  }

  void load() {
    if (!options_.reference) sources_ = open_sources(job_);
    if (options_.random_weights) {
      if (!sources_.data)
        throw ConfigError(
            "data.path: expected a data set, whose latents tell the shape where no checkpoint "
            "does (--resume)");
      *state_.mutable_latent() = describe_latents(sources_.data->index());
    } else {
      state_ = read_state(path_);
      check_architecture(path_, state_.job(), job_);
      if (first()) warn_of_other_diffusion(path_, state_.job(), job_, "sampling");
      if (sources_.prompts) {
        check_same_embedder(sources_.prompts->text(), sources_.prompts->folder(),
                            text_of(state_.latent()), path_);
      }
    }
    if (options_.reference) {
      check_same_videos(path_, state_.latent(), *options_.reference);
      tasks_ = options_.reference->tasks;
    } else {
      tasks_ = plan_samples(job_.sampling(), state_.latent(), sources_.data.get(),
                            sources_.prompts.get());
    }
    config::Job own =
        job_.has_distillation() ? config::role_job(job_, config::NetworkRole::kStudent) : job_;
    if (trains_adapters(own)) {
      own.mutable_model()->set_weights(find_start_weights(own, "the model").path);
    }
    NetworkUse use;
    use.trained = false;
    network_.emplace(own, mesh_, options_.threads,
                     options_.random_weights ? Network::Start::kFresh : Network::Start::kCheckpoint,
                     use);
    if (options_.random_weights) return;
    network_->check_frozen(state_.base_hash(), path_);
    const FlatState weights = network_->checkpoint_state();
    CheckpointTensors wanted;
    wanted.others = {{weights_part(state_), weights.tensors()}};
    load_tensors(path_, wanted);
    weights.write_back();
  }

  void start_progress() {
    if (!first()) return;
    const int64_t own = (std::ssize(tasks_) + mesh_.shape().data - 1) / mesh_.shape().data;
    const int steps = sampling_steps(job_.sampling());
    spdlog::info("sampling from {}", path_);
    progress_.emplace(options_.terminal, own * steps, steps);
  }

  SampleWatch watch() {
    return [this](const SampleProgress& sample) {
      if (options_.pulse) {
        const int64_t tokens = network_->layout(tasks_[sample.task].shape).tokens();
        options_.pulse->step_done(
            {sample.done, sample.total, std::nan(""), tokens * mesh_.shape().data, sample.wall_ns});
      }
      if (!progress_) return;
      progress_->step(sample.done, fmt::format("video {}/{}", sample.video, sample.videos),
                      1e-9 * static_cast<double>(sample.wall_ns));
    };
  }

  std::vector<SampleFiles> sample() {
    start_progress();
    const std::string folder = options_.output.empty()
                                   ? (fs::path(job_.output().directory()) / "samples").string()
                                   : options_.output;
    // Before the work, so that a folder that cannot be written costs none.
    run_on_all(world_, [&] {
      if (first()) create_folder(folder);
    });
    if (options_.pulse) options_.pulse->writes_to(folder);
    return make_samples(*network_, job_.sampling(), state_.latent(), tasks_, sources_.data.get(),
                        state_.step(), folder, false, watch());
  }

  // A step is an evaluation of the network. Replicas of the mesh sample side by side, the same
  // video where there are fewer than replicas.
  void profile() {
    StepCollector collector(mesh_, network_->layers());
    RunProfile window(job_, mesh_, collector, options_.profile_only);
    const size_t number = mesh_.coordinate().data % tasks_.size();
    const SampleTask& task = tasks_[number];
    const SampleRequest request{task.shape,
                                task.text,
                                job_.sampling().seed(),
                                number,
                                std::max<int64_t>(state_.step() - 1, 0),
                                task.negative};
    int64_t evaluations = 0;
    EvaluationHooks hooks;
    hooks.before = [&] { collector.begin_step(window.records_next()); };
    hooks.after = [&](int) {
      collector.collect(network_->slots());
      collector.end_step();
      window.append(facts(task.shape, collector, evaluations++), "sample", task.shape,
                    options_.threads);
    };
    hooks.stop = [&] { return window.full(); };
    while (!window.full()) sample_latent(*network_, job_.sampling(), request, hooks);
    window.finish(memory_use(network_->stores(), mesh_.device(), 0), [](profile::Report&) {});
  }

  StepFacts facts(const data::LatentShape& shape, const StepCollector& collector,
                  int64_t evaluation) {
    double density = 0;
    for (const LayerShares& layer : collector.step_layers()) {
      density += layer.density.mean() / network_->layers();
    }
    world_.all_reduce(comm::Buffer::of(std::span(&density, 1)), comm::ReduceOp::kSum).wait_host();
    const int64_t tokens = network_->layout(shape).tokens();
    const int64_t videos = mesh_.shape().data;
    const int64_t forwards = job_.sampling().guidance() != 1 ? 2 : 1;
    const StepFlops flops =
        forward_step_flops(job_, forwards * videos, tokens, density / world_.size());
    return {evaluation, network_->own_tokens(shape).tokens(), videos * tokens,
            flops.dense_equivalent, flops.executed};
  }

  const config::Job& job_;
  const parallel::Mesh& mesh_;
  comm::Communicator& world_;
  const SampleOptions& options_;
  std::string path_;
  CheckpointState state_;
  Sources sources_;
  std::vector<SampleTask> tasks_;
  std::optional<Network> network_;
  std::optional<Progress> progress_;  // rank 0
};

}  // namespace

config::Job job_of_checkpoint(const std::string& path) {
  config::Job job = read_state(open_checkpoint(path).path).job();
  config::apply_defaults(job);
  return job;
}

SampleResult run_sampling(const config::Job& job, std::unique_ptr<comm::Communicator> world,
                          const SampleOptions& options) {
  return run_on_mesh(
      std::move(world), mesh_shape(job), options.device,
      [&](const parallel::Mesh& mesh) { return SampleJob(job, mesh, options).run(); },
      options.pulse);
}

}  // namespace sprocket::runtime
