#include "configs/validate.h"

#include <cmath>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/decimal.h"
#include "base/error.h"
#include "configs/schedule.h"

namespace sprocket::config {
namespace {

// Far above any use, far below what would overflow a product of three of them.
constexpr int64_t kLargestExtent = 1 << 20;
constexpr int kLongestList = 24;

std::vector<int64_t> divisors(int64_t number) {
  std::vector<int64_t> small, large;
  for (int64_t i = 1; i * i <= number; ++i) {
    if (number % i != 0) continue;
    small.push_back(i);
    if (i * i != number) large.push_back(number / i);
  }
  small.insert(small.end(), large.rbegin(), large.rend());
  return small;
}

std::string list(const std::vector<int64_t>& numbers) {
  if (numbers.empty()) return "none";
  if (numbers.size() <= kLongestList) return fmt::format("{}", fmt::join(numbers, ", "));
  return fmt::format("{}, …, {}",
                     fmt::join(numbers.begin(), numbers.begin() + kLongestList - 1, ", "),
                     numbers.back());
}

std::vector<int64_t> divisors_where(int64_t number, auto&& condition) {
  std::vector<int64_t> result;
  for (const int64_t divisor : divisors(number)) {
    if (condition(divisor)) result.push_back(divisor);
  }
  return result;
}

class Checker {
 public:
  Checker(const Job& job, const LoadOptions& options) : job_(job), options_(options) {}

  std::vector<Violation> run() {
    check_model();
    check_attention();
    check_parallel();
    check_data_and_training();
    check_sampling();
    check_output();
    return std::move(violations_);
  }

 private:
  void add(std::vector<std::string> paths, std::string message) {
    violations_.push_back({std::move(paths), std::move(message)});
  }

  bool in_range(const std::string& path, int64_t value, int64_t low, int64_t high) {
    if (value >= low && value <= high) return true;
    add({path}, fmt::format("{}; legal: {} to {}", value, low, high));
    return false;
  }
  bool extent(const std::string& path, int64_t value) {
    return in_range(path, value, 1, kLargestExtent);
  }
  bool at_least(const std::string& path, int64_t value, int64_t low) {
    if (value >= low) return true;
    add({path}, fmt::format("{}; legal: {} or more", value, low));
    return false;
  }
  void number(const std::string& path, double value, bool legal, const char* rule) {
    if (!legal) add({path}, fmt::format("{}; legal: {}", value, rule));
  }

  void check_model() {
    const Model& model = job_.model();
    const bool dim = extent("model.dim", model.dim());
    const bool heads = extent("model.heads", model.heads());
    in_range("model.layers", model.layers(), 1, 10000);
    extent("model.ffn_dim", model.ffn_dim());
    extent("model.latent_channels", model.latent_channels());
    extent("model.patch.t", model.patch().t());
    extent("model.patch.h", model.patch().h());
    extent("model.patch.w", model.patch().w());
    extent("model.text_dim", model.text_dim());
    extent("model.text_tokens", model.text_tokens());
    if (extent("model.frequency_dim", model.frequency_dim()) && model.frequency_dim() % 2 != 0) {
      add({"model.frequency_dim"},
          fmt::format("{} is odd; legal: even numbers, half of them cosines "
                      "and half sines",
                      model.frequency_dim()));
    }
    number("model.epsilon", model.epsilon(), model.epsilon() > 0 && model.epsilon() < 1,
           "0 < epsilon < 1");
    if (!dim || !heads) return;
    const auto fits = [&](int64_t count) {
      const int64_t head_dim = model.dim() / count;
      return head_dim % 2 == 0 && head_dim >= 6;
    };
    if (model.dim() % model.heads() != 0) {
      add({"model.heads", "model.dim"},
          fmt::format("{} does not divide model.dim: {}; legal: {}", model.heads(), model.dim(),
                      list(divisors_where(model.dim(), fits))));
    } else if (!fits(model.heads())) {
      add({"model.heads", "model.dim"},
          fmt::format(
              "{} of model.dim: {} makes heads of {} channels, expected an even number of at "
              "least 6; legal: {}",
              model.heads(), model.dim(), model.dim() / model.heads(),
              list(divisors_where(model.dim(), fits))));
    }
  }

