#include "configs/validate.h"

#include <algorithm>
#include <cmath>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/error.h"
#include "configs/findings.h"

namespace sprocket::config {
namespace {

std::vector<int64_t> divisors_where(int64_t number, auto&& condition) {
  std::vector<int64_t> result;
  for (const int64_t divisor : divisors(number)) {
    if (condition(divisor)) result.push_back(divisor);
  }
  return result;
}

constexpr int64_t kMostDeviceBlockTokens = 128;  // of the attention kernels

class Checker {
 public:
  Checker(const Job& job, const LoadOptions& options) : job_(job), options_(options) {}

  std::vector<Violation> run() {
    check_model(job_, findings_);
    check_attention(job_, findings_);
    check_parallel();
    check_data_and_training();
    check_sampling(job_, findings_);
    check_output();
    check_device();
    check_problem();
    check_distillation(job_, options_, findings_);
    return findings_.take();
  }

 private:
  void check_head_groups(int64_t own_heads, int64_t outer) {
    const int64_t groups = job_.parallel().head_groups(),
                  budget_group = job_.attention().budget_head_group();
    if (!findings_.at_least("parallel.head_groups", groups, 0) || groups < 2) return;
    const std::vector<std::string> paths = {"parallel.head_groups", "parallel.ulysses",
                                            "parallel.outer", "model.heads"};
    const bool selected = job_.parallel().strategy() == Parallel::SELECTED;
    if (outer > 1 && selected) {
      if (groups > own_heads) {
        findings_.add(paths, fmt::format("{} is more than the {} heads of a rank; legal: 0 to {}",
                                         groups, own_heads, own_heads));
      }
    } else if (job_.parallel().ulysses() == 1 || outer > 1) {
      findings_.add(paths, fmt::format("{} needs SELECTED or Ulysses as the only sequence axis, "
                                       "found ulysses {} x outer {}; legal: 0 or 1",
                                       groups, job_.parallel().ulysses(), outer));
    } else if (own_heads % groups != 0 ||
               (budget_group > 0 && own_heads / groups % budget_group != 0)) {
      findings_.add(paths,
                    fmt::format("{} does not divide the {} heads of a rank (in groups of "
                                "attention.budget_head_group: {}); legal: {}",
                                groups, own_heads, budget_group,
                                list(divisors(own_heads / std::max<int64_t>(budget_group, 1)))));
    }
  }

  void check_parallel() {
    const Parallel& parallel = job_.parallel();
    const bool data = findings_.extent("parallel.data", parallel.data());
    bool ulysses = findings_.extent("parallel.ulysses", parallel.ulysses());
    const bool outer = findings_.in_range("parallel.outer", parallel.outer(), 0, kLargestExtent);
    findings_.number("parallel.timeout_seconds", parallel.timeout_seconds(),
                     parallel.timeout_seconds() > 0 && parallel.timeout_seconds() <= 1e6,
                     "0 < timeout_seconds <= 1e6");
    findings_.number("parallel.gather_above", parallel.gather_above(),
                     parallel.gather_above() >= 0 && parallel.gather_above() <= 1,
                     "0 <= gather_above <= 1");
    if (parallel.single_pass() && parallel.strategy() == Parallel::RING) {
      findings_.add({"parallel.single_pass", "parallel.strategy"},
                    "true under RING, whose keys are never in one place; legal with single_pass: "
                    "SELECTED, ALL_GATHER");
    }
    const int64_t heads = job_.model().heads();
    if (ulysses && heads > 0 && heads <= kLargestExtent && heads % parallel.ulysses() != 0) {
      findings_.add({"parallel.ulysses", "model.heads"},
                    fmt::format("{} does not divide model.heads: {}; legal: {}", parallel.ulysses(),
                                heads, list(divisors(heads))));
      ulysses = false;
    }
    int64_t outer_degree = parallel.outer();
    if (data && ulysses && outer && options_.world) outer_degree = check_world(*options_.world);
    if (ulysses) check_head_groups(heads / parallel.ulysses(), outer_degree);
    const int64_t domains = job_.attention().domains();
    if (outer && outer_degree > 0 && domains > 1 && domains <= kLargestExtent &&
        domains % outer_degree != 0) {
      std::string meaning = parallel.outer() == 0 ? fmt::format("0 (with {} ranks: {})",
                                                                *options_.world, outer_degree)
                                                  : fmt::format("{}", outer_degree);
      findings_.add({"parallel.outer", "attention.domains", "parallel.data", "parallel.ulysses"},
                    fmt::format("{} does not divide attention.domains: {}; legal: {}", meaning,
                                domains, list(divisors(domains))));
    }
  }

