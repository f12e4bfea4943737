#include "runtime/jobs/distill_job.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <span>

#include <ATen/ops/cat.h>

#include "base/error.h"
#include "base/log.h"
#include "runtime/checkpoint/architecture.h"
#include "runtime/checkpoint/average.h"
#include "runtime/checkpoint/checkpoint_tensors.h"
#include "runtime/distill/prompt_source.h"
#include "runtime/distill/role_network.h"
#include "runtime/jobs/job_saves.h"
#include "runtime/jobs/run_folder.h"
#include "runtime/jobs/run_on_mesh.h"
#include "runtime/jobs/run_profile.h"
#include "runtime/metrics/json_lines.h"
#include "runtime/metrics/memory.h"
#include "runtime/metrics/progress.h"
#include "runtime/metrics/run_board.h"
#include "runtime/plan/flops.h"
#include "runtime/plan/job_specs.h"
#include "runtime/sample/sample_set.h"
#include "runtime/train/job_diffusion.h"
#include "runtime/train/text_input.h"

namespace sprocket::runtime {
namespace {

namespace fs = std::filesystem;
using config::NetworkRole;
using nlohmann::json;

// Of the network's last evaluation, over its layers.
double mean_of(const Network& network, double parallel::AttentionStatistics::*what) {
  double sum = 0;
  for (const parallel::AttentionSlot& slot : network.slots()) sum += slot.statistics.*what;
  return sum / static_cast<double>(network.slots().size());
}
double mean_density(const Network& network) {
  return mean_of(network, &parallel::AttentionStatistics::density);
}

// A network whose evaluations are a section of their own.
class WatchedDenoiser : public Denoiser {
 public:
  WatchedDenoiser(Denoiser& network, control::Pulse* pulse, control::Section section)
      : network_(network), pulse_(pulse), section_(section) {}
  at::Tensor predict(const at::Tensor& x, std::span<const double> timesteps,
                     const at::Tensor& text) override {
    const control::SectionScope scope(pulse_, section_);
    return network_.predict(x, timesteps, text);
  }
  void end_backward() override { network_.end_backward(); }

 private:
  Denoiser& network_;
  control::Pulse* pulse_;
  control::Section section_;
};

// Of the evaluations with a backward: the student's, then the fake score's.
struct SelectionMeans {
  std::array<double, 2> density = {}, coverage = {};
};

class DistillJob {
 public:
  DistillJob(const config::Job& job, const parallel::Mesh& mesh, const TrainOptions& options)
      : job_(job), options_(options), mesh_(mesh), world_(mesh.world()) {}

  DistillResult run() {
    run_on_all(world_, [&] { prompts_.emplace(job_); });
    find_start();
    state_.set_schema(kCheckpointSchema);
    *state_.mutable_latent() = prompts_->latent();
    open_networks();
    run_on_all(world_, [&] {
      if (!start_path_.empty()) load();
      *state_.mutable_job() = job_;
      state_.set_base_hash(student().network().frozen_hash());
      state_.set_fake_score_base_hash(fake_score_->network().frozen_hash());
      if (!first() || options_.profile_only) return;
      metrics_.emplace(path_of("metrics.jsonl"), state_.step() > 0 ? state_.step() : -1);
      if (job_.output().tensorboard()) {
        board_.emplace(path_of("tensorboard"), state_.step() > 0 ? state_.step() : -1);
      }
      progress_.emplace(options_.terminal, job_.training().steps(), job_.output().log_interval());
    });
    StepCollector collector(mesh_, student().network().layers());
    for (const auto& [role, network] : roles()) {
      if (network->own_mesh()) {
        collector.add_mesh(*network->own_mesh(), config::name_of(role) + ".");
      }
    }
    collector_ = &collector;
    profile_.emplace(job_, mesh_, collector, options_.profile_only);
    make_distiller();
    result_.first_step = state_.step();
    saved_step_ = start_path_.empty() ? -1 : state_.step();
    if (options_.profile_only) {
      const control::SectionScope section(options_.pulse, control::Section::kStep);
      while (!ended()) one_step();
    } else {
      distill();
    }
    progress_.reset();
    result_.last_step = state_.step();
    if (profile_->open()) finish_window();
    if (options_.print_report) profile_->print();
    return result_;
  }