  void check_attention() {
    const Attention& attention = job_.attention();
    extent("attention.cube.t", attention.cube().t());
    extent("attention.cube.h", attention.cube().h());
    extent("attention.cube.w", attention.cube().w());
    extent("attention.domains", attention.domains());
    check_schedule("attention.sparsity", attention.sparsity(), 1, false);
    const bool coverage =
        check_schedule("attention.max_coverage", attention.max_coverage(), 1, true);
    if (!at_least("attention.budget_head_group", attention.budget_head_group(), 0)) return;
    const int64_t heads = job_.model().heads(), ulysses = job_.parallel().ulysses();
    if (heads <= 0 || ulysses <= 0 || heads % ulysses != 0) return;  // reported elsewhere
    const int64_t own_heads = heads / ulysses, group = attention.budget_head_group();
    const std::vector<std::string> paths = {"attention.budget_head_group", "model.heads",
                                            "parallel.ulysses"};
    if (group > 0 && own_heads % group != 0) {
      add(paths,
          fmt::format("{} does not divide model.heads / parallel.ulysses: {} / {} = {}; legal: {}",
                      group, heads, ulysses, own_heads, list(divisors(own_heads))));
    }
    const bool budgeted = coverage && attention.method() == Attention::VSA &&
                          attention.domains() > 1 &&
                          !is_constant(attention.max_coverage(), Decimal::ratio(1, 0));
    if (group == 0 && ulysses > 1 && budgeted) {
      add(paths,
          fmt::format("0 (all {} heads compete together) needs parallel.ulysses: 1, found {}, "
                      "where a rank holds {} heads; legal: {}",
                      heads, ulysses, own_heads, list(divisors(own_heads))));
    }
  }

  // True when the schedule can be evaluated.
  bool check_schedule(const std::string& path, const Schedule& schedule, double high,
                      bool high_included) {
    const size_t before = violations_.size();
    const auto value = [&](const std::string& field, double number) {
      const bool legal = number >= 0 && (number < high || (high_included && number == high));
      if (!legal) {
        add({path + "." + field}, fmt::format("{}; legal: 0 <= {} {} {}", number, field,
                                              high_included ? "<=" : "<", high));
      }
    };
    value("start", schedule.start());
    if (schedule.end() != schedule.start()) value("end", schedule.end());
    for (const auto& [field, number] : {std::pair{"start", schedule.start()},
                                        {"end", schedule.end()},
                                        {"increment", schedule.increment()}}) {
      try {
        Decimal::from_double(number);
      } catch (const ConfigError& error) {
        add({path + "." + field}, error.what());
      }
    }
    at_least(path + ".interval", schedule.interval(), 1);
    at_least(path + ".first_step", schedule.first_step(), 0);
    const double way = schedule.end() - schedule.start(), increment = schedule.increment();
    const std::vector<std::string> paths = {path + ".increment", path + ".start", path + ".end"};
    if (way == 0 && increment != 0) {
      add(paths, fmt::format("{} leads nowhere: start and end are both {}; give another end",
                             increment, schedule.start()));
    } else if (way != 0 && increment == 0) {
      add({path + ".end", path + ".start", path + ".increment"},
          fmt::format("{} is never reached from start: {} without an increment", schedule.end(),
                      schedule.start()));
    } else if (way * increment < 0) {
      add(paths, fmt::format("{} leads away from end: {} (start: {}); legal: {} 0", increment,
                             schedule.end(), schedule.start(), way > 0 ? ">" : "<"));
    }
    return violations_.size() == before;
  }