  // Returns the outer degree, or 0 when it cannot be told.
  int64_t check_world(int64_t world) {
    const Parallel& parallel = job_.parallel();
    const int64_t data = parallel.data(), ulysses = parallel.ulysses(),
                  heads = job_.model().heads();
    const std::vector<std::string> paths = {"parallel.outer", "parallel.data", "parallel.ulysses",
                                            "model.heads"};
    const auto ranks = [](int64_t count) {
      return fmt::format("{} rank{}", count, count == 1 ? "" : "s");
    };
    if (parallel.outer() > 0) {
      const int64_t product = data * parallel.outer() * ulysses;
      if (product == world) return parallel.outer();
      std::string message = fmt::format("data x outer x ulysses = {} x {} x {} = {}, found {}",
                                        data, parallel.outer(), ulysses, product, ranks(world));
      if (world % (data * ulysses) == 0) {
        message +=
            fmt::format("; legal with this data and ulysses: 0, {}", world / (data * ulysses));
      } else {
        message +=
            fmt::format("; start {}, or set data and ulysses so that data x ulysses divides {}",
                        ranks(product), world);
      }
      findings_.add(paths, message);
      return 0;
    }
    if (world % (data * ulysses) == 0) return world / (data * ulysses);
    const auto legal_ulysses = divisors_where(world % data == 0 ? world / data : 1, [&](int64_t u) {
      return heads > 0 && heads % u == 0;
    });
    findings_.add(
        {"parallel.ulysses", "parallel.data", "parallel.outer", "model.heads"},
        world % data == 0
            ? fmt::format(
                  "data x ulysses = {} x {} does not divide the {}; legal with this data: {}", data,
                  ulysses, ranks(world), list(legal_ulysses))
            : fmt::format("data x ulysses = {} x {} does not divide the {}; legal data: {}", data,
                          ulysses, ranks(world), list(divisors(world))));
    return 0;
  }

  void check_data_and_training() {
    const bool trains =
        options_.purpose == Purpose::kTrain || options_.purpose == Purpose::kDistill;
    if (trains && job_.data().path().empty()) {
      findings_.add({"data.path"}, "not set; expected a folder made by `sprocket data encode`");
    }
    if (options_.purpose == Purpose::kParity && job_.data().path().empty() &&
        !job_.data().has_latent()) {
      findings_.add({"data.path"},
                    "not set, and data.latent neither; expected a folder made by `sprocket data "
                    "encode`, or data.latent for random latents");
    }
    if (job_.data().has_latent()) {
      const LatentExtents& latent = job_.data().latent();
      const bool legal = findings_.extent("data.latent.t", latent.t()) &
                         findings_.extent("data.latent.h", latent.h()) &
                         findings_.extent("data.latent.w", latent.w());
      if (legal) {
        for (Violation& violation : find_shape_violations(
                 job_, {job_.model().latent_channels(), latent.t(), latent.h(), latent.w()})) {
          findings_.add(std::move(violation));
        }
      }
    }
    const Training& training = job_.training();
    findings_.at_least("training.steps", training.steps(), 1);
    const bool batch = findings_.extent("training.global_batch", training.global_batch()) &
                       findings_.extent("training.micro_batch", training.micro_batch());
    const int64_t data = job_.parallel().data();
    const int64_t together = training.micro_batch() * data;
    if (batch && data > 0 && data <= kLargestExtent && training.global_batch() % together != 0) {
      findings_.add(
          {"training.global_batch", "training.micro_batch", "parallel.data"},
          fmt::format(
              "{} is no multiple of training.micro_batch x parallel.data: {} x {} = {}; legal: "
              "{}, {}, {}, …",
              training.global_batch(), training.micro_batch(), data, together, together,
              2 * together, 3 * together));
    }
    findings_.number("training.text_dropout", training.text_dropout(),
                     training.text_dropout() >= 0 && training.text_dropout() <= 1,
                     "0 <= text_dropout <= 1");
    findings_.number("training.ema_decay", training.ema_decay(),
                     training.ema_decay() >= 0 && training.ema_decay() < 1, "0 <= ema_decay < 1");
    findings_.at_least("training.max_skipped_steps", training.max_skipped_steps(), 0);
    findings_.at_least("training.validation.interval", training.validation().interval(), 0);
    findings_.in_range("training.validation.levels", training.validation().levels(), 1, 1000);
    findings_.in_range("training.validation.draws", training.validation().draws(), 1, 1000);
    check_optimizer(training.optimizer(), training.steps());
    check_lora("training.lora", training.lora(), findings_);
    if (options_.purpose == Purpose::kTrain && training.lora().rank() > 0 &&
        job_.model().weights().empty()) {
      findings_.add({"model.weights", "training.lora"},
                    "not set; expected the weights that the adapters are trained beside: a run, a "
                    "checkpoint or a .safetensors file");
    }
    findings_.in_range("compute.threads", job_.compute().threads(), 0, 4096);
  }

