#include "runtime/jobs/train_job.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>

#include "base/error.h"
#include "base/log.h"
#include "parallel/mesh.h"
#include "runtime/checkpoint/architecture.h"
#include "runtime/checkpoint/average.h"
#include "runtime/checkpoint/checkpoint_tensors.h"
#include "runtime/checkpoint/diffusion_check.h"
#include "runtime/checkpoint/latent_description.h"
#include "runtime/checkpoint/start_weights.h"
#include "runtime/jobs/job_saves.h"
#include "runtime/jobs/remote_kv_agreement.h"
#include "runtime/jobs/run_folder.h"
#include "runtime/jobs/run_on_mesh.h"
#include "runtime/jobs/run_profile.h"
#include "runtime/media/output_file.h"
#include "runtime/metrics/json_lines.h"
#include "runtime/metrics/metrics_file.h"
#include "runtime/metrics/progress.h"
#include "runtime/metrics/run_board.h"
#include "runtime/plan/job_specs.h"
#include "runtime/sample/sample_set.h"
#include "runtime/train/data_check.h"
#include "runtime/train/ema.h"
#include "runtime/train/job_adapters.h"
#include "runtime/train/trainer.h"
#include "runtime/train/validator.h"

namespace sprocket::runtime {
namespace {

namespace fs = std::filesystem;

// Losses of latents in other units would mean nothing.
void check_same_latents(const data::LatentDataset& training, const data::LatentDataset& held_out) {
  const data::CodecInfo &one = training.index().codec, &other = held_out.index().codec;
  if (one.name == other.name && one.channels == other.channels) return;
  throw ConfigError(fmt::format("training.validation.path: {} has latents of {}, data.path has {}",
                                held_out.folder(), other.name, one.name));
}

class TrainJob {
 public:
  TrainJob(const config::Job& job, const parallel::Mesh& mesh, const TrainOptions& options)
      : job_(job), options_(options), mesh_(mesh), world_(mesh.world()) {}

  TrainResult run() {
    run_on_all(world_, [&] {
      data_.emplace(job_.data().path());
      check_data(job_, *data_);
      if (job_.training().validation().path().empty()) return;
      held_out_.emplace(job_.training().validation().path());
      check_data(job_, *held_out_);
      check_same_latents(*data_, *held_out_);
      held_out_->normalise_by(*data_);
    });
    if (options_.profile_only) {
      find_start();
    } else {
      claim_folder();
    }
    config::Job decided = job_;
    remote_kv_ = agree_on_remote_kv(decided, data_->largest_shape(),
                                    {options_.threads, options_.memory}, world_);
    run_on_all(world_, [&] {
      const bool fresh = start_path_.empty();
      if (fresh || trains_adapters(job_)) {
        decided.mutable_model()->set_weights(find_start_weights(decided, "the model").path);
      }
      network_.emplace(decided, mesh_, options_.threads,
                       fresh ? Network::Start::kFresh : Network::Start::kCheckpoint);
      optimizer_.emplace(job_.training().optimizer(), network_->parameters(), options_.threads);
      if (job_.training().ema_decay() > 0) {
        ema_.emplace(network_->parameters(), job_.training().ema_decay());
      }
      if (!start_path_.empty()) load(start_path_);
      if (first() && !options_.profile_only) {
        open_metrics();
        progress_.emplace(options_.terminal, job_.training().steps(), job_.output().log_interval());
      }
    });
    prepare_state();
    StepCollector collector(mesh_, network_->layers());
    Trainer trainer(*network_, *optimizer_, average(), *data_, collector);
    profile_.emplace(job_, mesh_, collector, options_.profile_only);
    result_.first_step = state_.step();
    saved_step_ = start_path_.empty() ? -1 : state_.step();
    if (options_.profile_only) {
      profile(trainer);
    } else {
      train(trainer);
    }
    progress_.reset();
    result_.last_step = state_.step();
    if (profile_->open()) finish_window();
    if (options_.print_report) profile_->print();
    return result_;
  }

