// The loss on held-out clips: a function of the weights and of training.validation alone.
#include <ATen/TensorOperators.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <sstream>

#include "base/error.h"
#include "parallel/mesh.h"
#include "runtime/data/latent_dataset.h"
#include "runtime/plan/job_specs.h"
#include "runtime/train/flow.h"
#include "runtime/train/network.h"
#include "runtime/train/text_input.h"
#include "tests/data/temporary_folder.h"
#include "tests/runtime/thread_ranks.h"
#include "tests/runtime/tiny_job.h"

namespace sprocket {
namespace {

using runtime::TrainOptions;
using runtime::TrainResult;
using testing::TemporaryFolder;
using testing::tiny_job;
using testing::train;
using Overrides = std::vector<std::string>;

// Held-out clips of another scale beside root/data.
Overrides with_validation(const TemporaryFolder& root, Overrides more = {}) {
  const std::string folder = root.path().string() + "/held_out";
  if (!std::filesystem::exists(folder)) testing::write_tiny_data(folder, 0.7f);
  more.push_back("training.validation { path: \"" + folder + "\" }");
  return more;
}

std::vector<nlohmann::json> lines_of(const std::string& file) {
  std::stringstream text(testing::read_bytes(file));
  std::vector<nlohmann::json> lines;
  for (std::string line; std::getline(text, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

const Overrides kVsa = {"attention.method: VSA", "attention.vsa.sparsity { start: 0.5 }",
                        "attention.max_coverage { start: 0.5 }", "training.steps: 4",
                        "training.validation { interval: 2 levels: 3 draws: 2 }"};

TEST(Validation, IsTheSameOnEveryMesh) {
  TemporaryFolder one;
  const TrainResult expected = train(tiny_job(one.path().string(), 1, with_validation(one, kVsa)));
  ASSERT_EQ(expected.validation_losses.size(), 3u);  // before, after 2 and after 4 steps
  for (const auto& [ranks, mesh] : std::vector<std::pair<int, std::string>>{
           {2, ""}, {4, "parallel.ulysses: 2"}, {2, "parallel.data: 2"}}) {
    TemporaryFolder root;
    Overrides overrides = kVsa;
    if (!mesh.empty()) overrides.push_back(mesh);
    const TrainResult found =
        train(tiny_job(root.path().string(), ranks, with_validation(root, overrides)));
    ASSERT_EQ(found.validation_losses.size(), 3u);
    for (size_t i = 0; i < 3; ++i) {
      EXPECT_NEAR(found.validation_losses[i], expected.validation_losses[i],
                  1e-5 * expected.validation_losses[i]);
    }
  }
}

// The formula once more, for the weights that the job starts with: its learning rate is zero.
TEST(Validation, IsTheMeanSquaredErrorAtFixedNoise) {
  TemporaryFolder root;
  const config::Job job =
      tiny_job(root.path().string(), 1,
               with_validation(
                   root, {"training.optimizer { learning_rate: 0 }", "training.steps: 1",
                          "training.validation { levels: 2 draws: 2 seed: 9 }", "flow.shift: 3"}));
  const TrainResult result = train(job);
  ASSERT_EQ(result.validation_losses.size(), 1u);

  double by_level[2] = {0, 0};
  testing::run_ranks(1, [&](std::unique_ptr<comm::Communicator> world) {
    const parallel::Mesh mesh(std::move(world), runtime::mesh_shape(job));
    runtime::Network network(job, mesh, 1, runtime::Network::Start::kFresh);
    data::LatentDataset training(job.data().path()), clips(job.training().validation().path());
    const auto& ours = training.index().statistics;
    int64_t number = 0;
    for (int64_t clip = 0; clip < clips.size(); ++clip) {
      const data::Sample sample = clips.load(clip);
      const data::LatentShape shape = clips.index().samples[clip].shape;
      const std::vector<int64_t> sizes{1, shape.c, shape.t, shape.h, shape.w};
      // What is stored, by the statistics of the training's data.
      at::Tensor x0 = at::from_blob(const_cast<float*>(sample.latent.data()), sizes).clone();
      for (int64_t c = 0; c < shape.c; ++c) {
        x0.select(1, c)
            .mul_(clips.index().statistics.std[c])
            .add_(clips.index().statistics.mean[c])
            .sub_(ours.mean[c])
            .div_(ours.std[c]);
      }
      for (int level = 0; level < 2; ++level) {
        const double s = level == 0 ? 0.25 : 0.75, noise_level = 3 * s / (1 + 2 * s);
        for (int draw = 0; draw < 2; ++draw) {
          const std::vector<float> noise = runtime::draw_noise(shape.elements(), {9, -1, number++});
          const at::Tensor eps = at::from_blob(const_cast<float*>(noise.data()), sizes);
          const at::Tensor noisy = x0 * (1 - noise_level) + eps * noise_level;
          const at::Tensor velocity = network.velocity(
              network.own_patches(noisy, shape, models::FeatureOrder::kChannelFirst),
              at::full({1}, 1000 * noise_level), runtime::text_tensor(job.model(), sample.text),
              shape, runtime::attention_spec(job.attention(), 0));
          const at::Tensor target = network.own_patches(eps - x0, shape, network.output_order());
          by_level[level] += (velocity - target).square().mean().item<double>() / 8;
        }
      }
    }
  });
  const auto lines = lines_of(root.path().string() + "/run/validation.jsonl");
  ASSERT_EQ(lines.size(), 1u);
  EXPECT_EQ(lines[0].at("step"), 1);
  EXPECT_EQ(lines[0].at("loss"), result.validation_losses[0]);
  for (int level = 0; level < 2; ++level) {
    EXPECT_NEAR(lines[0].at("by_level").at(level).get<double>(), by_level[level],
                1e-5 * by_level[level]);
  }
  EXPECT_NEAR(result.validation_losses[0], (by_level[0] + by_level[1]) / 2, 1e-5);
}

TEST(Validation, DoesNotTouchTheTraining) {
  TemporaryFolder with, without;
  const TrainResult a = train(tiny_job(with.path().string(), 1,
                                       with_validation(with, {"training.validation.interval: 1",
                                                              "training.steps: 5"}))),
                    b = train(tiny_job(without.path().string(), 1, {"training.steps: 5"}));
  EXPECT_EQ(a.validation_losses.size(), 6u);
  EXPECT_TRUE(b.validation_losses.empty());
  EXPECT_EQ(a.losses, b.losses);
  EXPECT_FALSE(std::filesystem::exists(without.path() / "run/validation.jsonl"));
}

TEST(Validation, AResumedRunHasOneFile) {
  TemporaryFolder whole, parts;
  const Overrides more = {"training.validation.interval: 1", "training.steps: 4"};
  const auto expected = train(tiny_job(whole.path().string(), 1, with_validation(whole, more)));
  const std::atomic<bool> stop{true};
  TrainOptions options;
  options.stop = &stop;
  const config::Job job = tiny_job(parts.path().string(), 1, with_validation(parts, more));
  train(job, options);
  options.stop = nullptr;
  options.resume = "latest";
  train(job, options);
  const auto lines = lines_of(parts.path().string() + "/run/validation.jsonl");
  std::vector<int> steps;
  for (const auto& line : lines) {
    const int step = steps.emplace_back(line.at("step").get<int>());
    EXPECT_EQ(line.at("loss"), expected.validation_losses.at(step)) << step;
  }
  EXPECT_EQ(steps, (std::vector<int>{0, 2, 3, 4}));  // the stopped step is not validated
}

TEST(Validation, ARunThatStartsOverHasOneLineForAStep) {
  TemporaryFolder root;
  const config::Job job =
      tiny_job(root.path().string(), 1,
               with_validation(root, {"training.validation.interval: 1", "training.steps: 2"}));
  train(job);
  std::filesystem::remove_all(root.path() / "run/step_00000002");
  TrainOptions options;
  options.resume = "latest";
  EXPECT_EQ(train(job, options).first_step, 0);
  std::vector<int> steps;
  for (const auto& line : lines_of(root.path().string() + "/run/validation.jsonl")) {
    steps.push_back(line.at("step").get<int>());
  }
  EXPECT_EQ(steps, (std::vector<int>{0, 1, 2}));
}

TEST(Metrics, RecordCoverageAndKeptMassByLayerAndHead) {
  const Overrides budgeted = {"attention.method: VSA", "attention.vsa.sparsity { start: 0.5 }",
                              "attention.max_coverage { start: 1 end: .25 increment: -.75 }",
                              "attention.budget_head_group: 2", "training.steps: 3"};
  std::vector<std::vector<nlohmann::json>> runs;
  for (const auto& [ranks, mesh] :
       std::vector<std::pair<int, std::string>>{{1, "1"}, {2, "1"}, {4, "2"}}) {
    TemporaryFolder root;
    Overrides overrides = budgeted;
    overrides.push_back("parallel.ulysses: " + mesh);
    train(tiny_job(root.path().string(), ranks, overrides));
    runs.push_back(lines_of(root.path().string() + "/run/metrics.jsonl"));
    ASSERT_EQ(runs.back().size(), 3u);
    EXPECT_FALSE(runs.back()[0].contains("kept_mass"));  // no budget yet
    for (int step = 0; step < 3; ++step) {
      const auto& line = runs.back()[step];
      for (const char* key : {"domain_coverage", "kept_mass"}) {
        if (!line.contains(key)) continue;
        const auto& by_head = line.at(key).at("by_head");
        ASSERT_EQ(by_head.size(), 2u);
        double sum = 0;
        for (const auto& layer : by_head) {
          ASSERT_EQ(layer.size(), 4u);
          for (const auto& share : layer) {
            EXPECT_GT(share.get<double>(), 0);
            EXPECT_LE(share.get<double>(), 1);
            sum += share.get<double>() / 8;
          }
        }
        EXPECT_NEAR(line.at(key).at("mean").get<double>(), sum, 1e-4);
        // The same on every mesh, but for selections that a rounding turned.
        EXPECT_NEAR(line.at(key).at("mean").get<double>(),
                    runs[0][step].at(key).at("mean").get<double>(), 0.02);
      }
    }
    EXPECT_TRUE(runs.back()[2].contains("kept_mass"));
    EXPECT_LE(runs.back()[2].at("domain_coverage").at("mean").get<double>(), 0.25);
    EXPECT_LT(runs.back()[2].at("domain_coverage").at("mean"),
              runs.back()[0].at("domain_coverage").at("mean"));
  }
}

}  // namespace
}  // namespace sprocket