  void check_optimizer(const Optimizer& optimizer, int64_t steps) {
    const std::string at = "training.optimizer.";
    findings_.number(at + "learning_rate", optimizer.learning_rate(),
                     optimizer.learning_rate() >= 0, "learning_rate >= 0");
    findings_.number(at + "beta1", optimizer.beta1(),
                     optimizer.beta1() >= 0 && optimizer.beta1() < 1, "0 <= beta1 < 1");
    findings_.number(at + "beta2", optimizer.beta2(),
                     optimizer.beta2() >= 0 && optimizer.beta2() < 1, "0 <= beta2 < 1");
    findings_.number(at + "epsilon", optimizer.epsilon(), optimizer.epsilon() > 0, "epsilon > 0");
    findings_.number(at + "weight_decay", optimizer.weight_decay(), optimizer.weight_decay() >= 0,
                     "weight_decay >= 0");
    findings_.number(at + "clip_norm", optimizer.clip_norm(), optimizer.clip_norm() >= 0,
                     "clip_norm >= 0");
    findings_.number(at + "final_fraction", optimizer.final_fraction(),
                     optimizer.final_fraction() >= 0 && optimizer.final_fraction() <= 1,
                     "0 <= final_fraction <= 1");
    if (findings_.at_least(at + "warmup_steps", optimizer.warmup_steps(), 0) && steps > 0 &&
        optimizer.warmup_steps() > steps) {
      findings_.add({at + "warmup_steps", "training.steps"},
                    fmt::format("{} is more than training.steps: {}; legal: 0 to {}",
                                optimizer.warmup_steps(), steps, steps));
    }
  }

  void check_output() {
    const Output& output = job_.output();
    const bool writes = options_.purpose == Purpose::kTrain ||
                        options_.purpose == Purpose::kDistill ||
                        options_.purpose == Purpose::kSample;
    if (writes && output.directory().empty()) {
      findings_.add({"output.directory"},
                    "not set; expected a folder for the run, here or as --output DIR");
    }
    findings_.at_least("output.checkpoint_interval", output.checkpoint_interval(), 0);
    findings_.at_least("output.keep_checkpoints", output.keep_checkpoints(), 0);
    findings_.at_least("output.keep_every", output.keep_every(), 0);
    findings_.at_least("output.sample_interval", output.sample_interval(), 0);
    findings_.at_least("output.log_interval", output.log_interval(), 1);
    const Profile& profile = job_.profile();
    findings_.at_least("profile.steps", profile.steps(), 0);
    findings_.at_least("profile.warmup", profile.warmup(), 0);
    findings_.at_least("profile.trace_events", profile.trace_events(), 0);
    if (profile.interval() != 0) {
      findings_.at_least("profile.interval", profile.interval(),
                         std::max<int64_t>(profile.steps(), 1));
    }
  }

  void check_device() {
    findings_.at_least("compute.ranks_per_device", job_.compute().ranks_per_device(), 1);
    if (job_.compute().device() != Compute::CUDA) return;
    if (job_.model().family() != Model::WAN) {
      findings_.add({"compute.device", "model.family"},
                    fmt::format("CUDA has not been tried with {}; legal: CPU",
                                Model::Family_Name(job_.model().family())));
    }
    if (job_.compute().precision() != Compute::BF16) {
      findings_.add({"compute.precision", "compute.device"},
                    fmt::format("{} has no attention kernel on a device; legal with CUDA: BF16",
                                Compute::Precision_Name(job_.compute().precision())));
    }
    check_device_attention();
    const int64_t dim = job_.model().dim(), heads = job_.model().heads();
    if (options_.purpose == Purpose::kAttention || dim <= 0 || heads <= 0 || dim % heads != 0) {
      return;
    }
    if (dim / heads != 64 && dim / heads != 128) {
      findings_.add(
          {"model.heads", "model.dim", "compute.device"},
          fmt::format("{} of model.dim: {} makes heads of {} channels, for which there "
                      "is no attention kernel on a device; legal with CUDA: {}",
                      heads, dim, dim / heads, list(divisors_where(dim, [&](int64_t count) {
                        return dim / count == 64 || dim / count == 128;
                      }))));
    }
  }