 private:
  bool first() const { return world_.rank() == 0; }
  Ema* average() { return ema_ ? &*ema_ : nullptr; }
  std::string path_of(const std::string& name) const {
    return (fs::path(job_.output().directory()) / name).string();
  }

  void train(Trainer& trainer) {
    const control::SectionScope section(options_.pulse, control::Section::kStep);
    saves_.emplace(
        world_, job_.output().directory(), save_policy(job_.output()),
        [this] {
          if (progress_) progress_->pause();
        },
        options_.pulse);
    saves_->guard([&] {
      if (state_.step() == 0 && job_.training().validation().interval() > 0) validate();
      while (state_.step() < job_.training().steps() && result_.exit_code == ExitCode::kOk) {
        one_step(trainer);
      }
      if (saved_step_ != state_.step()) save();
      saves_->finish();
    });
    result_.checkpoint = saves_->newest();
  }

  // Steps after training.steps are as good as any.
  void profile(Trainer& trainer) {
    const control::SectionScope section(options_.pulse, control::Section::kStep);
    while (!profile_->done() && result_.exit_code == ExitCode::kOk) {
      const StepOutcome outcome = recorded_step(trainer);
      if (outcome.stop_requested) result_.exit_code = ExitCode::kInterrupted;
      if (profile_->full()) finish_window();
    }
  }

  void find_start() {
    std::string path;
    run_on_all(world_, [&] {
      if (!first() || options_.resume == "none") return;
      path =
          open_checkpoint(options_.resume == "latest" ? job_.output().directory() : options_.resume)
              .path;
    });
    start_path_ = broadcast_text(world_, path, 0);
  }

  void open_metrics() {
    // The validation before the first step is made again too.
    const int64_t last_step = state_.step() > 0 ? state_.step() : -1;
    metrics_.emplace(path_of("metrics.jsonl"), last_step, mesh_.device());
    if (held_out_) validation_.emplace(path_of("validation.jsonl"), last_step);
    if (job_.output().tensorboard()) board_.emplace(path_of("tensorboard"), last_step);
  }

  void claim_folder() {
    std::string path;
    run_on_all(world_, [&] {
      if (!first()) return;
      const auto start = prepare_run_folder(job_, options_.resume);
      if (start) path = start->path;
    });
    start_path_ = broadcast_text(world_, path, 0);
    if (options_.pulse) options_.pulse->writes_to(job_.output().directory());
  }

  // All tensors of a checkpoint.
  struct Tensors {
    FlatState weights, moments, average;
    CheckpointTensors views() const {
      CheckpointTensors views{weights.tensors(), moments.tensors(), {}};
      const auto averages = average.tensors();
      if (!averages.empty()) views.others.push_back({kAveragePart, averages});
      return views;
    }
  };
  Tensors tensors() {
    Tensors tensors{network_->checkpoint_state(), optimizer_->checkpoint_state(),
                    FlatState(network_->parameters())};
    if (ema_) tensors.average.add("", ema_->flat());
    return tensors;
  }

  void load(const std::string& path) {
    state_ = read_state(path);
    check_architecture(path, state_.job(), job_);
    check_average(path, state_, job_);
    warn_of_other_diffusion(path, state_.job(), job_, "the job");
    const Tensors all = tensors();
    load_tensors(path, all.views());
    for (const FlatState* state : {&all.weights, &all.moments, &all.average}) state->write_back();
    network_->check_frozen(state_.base_hash(), path);
    optimizer_->set_updates(state_.updates());
    if (state_.step() > job_.training().steps() && !options_.profile_only) {
      throw ConfigError(fmt::format("training.steps: {}, but {} already has {} steps",
                                    job_.training().steps(), path, state_.step()));
    }
  }

  void prepare_state() {
    state_.set_schema(kCheckpointSchema);
    *state_.mutable_job() = job_;
    *state_.mutable_latent() = describe_latents(data_->index());
    state_.set_base_hash(network_->frozen_hash());
  }