 private:
  bool first() const { return world_.rank() == 0; }
  RoleNetwork& student() { return *student_; }
  std::map<NetworkRole, RoleNetwork*> roles() {
    return {{NetworkRole::kStudent, &*student_},
            {NetworkRole::kTeacher, &*teacher_},
            {NetworkRole::kFakeScore, &*fake_score_}};
  }
  std::string path_of(const std::string& name) const {
    return (fs::path(job_.output().directory()) / name).string();
  }
  bool ended() const {
    if (result_.exit_code != ExitCode::kOk) return true;
    return options_.profile_only ? profile_->done() : state_.step() >= job_.training().steps();
  }

  void distill() {
    const control::SectionScope section(options_.pulse, control::Section::kStep);
    saves_.emplace(
        world_, job_.output().directory(), save_policy(job_.output()),
        [this] {
          if (progress_) progress_->pause();
        },
        options_.pulse);
    saves_->guard([this] {
      while (!ended()) one_step();
      if (saved_step_ != state_.step()) save();
      saves_->finish();
    });
    result_.checkpoint = saves_->newest();
  }

  void find_start() {
    std::string path;
    run_on_all(world_, [&] {
      if (!first()) return;
      if (!options_.profile_only) {
        const auto start = prepare_run_folder(job_, options_.resume);
        if (start) path = start->path;
      } else if (options_.resume != "none") {
        path = open_checkpoint(options_.resume == "latest" ? job_.output().directory()
                                                           : options_.resume)
                   .path;
      }
    });
    start_path_ = broadcast_text(world_, path, 0);
    if (options_.pulse && !options_.profile_only) {
      options_.pulse->writes_to(job_.output().directory());
    }
  }

  void open_networks() {
    constexpr int64_t kNetworks = 3;
    FrozenWeights frozen(job_);
    RoleSetup setup{options_.threads, options_.memory / kNetworks, prompts_->largest_shape(),
                    &state_.latent(), !start_path_.empty(),        &frozen};
    student_.emplace(job_, NetworkRole::kStudent, mesh_, setup);
    fake_score_.emplace(job_, NetworkRole::kFakeScore, mesh_, setup);
    setup.from_checkpoint = false;
    teacher_.emplace(job_, NetworkRole::kTeacher, mesh_, setup);
    complete_latent();
    run_on_all(world_, [&] {
      student_optimizer_.emplace(job_.training().optimizer(), student().network().parameters(),
                                 options_.threads);
      fake_optimizer_.emplace(fake_score_->job().training().optimizer(),
                              fake_score_->network().parameters(), options_.threads);
    });
  }

  // A prompt set need not know how latents become pixels; the run that the teacher is of does.
  void complete_latent() {
    const auto& known = teacher_->trained_on();
    LatentDescription& latent = *state_.mutable_latent();
    if (latent.has_codec() || !known) return;
    latent.set_codec(known->codec());
    latent.set_codec_version(known->codec_version());
    *latent.mutable_mean() = known->mean();
    *latent.mutable_std() = known->std();
  }

  void make_distiller() {
    if (job_.training().ema_decay() > 0 && !ema_) {
      ema_.emplace(student().network().parameters(), job_.training().ema_decay());
    }
    watched_teacher_.emplace(teacher_->denoiser(), options_.pulse, control::Section::kTeacher);
    const Networks networks{student().denoiser(), *watched_teacher_, fake_score_->denoiser(),
                            job_diffusion(job_)};
    distiller_.emplace(networks, make_recipe(job_),
                       TrainedNetwork{student().network().parameters(), *student_optimizer_,
                                      job_.training().optimizer(), ema_ ? &*ema_ : nullptr},
                       TrainedNetwork{fake_score_->network().parameters(), *fake_optimizer_,
                                      fake_score_->job().training().optimizer(), nullptr},
                       mesh_.host().data(), mesh_.tensors().world(),
                       DistillerOptions{job_.training().steps(), job_.training().global_batch(),
                                        mesh_.timeline()});
  }

  // All tensors of a checkpoint.
  struct Tensors {
    FlatState student, moments, fake_score, fake_moments, ema;
    CheckpointTensors views() const {
      CheckpointTensors views{student.tensors(), moments.tensors(), {}};
      views.others = {{"fake_score", fake_score.tensors()},
                      {"fake_score_optim", fake_moments.tensors()}};
      const auto average = ema.tensors();
      if (!average.empty()) views.others.push_back({kAveragePart, average});
      return views;
    }
    void write_back() const {
      for (const FlatState* state : {&student, &moments, &fake_score, &fake_moments, &ema}) {
        state->write_back();
      }
    }
  };
  Tensors tensors() {
    Tensors tensors{student().network().checkpoint_state(), student_optimizer_->checkpoint_state(),
                    fake_score_->network().checkpoint_state(), fake_optimizer_->checkpoint_state(),
                    FlatState(student().network().parameters())};
    if (ema_) tensors.ema.add("", ema_->flat());
    return tensors;
  }

