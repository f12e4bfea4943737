// Training as a function: of the job alone, not of ranks, strategy or interruptions.
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/error.h"
#include "models/parameter_store.h"
#include "models/safetensors/tensor_set.h"
#include "models/wan/wan_weights.h"
#include "runtime/checkpoint/architecture.h"
#include "runtime/checkpoint/run_checkpoints.h"
#include "runtime/train/job_model.h"
#include "runtime/train/network.h"
#include "tests/data/temporary_folder.h"
#include "tests/runtime/thread_ranks.h"
#include "tests/runtime/tiny_job.h"

namespace sprocket {
namespace {

namespace fs = std::filesystem;
using runtime::TrainOptions;
using runtime::TrainResult;
using testing::message_of;
using testing::TemporaryFolder;
using testing::tiny_job;
using testing::train;
using Overrides = std::vector<std::string>;

const Overrides kVsa = {"attention.method: VSA", "attention.vsa.sparsity { start: 0.5 }",
                        "attention.max_coverage { start: 0.5 }"};

Overrides with(Overrides base, const Overrides& more) {
  base.insert(base.end(), more.begin(), more.end());
  return base;
}

std::map<std::string, std::vector<float>> tensors_of(const std::string& folder) {
  std::map<std::string, std::vector<float>> tensors;
  const auto set = safetensors::TensorSet::open(folder);
  for (const std::string& name : set.names()) tensors[name] = set.floats(name);
  return tensors;
}

struct RankCase {
  std::string name;
  int ranks;
  Overrides overrides;
};

void PrintTo(const RankCase& c, std::ostream* out) { *out << c.name; }

class LossOnRanks : public ::testing::TestWithParam<std::tuple<bool, RankCase>> {};

// fp32 sums in another order: a loss after n steps may differ by about n roundings' worth.
TEST_P(LossOnRanks, EqualsOneRank) {
  const auto& [vsa, ranks] = GetParam();
  TemporaryFolder one, many;
  const Overrides base = vsa ? kVsa : Overrides{};
  const TrainResult expected = train(tiny_job(one.path().string(), 1, base));
  const TrainResult found =
      train(tiny_job(many.path().string(), ranks.ranks, with(base, ranks.overrides)));
  ASSERT_EQ(expected.losses.size(), 20u);
  ASSERT_EQ(found.losses.size(), 20u);
  for (size_t step = 0; step < 20; ++step) {
    EXPECT_NEAR(found.losses[step], expected.losses[step], 1e-5 * expected.losses[step])
        << "step " << step;
  }
  EXPECT_LT(expected.losses.back(), expected.losses.front());
}

INSTANTIATE_TEST_SUITE_P(
    Strategies, LossOnRanks,
    ::testing::Combine(::testing::Bool(),
                       ::testing::Values(RankCase{"selected2", 2, {}}, RankCase{"selected4", 4, {}},
                                         RankCase{"ring4", 4, {"parallel.strategy: RING"}},
                                         RankCase{
                                             "all_gather2", 2, {"parallel.strategy: ALL_GATHER"}},
                                         RankCase{"ulysses4", 4, {"parallel.ulysses: 4"}},
                                         RankCase{"ulysses2_selected2", 4, {"parallel.ulysses: 2"}},
                                         RankCase{"data2", 2, {"parallel.data: 2"}},
                                         RankCase{"data2_selected2", 4, {"parallel.data: 2"}})),
    [](const auto& info) {
      return std::string(std::get<0>(info.param) ? "vsa_" : "dense_") +
             std::get<1>(info.param).name;
    });

struct MethodCase {
  std::string name;
  Overrides overrides;
};

void PrintTo(const MethodCase& c, std::ostream* out) { *out << c.name; }

class EveryMethod : public ::testing::TestWithParam<MethodCase> {};

TEST_P(EveryMethod, TrainsTheSameOnTwoRanksAndWithRecomputation) {
  TemporaryFolder one, two, again;
  const Overrides& method = GetParam().overrides;
  const TrainResult expected = train(tiny_job(one.path().string(), 1, method));
  const TrainResult found = train(tiny_job(two.path().string(), 2, method));
  ASSERT_EQ(found.losses.size(), 20u);
  for (size_t step = 0; step < 20; ++step) {
    EXPECT_NEAR(found.losses[step], expected.losses[step], 1e-5 * expected.losses[step])
        << "step " << step;
  }
  EXPECT_LT(expected.losses.back(), expected.losses.front());
  const TrainResult recomputed = train(tiny_job(
      again.path().string(), 2, with(method, {"training.activation_checkpointing: BLOCK"})));
  EXPECT_EQ(recomputed.losses, found.losses);
}

INSTANTIATE_TEST_SUITE_P(
    Methods, EveryMethod,
    ::testing::Values(
        MethodCase{"vsa_fine_gate_subblock",
                   {"attention.method: VSA attention.vsa.fine_gate: true",
                    "attention.vsa { sparsity { start: 0.5 } score: SUBBLOCK query_parts: 2 "
                    "key_parts: 2 }"}},
        MethodCase{"bsa", {"attention.method: BSA attention.bsa.sparsity { start: 0.5 }"}},
        MethodCase{"bsa_mass_redundant",
                   {"attention.method: BSA attention.bsa { rule: MASS mass: 0.6 min_blocks: 2 "
                    "redundancy_threshold: 0.2 }"}},
        MethodCase{"psa", {"attention.method: PSA attention.block_tokens: 8"}},
        MethodCase{"asa",
                   {"attention.method: ASA attention.block_tokens: 8",
                    "attention.asa { samples: 4 max_keep: 0.5 global_width: 3 }"}},
        MethodCase{"sliding_tile",
                   {"attention.method: SLIDING_TILE",
                    "attention.sliding_tile.window { t: 1 h: 1 w: 3 }"}}),
    [](const auto& info) { return info.param.name; });

TEST(Training, BalancedHeadsChangeNoBit) {
  for (const Overrides& method :
       {Overrides{"attention.method: PSA attention.block_tokens: 8"},
        Overrides{"attention.method: ASA attention.block_tokens: 8 attention.asa.mass: 0.6"}}) {
    TemporaryFolder balanced, plain;
    const Overrides base =
        with(method, {"parallel.ulysses: 2", "training.activation_checkpointing: BLOCK"});
    const TrainResult found = train(tiny_job(balanced.path().string(), 2, base));
    const TrainResult expected =
        train(tiny_job(plain.path().string(), 2, with(base, {"parallel.balance_heads: false"})));
    EXPECT_EQ(found.losses, expected.losses);
    const auto lines = testing::read_bytes(balanced.path().string() + "/run/metrics.jsonl");
    const auto first = nlohmann::json::parse(lines.substr(0, lines.find('\n')));
    ASSERT_EQ(first.at("imbalance").at("by_layer").size(), 2u);
    EXPECT_GE(first.at("imbalance").at("min").get<double>(), 1);
    EXPECT_LT(first.at("imbalance").at("max").get<double>(), 2);
  }
}

TEST(Training, TwoRunsAreBitwiseEqual) {
  TemporaryFolder a, b;
  const TrainResult first = train(tiny_job(a.path().string(), 2, kVsa));
  const TrainResult second = train(tiny_job(b.path().string(), 2, kVsa));
  EXPECT_EQ(first.losses, second.losses);
  EXPECT_EQ(tensors_of(first.checkpoint + "/model"), tensors_of(second.checkpoint + "/model"));
}

TEST(Training, RecomputationDoesNotChangeABit) {
  TemporaryFolder a, b;
  const TrainResult kept = train(tiny_job(a.path().string(), 2, kVsa));
  const TrainResult again = train(
      tiny_job(b.path().string(), 2, with(kVsa, {"training.activation_checkpointing: BLOCK"})));
  EXPECT_EQ(kept.losses, again.losses);
}

TEST(Training, ResumeIsBitwiseEqualToTheUninterruptedRun) {
  TemporaryFolder whole, parts;
  const TrainResult expected = train(tiny_job(whole.path().string(), 2, kVsa));
  // A stop that was asked for before the first step ends the job after it, with a checkpoint.
  const config::Job job = tiny_job(parts.path().string(), 2, kVsa);
  const std::atomic<bool> stop{true};
  TrainOptions options;
  options.stop = &stop;
  const TrainResult first = train(job, options);
  EXPECT_EQ(first.exit_code, ExitCode::kInterrupted);
  EXPECT_EQ(first.last_step, 1);
  options.resume = "latest";
  const TrainResult second = train(job, options);
  EXPECT_EQ(second.first_step, 1);
  EXPECT_EQ(second.last_step, 2);
  options.stop = nullptr;
  const TrainResult third = train(job, options);
  EXPECT_EQ(third.exit_code, ExitCode::kOk);
  EXPECT_EQ(third.first_step, 2);

  std::vector<double> losses = first.losses;
  losses.insert(losses.end(), second.losses.begin(), second.losses.end());
  losses.insert(losses.end(), third.losses.begin(), third.losses.end());
  EXPECT_EQ(losses, expected.losses);
  EXPECT_EQ(tensors_of(third.checkpoint + "/model"), tensors_of(expected.checkpoint + "/model"));
  EXPECT_EQ(tensors_of(third.checkpoint + "/optim"), tensors_of(expected.checkpoint + "/optim"));

  // The metrics of all parts are one file without gaps or repetitions.
  std::stringstream lines(testing::read_bytes(parts.path().string() + "/run/metrics.jsonl"));
  std::string line;
  for (int64_t step = 1; std::getline(lines, line); ++step) {
    const auto object = nlohmann::json::parse(line);
    EXPECT_EQ(object.at("step"), step);
    EXPECT_EQ(object.at("loss"), expected.losses[step - 1]);
    EXPECT_EQ(object.at("coverage").at("by_layer").size(), 2u);
  }
}

TEST(Training, ResumesOnAnotherNumberOfRanks) {
  TemporaryFolder whole, parts;
  const TrainResult expected = train(tiny_job(whole.path().string(), 1, kVsa));
  const std::atomic<bool> stop{true};
  TrainOptions options;
  options.stop = &stop;
  train(tiny_job(parts.path().string(), 4, kVsa), options);
  options.stop = nullptr;
  options.resume = parts.path().string() + "/run/step_00000001";
  const TrainResult rest = train(tiny_job(parts.path().string(), 2, kVsa), options);
  ASSERT_EQ(rest.losses.size(), 19u);
  for (size_t i = 0; i < rest.losses.size(); ++i) {
    EXPECT_NEAR(rest.losses[i], expected.losses[i + 1], 1e-5 * expected.losses[i + 1]);
  }
}

// After one step without clipping the first moment is (1 - beta1) times the gradient.
TEST(Training, GradientsDoNotDependOnReplicasOrAccumulation) {
  const Overrides base = {"training.steps: 1", "training.global_batch: 4",
                          "training.optimizer.clip_norm: 0"};
  TemporaryFolder reference;
  const auto job = tiny_job(reference.path().string(), 1, with(base, {"training.micro_batch: 4"}));
  const auto expected = tensors_of(train(job).checkpoint + "/optim");
  const std::vector<std::pair<int, Overrides>> layouts = {
      {1, {"training.micro_batch: 1"}},
      {2, {"parallel.data: 2", "training.micro_batch: 2"}},
      {4, {"parallel.data: 2", "training.micro_batch: 1"}},
      {2, {"training.micro_batch: 2"}}};
  for (const auto& [ranks, overrides] : layouts) {
    TemporaryFolder folder;
    const auto found = tensors_of(
        train(tiny_job(folder.path().string(), ranks, with(base, overrides))).checkpoint +
        "/optim");
    ASSERT_EQ(found.size(), expected.size());
    for (const auto& [name, values] : expected) {
      if (!name.starts_with("exp_avg.")) continue;
      float largest = 0, difference = 0;
      for (size_t i = 0; i < values.size(); ++i) {
        largest = std::max(largest, std::abs(values[i]));
        difference = std::max(difference, std::abs(values[i] - found.at(name)[i]));
      }
      EXPECT_LE(difference, 1e-4f * largest + 1e-9f) << name << " on " << ranks << " ranks";
    }
  }
}

TEST(Training, KeepsTheNewestCheckpoints) {
  TemporaryFolder folder;
  const TrainResult result = train(tiny_job(
      folder.path().string(), 2,
      {"training.steps: 7", "output.checkpoint_interval: 2", "output.keep_checkpoints: 2"}));
  const auto left = runtime::list_checkpoints(folder.path().string() + "/run");
  ASSERT_EQ(left.size(), 2u);
  EXPECT_EQ(left[0].step, 7);
  EXPECT_EQ(left[1].step, 6);
  EXPECT_EQ(left[0].path, result.checkpoint);
}

TEST(Training, WritesSamplesAndTheReport) {
  TemporaryFolder folder;
  train(tiny_job(folder.path().string(), 2,
                 with(kVsa, {"training.steps: 4", "output.sample_interval: 2"})));
  const std::string run = folder.path().string() + "/run";
  for (const char* file :
       {"samples/step_00000002_0.mp4", "samples/step_00000004_0.png", "job.txtpb",
        "profile/report.html", "profile/trace.json", "profile/events/rank_000001.events"}) {
    EXPECT_TRUE(fs::exists(fs::path(run) / file)) << file;
  }
  const auto profile = nlohmann::json::parse(testing::read_bytes(run + "/profile.json"));
  EXPECT_EQ(profile.at("schema"), 2);
  EXPECT_EQ(profile.at("window").at("steps"), 3);
  EXPECT_FALSE(profile.at("window").at("complete"));  // twenty were asked for
  EXPECT_EQ(profile.at("ranks").size(), 2u);
  EXPECT_GT(profile.at("shares").at("compute").get<double>(), 0);
  EXPECT_EQ(profile.at("curves").at("loss").size(), 4u);
  EXPECT_GT(profile.at("layers").at(0).at("coverage").at("mean").get<double>(), 0);
}

TEST(Training, ALossThatIsNoNumberEndsTheJobAndKeepsTheCheckpoint) {
  TemporaryFolder folder;
  const auto job =
      tiny_job(folder.path().string(), 2,
               {"output.checkpoint_interval: 1", "output.keep_checkpoints: 0",
                "training.optimizer.learning_rate: 1e30", "training.optimizer.warmup_steps: 0"});
  const std::string message = message_of<NonFiniteError>([&] { train(job); });
  EXPECT_NE(message.find("the loss is"), std::string::npos) << message;
  const auto newest = runtime::find_newest_checkpoint(folder.path().string() + "/run");
  ASSERT_TRUE(newest);
  EXPECT_EQ(newest->step, 1);
}

// A head whose input is exactly zero: a finite loss, and gradients that overflow.
std::string write_overflowing_weights(const config::Job& job, const std::string& folder) {
  models::ParameterStore store(runtime::model_parameters(job));
  store.initialise(1);
  const auto fill = [&store](const char* name, float value) {
    const int index = store.index_of(name);
    auto* values = store.flat_parameters().data_ptr<float>() + store.offset(index);
    std::fill(values, values + store.spec(index).elements(), value);
  };
  fill("time_embedding.2.weight", 0);
  fill("time_embedding.2.bias", 0);
  fill("head.modulation", 0);
  auto* modulation =
      store.flat_parameters().data_ptr<float>() + store.offset(store.index_of("head.modulation"));
  std::fill(modulation + job.model().dim(), modulation + 2 * job.model().dim(), -1.0f);  // scale
  fill("head.head.weight", 3e38f);
  fill("head.head.bias", 1000);
  const std::string path = folder + "/weights.safetensors";
  models::save_wan_weights(path, store, models::NameScheme::kOfficial);
  return path;
}

TEST(Training, StepsWithoutAFiniteGradientAreSkippedUntilThereAreTooMany) {
  TemporaryFolder folder;
  const std::string weights =
      write_overflowing_weights(tiny_job(folder.path().string(), 2), folder.path().string());
  const Overrides base = {"model.weights: '" + weights + "'", "training.max_skipped_steps: 3"};
  const auto few = tiny_job(folder.path().string(), 2, with(base, {"training.steps: 2"}));
  const TrainResult result = train(few);
  EXPECT_EQ(result.skipped_steps, 2);
  EXPECT_EQ(tensors_of(result.checkpoint + "/model").at("head.head.bias"),
            std::vector<float>(16, 1000.0f));
  TrainOptions options;
  options.resume = "latest";
  fs::remove(weights);  // a checkpoint needs them no more
  const auto more = tiny_job(folder.path().string(), 2, base);
  const std::string message = message_of<NonFiniteError>([&] { train(more, options); });
  EXPECT_NE(message.find("3 steps in a row"), std::string::npos) << message;
  EXPECT_EQ(runtime::find_newest_checkpoint(folder.path().string() + "/run")->step, 2);
}

TEST(Training, RefusesAFolderThatHoldsAnotherRun) {
  TemporaryFolder folder;
  const auto job = tiny_job(folder.path().string(), 2, {"training.steps: 2"});
  train(job);
  const std::string message = message_of<OutputError>([&] { train(job); });
  EXPECT_NE(message.find("already holds a run (job.txtpb, metrics.jsonl, profile.json, "
                         "step_00000002)"),
            std::string::npos)
      << message;
  EXPECT_TRUE(runtime::find_newest_checkpoint(folder.path().string() + "/run"));
}

TEST(Training, RefusesACheckpointOfAnotherArchitecture) {
  TemporaryFolder folder;
  train(tiny_job(folder.path().string(), 1, {"training.steps: 1"}));
  TrainOptions options;
  options.resume = "latest";
  const auto other = tiny_job(folder.path().string(), 2, with(kVsa, {"model.ffn_dim: 80"}));
  const std::string message = message_of<InputError>([&] { train(other, options); });
  EXPECT_NE(message.find("model.ffn_dim: checkpoint 64, job 80"), std::string::npos) << message;
  EXPECT_NE(message.find("checkpoint has no gates, job a coarse gate"), std::string::npos)
      << message;
}

TEST(Training, RefusesACheckpointOfAnotherLayout) {
  TemporaryFolder folder;
  train(tiny_job(folder.path().string(), 1, with(kVsa, {"training.steps: 1"})));
  TrainOptions options;
  options.resume = "latest";
  const std::pair<const char*, const char*> changes[] = {
      {"attention.order: RASTER", "attention.order: checkpoint KD, job RASTER"},
      {"attention.cube { t: 1 h: 4 w: 2 }", "attention.cube: checkpoint 2 x 2 x 2, job 1 x 4 x 2"},
      {"attention.domains: 2", "attention.domains: checkpoint 4, job 2"}};
  for (const auto& [change, difference] : changes) {
    const auto job = tiny_job(folder.path().string(), 2, with(kVsa, {change}));
    const std::string message = message_of<InputError>([&] { train(job, options); });
    EXPECT_NE(message.find("another layout of the tokens"), std::string::npos) << message;
    EXPECT_NE(message.find(difference), std::string::npos) << message;
  }
}

TEST(LayoutDifferences, AreThoseThatTheMethodsOfBothSee) {
  TemporaryFolder folder;
  const auto job = [&](const Overrides& overrides) {
    return tiny_job(folder.path().string(), 1, overrides);
  };
  const auto hilbert = [&](const char* method, int run) {
    return job({std::string("attention { method: ") + method +
                " order: HILBERT block_tokens: " + std::to_string(run) + " }"});
  };
  using runtime::layout_differences;
  EXPECT_TRUE(layout_differences(job(kVsa), job(kVsa)).empty());
  // A cube is not used by runs of tokens.
  EXPECT_EQ(layout_differences(hilbert("PSA", 8), hilbert("PSA", 16)),
            std::vector<std::string>{"attention.block_tokens: checkpoint 8, job 16"});
  EXPECT_EQ(layout_differences(job(kVsa), hilbert("PSA", 8)),
            std::vector<std::string>{"attention.order: checkpoint KD, job HILBERT"});
  // Dense attention goes on with any sparse method, but not with another order of its own sums.
  EXPECT_TRUE(layout_differences(job({}), hilbert("PSA", 8)).empty());
  EXPECT_EQ(layout_differences(job({}), job({"attention.order: RASTER"})),
            std::vector<std::string>{"attention.order: checkpoint KD, job RASTER"});
  EXPECT_EQ(layout_differences(hilbert("ASA", 8), job({})),
            std::vector<std::string>{"attention.order: checkpoint HILBERT, job KD"});
}

TEST(Training, NamesAFolderThatCannotBeWritten) {
  TemporaryFolder folder;
  testing::write_bytes(folder.path().string() + "/run", "a file");
  const std::string message =
      message_of<OutputError>([&] { train(tiny_job(folder.path().string(), 2)); });
  EXPECT_NE(message.find("/run: cannot be created: Not a directory"), std::string::npos) << message;
}

TEST(Training, RefusesDataThatDoNotFitTheModel) {
  TemporaryFolder folder;
  const auto channels = tiny_job(folder.path().string(), 2, {"model.latent_channels: 8"});
  EXPECT_NE(message_of<ConfigError>([&] { train(channels); }).find("latent_channels"),
            std::string::npos);
  const auto text = tiny_job(folder.path().string(), 2, {"model.text_dim: 16"});
  EXPECT_NE(message_of<InputError>([&] { train(text); }).find("4 x 8 (tokens x dim)"),
            std::string::npos);
  EXPECT_FALSE(fs::exists(folder.path().string() + "/run"));
}

}  // namespace
}  // namespace sprocket