  // What has kernels on a device.
  void check_device_attention() {
    const Attention& attention = job_.attention();
    const Cube& cube = attention.cube();
    const bool cubes = attention.order() != Attention::HILBERT;
    const int64_t tokens =
        cubes ? int64_t{cube.t()} * cube.h() * cube.w() : attention.block_tokens();
    if (tokens > kMostDeviceBlockTokens) {
      findings_.add({cubes ? "attention.cube" : "attention.block_tokens", "compute.device"},
                    fmt::format("{} tokens in a block; legal with CUDA: at most {}", tokens,
                                kMostDeviceBlockTokens));
    }
  }

  void check_problem() {
    if (options_.purpose != Purpose::kAttention) {
      if (job_.compute().precision() == Compute::FP64 && options_.purpose != Purpose::kParity) {
        findings_.add({"compute.precision"},
                      "FP64 is for `sprocket attention` and `sprocket check-parity`; legal: FP32, "
                      "BF16");
      }
      return;
    }
    if (!job_.has_problem() || !job_.problem().has_grid()) {
      findings_.add({"problem.grid"}, "not set; expected the video's tokens, { t: … h: … w: … }");
      return;
    }
    const AttentionProblem& problem = job_.problem();
    findings_.extent("problem.grid.t", problem.grid().t());
    findings_.extent("problem.grid.h", problem.grid().h());
    findings_.extent("problem.grid.w", problem.grid().w());
    for (const int64_t length : problem.prefix()) {
      findings_.in_range("problem.prefix", length, 0, kLargestExtent);
    }
    findings_.at_least("problem.step", problem.step(), 0);
    findings_.at_least("problem.layer", problem.layer(), 0);
  }

  const Job& job_;
  const LoadOptions& options_;
  Findings findings_;
};

}  // namespace

std::vector<Violation> find_violations(const Job& job, const LoadOptions& options) {
  return Checker(job, options).run();
}

std::vector<Violation> find_shape_violations(const Job& job, const LatentShape& shape) {
  struct Axis {
    const char* name;
    int64_t cells, patch, cube;
  };
  std::vector<Violation> violations;
  if (shape.channels != job.model().latent_channels()) {
    violations.push_back(
        {{"model.latent_channels"},
         fmt::format("{}, found latent videos of {} channels; legal: {}",
                     job.model().latent_channels(), shape.channels, shape.channels)});
  }
  const Extent& patch = job.model().patch();
  const Attention& attention = job.attention();
  const Cube& cube = attention.cube();
  int64_t blocks = 1, tokens = 1;
  for (const Axis& axis :
       {Axis{"t", shape.t, patch.t(), cube.t()}, Axis{"h", shape.h, patch.h(), cube.h()},
        Axis{"w", shape.w, patch.w(), cube.w()}}) {
    if (axis.patch <= 0 || axis.cube <= 0) return violations;  // reported by find_violations
    if (axis.cells % axis.patch != 0) {
      violations.push_back(
          {{fmt::format("model.patch.{}", axis.name), fmt::format("data.latent.{}", axis.name)},
           fmt::format("{} does not divide the {} latent cells of axis {}; legal: {}", axis.patch,
                       axis.cells, axis.name, list(divisors(axis.cells)))});
    }
    tokens *= axis.cells / axis.patch;
    blocks *= (axis.cells / axis.patch + axis.cube - 1) / axis.cube;
  }
  if (attention.order() == Attention::HILBERT) {
    if (attention.block_tokens() <= 0) return violations;
    blocks = (tokens + attention.block_tokens() - 1) / attention.block_tokens();
  }
  const int64_t domains = job.attention().domains(), outer = job.parallel().outer();
  if (domains > blocks) {
    violations.push_back(
        {{"attention.domains", "attention.cube"},
         fmt::format("{}, found a video of {} blocks; legal: 1 to {}", domains, blocks, blocks)});
  }
  if (outer > blocks) {
    violations.push_back(
        {{"parallel.outer", "attention.cube"},
         fmt::format(
             "{}, found a video of {} blocks: some ranks would have no work; legal: 1 to {}", outer,
             blocks, blocks)});
  }
  return violations;
}

void check_latent_shape(const LoadedJob& loaded, const LatentShape& shape,
                        const std::string& source) {
  std::string text;
  for (const Violation& violation : find_shape_violations(loaded.job, shape)) {
    text += fmt::format("{}{}: {} ({})", text.empty() ? "" : "\n",
                        loaded.where(violation.paths.front()), violation.message, source);
  }
  if (!text.empty()) throw ConfigError(text);
}

void check_on_processor(const LoadedJob& loaded, const std::string& what,
                        const std::string& alternative) {
  if (loaded.job.compute().device() == Compute::CPU) return;
  throw ConfigError(fmt::format("{}: {} runs on the processor alone; legal: CPU{}",
                                loaded.where("compute.device"), what,
                                alternative.empty() ? "" : ", or " + alternative));
}

}  // namespace sprocket::config