  void load() {
    CheckpointState found = read_state(start_path_);
    check_architecture(start_path_, found.job(), job_);
    if (!found.job().has_distillation()) {
      throw InputError(fmt::format(
          "{}: is of a training, expected a checkpoint of `sprocket distill`; to start from its "
          "weights set distillation.teacher.weights or model.weights",
          start_path_));
    }
    check_average(start_path_, found, job_);
    if (job_.training().ema_decay() > 0) {
      ema_.emplace(student().network().parameters(), job_.training().ema_decay());
    }
    const Tensors all = tensors();
    load_tensors(start_path_, all.views());
    all.write_back();
    student().network().check_frozen(found.base_hash(), start_path_);
    fake_score_->network().check_frozen(found.fake_score_base_hash(), start_path_);
    student_optimizer_->set_updates(found.updates());
    fake_optimizer_->set_updates(found.fake_score_updates());
    if (found.step() > job_.training().steps() && !options_.profile_only) {
      throw ConfigError(fmt::format("training.steps: {}, but {} already has {} steps",
                                    job_.training().steps(), start_path_, found.step()));
    }
    state_ = found;
  }

  void save() {
    state_.set_samples(state_.step() * job_.training().global_batch());
    state_.set_updates(student_optimizer_->updates());
    state_.set_fake_score_updates(fake_optimizer_->updates());
    std::optional<Tensors> all;
    saves_->begin(state_, [&] {
      all.emplace(tensors());
      return all->views();
    });
    saved_step_ = state_.step();
  }

  std::vector<Scene> load_scenes(int64_t step) {
    const config::Training& training = job_.training();
    const int64_t size = training.micro_batch(), replicas = job_.parallel().data();
    const at::Tensor empty =
        text_tensor(job_.model(), prompts_->negative()).expand({size, -1, -1}).contiguous();
    std::vector<Scene> scenes;
    own_tokens_ = tokens_ = 0;
    for (int64_t micro = 0; micro < training.global_batch() / (size * replicas); ++micro) {
      const Timeline::Scope scope(mesh_.timeline(), Activity::kDataWait, "data.load");
      const int64_t lane = (micro * replicas + mesh_.coordinate().data) * size;
      std::vector<int64_t> numbers;
      std::vector<at::Tensor> texts;
      for (int64_t i = 0; i < size; ++i) {
        numbers.push_back(lane + i);
        const PromptSample prompt = prompts_->at(step * training.global_batch() + lane + i);
        shape_ = prompt.shape;
        texts.push_back(text_tensor(job_.model(), prompt.embedding));
      }
      scenes.emplace_back(training.seed(), step, numbers,
                          std::vector<int64_t>{shape_.c, shape_.t, shape_.h, shape_.w},
                          at::TensorOptions(at::kFloat), at::cat(texts), empty);
      own_tokens_ += size * student().network().own_tokens(shape_).tokens();
      tokens_ += size * replicas * student().network().layout(shape_).tokens();
    }
    return scenes;
  }

  void one_step() {
    const int64_t step = state_.step();
    if (mesh_.timeline()) mesh_.timeline()->position.step = step;
    const bool recorded = profile_->records_next();
    collector_->begin_step(recorded);
    for (const auto& [role, network] : roles()) network->denoiser().begin_step(step);
    std::vector<Scene> scenes;
    run_on_all(world_, [&] { scenes = load_scenes(step); });
    SelectionMeans selection;
    const std::vector<PhaseOutcome> phases = distiller_->step(step, scenes, [&](NetworkRole role) {
      const bool is_student = role == NetworkRole::kStudent;
      const Network& network = is_student ? student().network() : fake_score_->network();
      const size_t number = is_student ? 0 : 1;
      const double share = 1 / static_cast<double>(scenes.size());
      selection.density[number] += share * mean_density(network);
      selection.coverage[number] +=
          share * mean_of(network, &parallel::AttentionStatistics::coverage);
      if (is_student) {
        collector_->collect(network.slots());
      } else {
        collector_->collect({});
      }
    });
    const bool stop = stop_requested(selection);
    const profile::StepParts times = collector_->end_step();
    state_.set_step(step + 1);
    result_.steps.push_back(phases);
    if (options_.pulse) {
      options_.pulse->step_done({state_.step(), options_.profile_only ? 0 : job_.training().steps(),
                                 phases.front().loss, tokens_, times.wall_ns,
                                 recorded ? times.exposed_ns : -1});
    }
    const StepFlops flops = flops_of_step();
    profile_->append({step, own_tokens_, tokens_, flops.dense_equivalent, flops.executed},
                     "distill", shape_, options_.threads);
    count_skipped(phases);
    if (options_.profile_only) {
      if (stop) result_.exit_code = ExitCode::kInterrupted;
    } else {
      saves_->look();
      log(phases, selection, times);
    }
    if (profile_->full()) finish_window();
    if (!options_.profile_only) after_step(stop);
  }