  StepOutcome recorded_step(Trainer& trainer) {
    const int64_t step = state_.step();
    const bool recorded = profile_->records_next();
    const StepOutcome outcome = trainer.step(step, options_.stop, recorded);
    state_.set_step(step + 1);
    if (options_.pulse) {
      options_.pulse->step_done({state_.step(), options_.profile_only ? 0 : job_.training().steps(),
                                 outcome.loss, outcome.tokens, outcome.times.wall_ns,
                                 recorded ? outcome.times.exposed_ns : -1});
    }
    result_.losses.push_back(outcome.loss);
    count_skipped(outcome);
    const StepFlops flops = flops_of(outcome);
    profile_->append(
        {step, outcome.own_tokens, outcome.tokens, flops.dense_equivalent, flops.executed}, "train",
        outcome.shape, options_.threads);
    return outcome;
  }

  void one_step(Trainer& trainer) {
    const StepOutcome outcome = recorded_step(trainer);
    saves_->look();
    log(outcome);
    if (profile_->full()) finish_window();
    const bool last = state_.step() == job_.training().steps();
    const auto due = [&](int64_t interval) {
      return interval > 0 && state_.step() % interval == 0;
    };
    if (outcome.stop_requested && !last) {
      if (first()) {
        if (progress_) progress_->pause();
        spdlog::warn("stopping after step {} as asked", state_.step());
      }
      result_.exit_code = ExitCode::kInterrupted;
      return;
    }
    if (last || due(job_.training().validation().interval())) validate();
    if (last || due(job_.output().checkpoint_interval())) save();
    if (due(job_.output().sample_interval()) || (last && job_.output().sample_interval() > 0)) {
      sample();
    }
  }

  void count_skipped(const StepOutcome& outcome) {
    state_.set_skipped_in_a_row(outcome.skipped ? state_.skipped_in_a_row() + 1 : 0);
    if (!outcome.skipped) return;
    ++result_.skipped_steps;
    state_.set_skipped_steps(state_.skipped_steps() + 1);
    std::string where;
    if (!outcome.non_finite_ranks.empty()) {
      where = fmt::format(" (before the sum: on rank {} of {})",
                          fmt::join(outcome.non_finite_ranks, ", "), world_.size());
    }
    if (first())
      spdlog::warn("step {}: the gradient is not finite{}; skipped", state_.step(), where);
    if (state_.skipped_in_a_row() >= job_.training().max_skipped_steps()) {
      throw_agreed_non_finite(
          fmt::format("step {}: the gradient was not finite in {} steps in a row "
                      "(training.max_skipped_steps){}; the newest checkpoint is untouched",
                      state_.step(), state_.skipped_in_a_row(), where));
    }
  }

  void log(const StepOutcome& outcome) {
    write_metrics(outcome);
    if (progress_) progress_->step(state_.step(), outcome);
  }

  // A metrics line that cannot be written stops all ranks, but only lines that are due are agreed
  // on.
  void write_metrics(const StepOutcome& outcome) {
    if (state_.step() % std::max<int64_t>(job_.output().log_interval(), 1) != 0) return;
    run_on_all(world_, [&] {
      if (!metrics_) return;
      const StepTotals totals{state_.skipped_steps(), data_->bad_samples(), saves_->failed(),
                              saves_->take_stall_seconds()};
      const nlohmann::json line =
          metrics_->write(state_.step(), outcome, flops_of(outcome), totals);
      if (board_) board_->write_metrics(line);
    });
  }

  StepFlops flops_of(const StepOutcome& outcome) const {
    double density = 0;
    for (const double layer : outcome.density) density += layer / outcome.density.size();
    const int64_t samples = job_.training().global_batch();
    return step_flops(job_, samples, outcome.tokens / samples, density);
  }

  // With the attention of the last step done, like sampling.
  void validate() {
    if (!held_out_) return;
    const control::SectionScope section(options_.pulse, control::Section::kValidation);
    const AverageScope averaged(average());
    const ValidationLoss loss =
        Validator(*network_, *held_out_).run(std::max<int64_t>(state_.step() - 1, 0));
    result_.validation_losses.push_back(loss.mean);
    run_on_all(world_, [&] {
      if (!first()) return;
      const nlohmann::json line = {
          {"step", state_.step()}, {"loss", loss.mean}, {"by_level", loss.by_level}};
      validation_->write(line);
      if (board_) board_->write_validation(line);
      if (progress_) progress_->pause();
      spdlog::info("step {}: validation loss {:.6f}", state_.step(), loss.mean);
    });
  }