  void check_parallel() {
    const Parallel& parallel = job_.parallel();
    const bool data = extent("parallel.data", parallel.data());
    bool ulysses = extent("parallel.ulysses", parallel.ulysses());
    const bool outer = in_range("parallel.outer", parallel.outer(), 0, kLargestExtent);
    number("parallel.timeout_seconds", parallel.timeout_seconds(),
           parallel.timeout_seconds() > 0 && parallel.timeout_seconds() <= 1e6,
           "0 < timeout_seconds <= 1e6");
    const int64_t heads = job_.model().heads();
    if (ulysses && heads > 0 && heads <= kLargestExtent && heads % parallel.ulysses() != 0) {
      add({"parallel.ulysses", "model.heads"},
          fmt::format("{} does not divide model.heads: {}; legal: {}", parallel.ulysses(), heads,
                      list(divisors(heads))));
      ulysses = false;
    }
    int64_t outer_degree = parallel.outer();
    if (data && ulysses && outer && options_.world) outer_degree = check_world(*options_.world);
    const int64_t domains = job_.attention().domains();
    if (outer && outer_degree > 0 && domains > 1 && domains <= kLargestExtent &&
        domains % outer_degree != 0) {
      std::string meaning = parallel.outer() == 0 ? fmt::format("0 (with {} ranks: {})",
                                                                *options_.world, outer_degree)
                                                  : fmt::format("{}", outer_degree);
      add({"parallel.outer", "attention.domains", "parallel.data", "parallel.ulysses"},
          fmt::format("{} does not divide attention.domains: {}; legal: {}", meaning, domains,
                      list(divisors(domains))));
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
      add(paths, message);
      return 0;
    }
    if (world % (data * ulysses) == 0) return world / (data * ulysses);
    const auto legal_ulysses = divisors_where(world % data == 0 ? world / data : 1, [&](int64_t u) {
      return heads > 0 && heads % u == 0;
    });
    add({"parallel.ulysses", "parallel.data", "parallel.outer", "model.heads"},
        world % data == 0
            ? fmt::format(
                  "data x ulysses = {} x {} does not divide the {}; legal with this data: {}", data,
                  ulysses, ranks(world), list(legal_ulysses))
            : fmt::format("data x ulysses = {} x {} does not divide the {}; legal data: {}", data,
                          ulysses, ranks(world), list(divisors(world))));
    return 0;
  }

  void check_data_and_training() {
    if (options_.purpose == Purpose::kTrain && job_.data().path().empty()) {
      add({"data.path"}, "not set; expected a folder made by `sprocket data encode`");
    }
    if (job_.data().has_latent()) {
      const LatentExtents& latent = job_.data().latent();
      const bool legal = extent("data.latent.t", latent.t()) & extent("data.latent.h", latent.h()) &
                         extent("data.latent.w", latent.w());
      if (legal) {
        for (Violation& violation : find_shape_violations(
                 job_, {job_.model().latent_channels(), latent.t(), latent.h(), latent.w()})) {
          violations_.push_back(std::move(violation));
        }
      }
    }
    const Training& training = job_.training();
    at_least("training.steps", training.steps(), 1);
    const bool batch = extent("training.global_batch", training.global_batch()) &
                       extent("training.micro_batch", training.micro_batch());
    const int64_t data = job_.parallel().data();
    const int64_t together = training.micro_batch() * data;
    if (batch && data > 0 && data <= kLargestExtent && training.global_batch() % together != 0) {
      add({"training.global_batch", "training.micro_batch", "parallel.data"},
          fmt::format(
              "{} is no multiple of training.micro_batch x parallel.data: {} x {} = {}; legal: "
              "{}, {}, {}, …",
              training.global_batch(), training.micro_batch(), data, together, together,
              2 * together, 3 * together));
    }
    number("training.text_dropout", training.text_dropout(),
           training.text_dropout() >= 0 && training.text_dropout() <= 1, "0 <= text_dropout <= 1");
    at_least("training.max_skipped_steps", training.max_skipped_steps(), 0);
    check_optimizer(training.optimizer(), training.steps());
    number("flow.shift", job_.flow().shift(), job_.flow().shift() > 0, "shift > 0");
    in_range("compute.threads", job_.compute().threads(), 0, 4096);
  }