  // Of all replicas' evaluations.
  StepFlops flops_of_step() {
    StepFlops sum;
    for (const auto& [role, network] : roles()) {
      const Evaluations& made = network->denoiser().evaluations();
      const int64_t tokens = network->network().layout(shape_).tokens();
      const int replicas = job_.parallel().data();
      const double density = mean_density(network->network());
      for (const StepFlops& flops :
           {forward_step_flops(network->job(), made.plain * replicas, tokens, density),
            step_flops(network->job(), made.with_graph * replicas, tokens, density)}) {
        sum.dense_equivalent += flops.dense_equivalent;
        sum.executed += flops.executed;
      }
    }
    return sum;
  }

  // Of any rank; makes `selection` the mean of all ranks.
  bool stop_requested(SelectionMeans& selection) {
    std::array<double, 5> values = {selection.density[0], selection.density[1],
                                    selection.coverage[0], selection.coverage[1],
                                    options_.stop && options_.stop->load() ? 1.0 : 0.0};
    world_.all_reduce(comm::Buffer::of(std::span<double>(values)), comm::ReduceOp::kSum)
        .wait_host();
    for (size_t i = 0; i < 2; ++i) {
      selection.density[i] = values[i] / world_.size();
      selection.coverage[i] = values[2 + i] / world_.size();
    }
    return values.back() > 0;
  }

  void after_step(bool stop) {
    const bool last = state_.step() == job_.training().steps();
    const auto due = [&](int64_t interval) {
      return interval > 0 && state_.step() % interval == 0;
    };
    if (stop && !last) {
      if (first()) {
        if (progress_) progress_->pause();
        spdlog::warn("stopping after step {} as asked", state_.step());
      }
      result_.exit_code = ExitCode::kInterrupted;
      return;
    }
    if (last || due(job_.output().checkpoint_interval())) save();
    if (due(job_.output().sample_interval()) || (last && job_.output().sample_interval() > 0)) {
      sample();
    }
  }

  void count_skipped(const std::vector<PhaseOutcome>& phases) {
    std::string not_finite;
    for (const PhaseOutcome& phase : phases) {
      if (phase.outlier) state_.set_outliers(state_.outliers() + 1);
      if (!phase.finite) not_finite = phase.name;
    }
    state_.set_skipped_in_a_row(not_finite.empty() ? 0 : state_.skipped_in_a_row() + 1);
    if (not_finite.empty()) return;
    state_.set_skipped_steps(state_.skipped_steps() + 1);
    if (first()) {
      spdlog::warn("step {}: loss or gradient of the {} is not finite; no update of it",
                   state_.step(), not_finite);
    }
    if (state_.skipped_in_a_row() < std::max(job_.training().max_skipped_steps(), 1)) return;
    throw_agreed_non_finite(
        fmt::format("step {}: loss or gradient of the {} was not finite in {} steps in a row "
                    "(training.max_skipped_steps); the newest checkpoint is untouched. Lower its "
                    "learning_rate, or look at the gradient norms of metrics.jsonl before it",
                    state_.step(), not_finite, state_.skipped_in_a_row()));
  }