  void save() {
    state_.set_samples(state_.step() * job_.training().global_batch());
    state_.set_updates(optimizer_->updates());
    std::optional<Tensors> all;
    saves_->begin(state_, [&] {
      all.emplace(tensors());
      return all->views();
    });
    saved_step_ = state_.step();
  }

  void sample() {
    const control::SectionScope section(options_.pulse, control::Section::kSample);
    std::vector<SampleTask> tasks;
    run_on_all(world_, [&] { tasks = plan_samples(job_.sampling(), state_.latent(), &*data_); });
    const AverageScope averaged(average());
    const auto files =
        make_samples(*network_, job_.sampling(), state_.latent(), tasks, &*data_, state_.step(),
                     path_of("samples"), job_.output().tensorboard(), nullptr);
    run_on_all(world_, [&] {
      if (board_) show_samples(files);
    });
    if (progress_) progress_->pause();
    for (const SampleFiles& sample : files) log_sample(sample);
  }

  void show_samples(const std::vector<SampleFiles>& files) {
    for (size_t i = 0; i < files.size(); ++i) {
      board_->write_sample(state_.step(), i, files[i].prompt, files[i].animation);
      if (files[i].psnr) board_->write_sample_psnr(state_.step(), i, *files[i].psnr);
    }
  }

  static void log_sample(const SampleFiles& sample) {
    spdlog::info("sample {} and {}{}", sample.video, sample.sheet,
                 sample.psnr ? fmt::format(", {:.1f} dB against the real clip", *sample.psnr) : "");
  }

  profile::events::End memory() {
    return memory_use(network_->stores(), mesh_.device(), optimizer_->moments_bytes());
  }

  void finish_window() {
    if (progress_) progress_->pause();
    profile_->finish(memory(), [&](profile::Report& report) {
      if (receives_remote_kv(job_)) report.remote_kv = remote_kv_row(remote_kv_);
    });
  }

  static profile::RemoteKvRow remote_kv_row(const RemoteKvChoice& choice) {
    profile::RemoteKvRow row;
    row.value = config::Parallel::RemoteKv_Name(choice.value);
    if (!choice.by_memory) return row;
    row.rank = choice.rank;
    row.kept_bytes = choice.room.kept;
    row.fetched_bytes = choice.room.fetched;
    row.at_hand_bytes = choice.room.at_hand;
    return row;
  }

  const config::Job& job_;  // as the user wrote it: what checkpoints record
  const TrainOptions& options_;
  const parallel::Mesh& mesh_;
  comm::Communicator& world_;
  std::optional<data::LatentDataset> data_;
  std::optional<data::LatentDataset> held_out_;
  std::optional<Network> network_;
  std::optional<Optimizer> optimizer_;
  std::optional<Ema> ema_;
  std::optional<MetricsFile> metrics_;   // rank 0
  std::optional<JsonLines> validation_;  // rank 0
  std::optional<RunBoard> board_;        // rank 0, with output.tensorboard
  std::optional<Progress> progress_;     // rank 0
  std::optional<RunProfile> profile_;
  RemoteKvChoice remote_kv_;
  std::string start_path_;  // empty: from step 0
  CheckpointState state_;
  std::optional<JobSaves> saves_;  // unless the job is profiled alone
  int64_t saved_step_ = -1;  // of the newest save that was begun, or of what the job started from
  TrainResult result_;
};

}  // namespace

TrainResult run_training(const config::Job& job, std::unique_ptr<comm::Communicator> world,
                         const TrainOptions& options) {
  return run_on_mesh(
      std::move(world), mesh_shape(job), options.device,
      [&](const parallel::Mesh& mesh) { return TrainJob(job, mesh, options).run(); },
      options.pulse);
}

}  // namespace sprocket::runtime