  void check_optimizer(const Optimizer& optimizer, int64_t steps) {
    const std::string at = "training.optimizer.";
    number(at + "learning_rate", optimizer.learning_rate(), optimizer.learning_rate() >= 0,
           "learning_rate >= 0");
    number(at + "beta1", optimizer.beta1(), optimizer.beta1() >= 0 && optimizer.beta1() < 1,
           "0 <= beta1 < 1");
    number(at + "beta2", optimizer.beta2(), optimizer.beta2() >= 0 && optimizer.beta2() < 1,
           "0 <= beta2 < 1");
    number(at + "epsilon", optimizer.epsilon(), optimizer.epsilon() > 0, "epsilon > 0");
    number(at + "weight_decay", optimizer.weight_decay(), optimizer.weight_decay() >= 0,
           "weight_decay >= 0");
    number(at + "clip_norm", optimizer.clip_norm(), optimizer.clip_norm() >= 0, "clip_norm >= 0");
    number(at + "final_fraction", optimizer.final_fraction(),
           optimizer.final_fraction() >= 0 && optimizer.final_fraction() <= 1,
           "0 <= final_fraction <= 1");
    if (at_least(at + "warmup_steps", optimizer.warmup_steps(), 0) && steps > 0 &&
        optimizer.warmup_steps() > steps) {
      add({at + "warmup_steps", "training.steps"},
          fmt::format("{} is more than training.steps: {}; legal: 0 to {}",
                      optimizer.warmup_steps(), steps, steps));
    }
  }

  void check_sampling() {
    const Sampling& sampling = job_.sampling();
    in_range("sampling.steps", sampling.steps(), 1, 100000);
    extent("sampling.count", sampling.count());
    number("sampling.guidance", sampling.guidance(), sampling.guidance() >= 0, "guidance >= 0");
    number("sampling.shift", sampling.shift(), sampling.shift() >= 0, "shift >= 0 (0: flow.shift)");
  }

  void check_output() {
    const Output& output = job_.output();
    if (options_.purpose != Purpose::kInspect && output.directory().empty()) {
      add({"output.directory"}, "not set; expected a folder for the run, here or as --output DIR");
    }
    at_least("output.checkpoint_interval", output.checkpoint_interval(), 0);
    at_least("output.keep_checkpoints", output.keep_checkpoints(), 0);
    at_least("output.sample_interval", output.sample_interval(), 0);
    at_least("output.log_interval", output.log_interval(), 1);
    at_least("output.report_warmup_steps", output.report_warmup_steps(), 0);
  }

  const Job& job_;
  const LoadOptions& options_;
  std::vector<Violation> violations_;
};

}  // namespace

std::vector<Violation> find_violations(const Job& job, const LoadOptions& options) {
  return Checker(job, options).run();
}

std::vector<Violation> find_shape_violations(const Job& job, const LatentShape& shape) {
  std::vector<Violation> violations;
  if (shape.channels != job.model().latent_channels()) {
    violations.push_back(
        {{"model.latent_channels"},
         fmt::format("{}, found latent videos of {} channels; legal: {}",
                     job.model().latent_channels(), shape.channels, shape.channels)});
  }
  struct Axis {
    const char* name;
    int64_t cells, patch, cube;
  };
  const Extent& patch = job.model().patch();
  const Cube& cube = job.attention().cube();
  int64_t blocks = 1;
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
    blocks *= (axis.cells / axis.patch + axis.cube - 1) / axis.cube;
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

}  // namespace sprocket::config