  void log(const std::vector<PhaseOutcome>& phases, const SelectionMeans& selection,
           const profile::StepParts& times) {
    if (!first()) return;
    const double seconds = 1e-9 * static_cast<double>(times.wall_ns);
    std::string text;
    json line = {{"step", state_.step()},
                 {"step_seconds", seconds},
                 {"tokens_per_second", static_cast<double>(tokens_) / seconds},
                 {"memory_peak_bytes", peak_memory_bytes(mesh_.device())},
                 {"skipped_steps", state_.skipped_steps()},
                 {"outliers", state_.outliers()},
                 {"failed_saves", saves_->failed()}};
    for (const PhaseOutcome& phase : phases) {
      json& own = line[phase.name] = {
          {"lr", phase.learning_rate}, {"seconds", phase.seconds}, {"updated", phase.updated()}};
      // JSON has no infinities.
      if (std::isfinite(phase.loss)) own["loss"] = phase.loss;
      if (std::isfinite(phase.gradient_norm)) own["grad_norm"] = phase.gradient_norm;
      if (phase.score_gap && std::isfinite(*phase.score_gap)) own["score_gap"] = *phase.score_gap;
      const size_t number = phase.name == "student" ? 0 : 1;
      own["density"] = selection.density[number];
      own["coverage"] = selection.coverage[number];
      text += fmt::format("{}{} {:.4f}", text.empty() ? "" : "  ", phase.name, phase.loss);
    }
    for (const auto& [role, network] : roles()) {
      const Evaluations& made = network->denoiser().evaluations();
      line["evaluations"][config::name_of(role)] = {{"plain", made.plain},
                                                    {"with_graph", made.with_graph}};
    }
    if (state_.step() % std::max<int64_t>(job_.output().log_interval(), 1) == 0) {
      line["checkpoint_stall_seconds"] = saves_->take_stall_seconds();
      metrics_->write(line);
      if (board_) board_->write_metrics(line);
    }
    if (progress_) progress_->step(state_.step(), text, seconds);
  }

  void sample() {
    const control::SectionScope section(options_.pulse, control::Section::kSample);
    std::vector<SampleTask> tasks;
    run_on_all(world_, [&] {
      tasks = plan_samples(job_.sampling(), state_.latent(), prompts_->data(), prompts_->prompts());
    });
    const AverageScope averaged(ema_ ? &*ema_ : nullptr);
    const auto files =
        make_samples(student().network(), job_.sampling(), state_.latent(), tasks, prompts_->data(),
                     state_.step(), path_of("samples"), job_.output().tensorboard(), nullptr);
    run_on_all(world_, [&] {
      if (!board_) return;
      for (size_t i = 0; i < files.size(); ++i) {
        board_->write_sample(state_.step(), i, files[i].prompt, files[i].animation);
      }
    });
    if (progress_) progress_->pause();
    for (const SampleFiles& sample : files) {
      spdlog::info("sample {} and {}", sample.video, sample.sheet);
    }
  }

  void finish_window() {
    if (progress_) progress_->pause();
    std::set<const models::ParameterStore*> stores;
    for (const auto& [role, network] : roles()) {
      if (!network->offloaded()) stores.merge(network->network().stores());
    }
    const int64_t moments = student_optimizer_->moments_bytes() + fake_optimizer_->moments_bytes();
    profile_->finish(memory_use(stores, mesh_.device(), moments), [](profile::Report&) {});
  }

  const config::Job& job_;
  const TrainOptions& options_;
  const parallel::Mesh& mesh_;
  comm::Communicator& world_;
  std::optional<PromptSource> prompts_;
  std::optional<RoleNetwork> student_, teacher_, fake_score_;
  std::optional<WatchedDenoiser> watched_teacher_;
  std::optional<Optimizer> student_optimizer_, fake_optimizer_;
  std::optional<Ema> ema_;
  std::optional<Distiller> distiller_;
  std::optional<JsonLines> metrics_;  // rank 0
  std::optional<RunBoard> board_;     // rank 0, with output.tensorboard
  std::optional<Progress> progress_;  // rank 0
  StepCollector* collector_ = nullptr;
  std::optional<RunProfile> profile_;
  data::LatentShape shape_;  // of the step's last micro-batch
  int64_t own_tokens_ = 0, tokens_ = 0;
  std::string start_path_;  // empty: from step 0
  CheckpointState state_;
  std::optional<JobSaves> saves_;  // unless the job is profiled alone
  int64_t saved_step_ = -1;  // of the newest save that was begun, or of what the job started from
  DistillResult result_;
};

}  // namespace

DistillResult run_distillation(const config::Job& job, std::unique_ptr<comm::Communicator> world,
                               const TrainOptions& options) {
  return run_on_mesh(
      std::move(world), mesh_shape(job), options.device,
      [&](const parallel::Mesh& mesh) { return DistillJob(job, mesh, options).run(); },
      options.pulse);
}

}  // namespace sprocket::runtime
