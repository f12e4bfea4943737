// The moving average of a training's weights: what it is, what uses it, resume, bad input.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <string>
#include <vector>

#include "base/error.h"
#include "models/safetensors/tensor_set.h"
#include "runtime/jobs/sample_job.h"
#include "tests/data/temporary_folder.h"
#include "tests/runtime/thread_ranks.h"
#include "tests/runtime/tiny_job.h"

namespace sprocket::runtime {
namespace {

namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::message_of;

class EmaJob : public ::testing::Test {
 protected:
  std::string path(const std::string& name) const { return (folder_.path() / name).string(); }

  config::Job job(int ranks, const std::string& run,
                  std::vector<std::string> overrides = {}) const {
    overrides.insert(overrides.begin(),
                     "training { steps: 3 ema_decay: 0.75 optimizer { learning_rate: 0.01 decay: "
                     "CONSTANT warmup_steps: 0 } }");
    config::Job job = testing::tiny_job(path(""), ranks, overrides);
    job.mutable_output()->set_directory(path(run));
    return job;
  }

  std::string checkpoint(const std::string& run, int step) const {
    return path(run) + "/step_0000000" + std::to_string(step);
  }

 private:
  const testing::TemporaryFolder folder_;
};

std::vector<float> values_of(const std::string& folder, const std::string& name) {
  return safetensors::TensorSet::open(folder).floats(name);
}

TEST_F(EmaJob, IsTheRecursionOverTheStepsWeights) {
  testing::train(job(1, "start", {"training { steps: 1 ema_decay: 0 }"}));
  const std::string every = "output { checkpoint_interval: 1 keep_checkpoints: 0 }";
  testing::train(job(2, "run", {"model.weights: '" + path("start") + "'", every}));
  const std::vector<std::string> names =
      safetensors::TensorSet::open(checkpoint("run", 3) + "/ema").names();
  EXPECT_EQ(names, safetensors::TensorSet::open(checkpoint("run", 3) + "/model").names());
  double largest_step = 0;
  for (const std::string& name : names) {
    std::vector<float> expected = values_of(checkpoint("start", 1) + "/model", name);
    for (int step = 1; step <= 3; ++step) {
      const std::vector<float> weights = values_of(checkpoint("run", step) + "/model", name);
      const std::vector<float> found = values_of(checkpoint("run", step) + "/ema", name);
      for (size_t i = 0; i < expected.size(); ++i) {
        largest_step = std::max<double>(largest_step, std::abs(weights[i] - expected[i]));
        expected[i] = 0.75f * expected[i] + 0.25f * weights[i];
        // Two roundings of each of three steps.
        ASSERT_NEAR(found[i], expected[i], 6 * 0x1p-24 * std::abs(expected[i]) + 1e-9) << name;
      }
    }
  }
  EXPECT_GT(largest_step, 0.001);  // otherwise any average would do
}

TEST_F(EmaJob, ValidationSamplesAndNewRunsTakeTheAverage) {
  const std::string validation = "training.validation { path: '" + path("data") + "' interval: 3 }";
  const TrainResult run = testing::train(job(1, "run", {validation}));
  ASSERT_EQ(run.validation_losses.size(), 2u);
  const auto loss_of = [&](const std::string& name, const std::string& weights) {
    return testing::train(job(1, name,
                              {validation, "model.weights: '" + weights + "'",
                               "training { steps: 1 ema_decay: 0 }"}))
        .validation_losses.at(0);
  };
  EXPECT_EQ(loss_of("of_run", path("run")), run.validation_losses[1]);
  EXPECT_EQ(loss_of("of_average", run.checkpoint + "/ema"), run.validation_losses[1]);
  EXPECT_NE(loss_of("of_weights", run.checkpoint + "/model"), run.validation_losses[1]);

  const auto picture = [&](const std::string& checkpoint, const std::string& name) {
    SampleOptions options;
    options.checkpoint = checkpoint;
    options.output = path(name);
    std::string bytes;
    testing::run_ranks(1, [&](std::unique_ptr<comm::Communicator> world) {
      const config::Job job = this->job(1, "run", {"sampling.steps: 2"});
      bytes = testing::read_bytes(run_sampling(job, std::move(world), options).samples.at(0).sheet);
    });
    return bytes;
  };
  // A run that makes a step of no size keeps the weights that it started from.
  const auto kept = [&](const std::string& name, const std::string& weights) {
    return testing::train(job(1, name,
                              {"model.weights: '" + weights + "'",
                               "training { steps: 1 ema_decay: 0 optimizer { "
                               "learning_rate: 0 } }"}))
        .checkpoint;
  };
  const std::string of_run = picture(run.checkpoint, "samples");
  EXPECT_TRUE(of_run == picture(kept("average", run.checkpoint + "/ema"), "samples_average"));
  EXPECT_FALSE(of_run == picture(kept("weights", run.checkpoint + "/model"), "samples_weights"));
}

TEST_F(EmaJob, AResumedRunHasTheSameBits) {
  const std::string whole = testing::train(job(2, "whole")).checkpoint;
  testing::train(job(2, "half", {"training.steps: 2"}));
  TrainOptions options;
  options.resume = "latest";
  const std::string rest = testing::train(job(2, "half"), options).checkpoint;
  int compared = 0;
  for (const char* part : {"model", "optim", "ema"}) {
    for (const auto& file : fs::directory_iterator(fs::path(whole) / part)) {
      const std::string other = (fs::path(rest) / part / file.path().filename()).string();
      EXPECT_TRUE(testing::read_bytes(file.path().string()) == testing::read_bytes(other)) << other;
      ++compared;
    }
  }
  EXPECT_EQ(compared, 9);  // a file of each rank and an index, of each part
}

TEST_F(EmaJob, ACheckpointWithoutAnAverageIsRefused) {
  testing::train(job(1, "run", {"training { steps: 1 ema_decay: 0 }"}));
  TrainOptions options;
  options.resume = "latest";
  EXPECT_THAT(message_of<InputError>([&] { testing::train(job(1, "run"), options); }),
              AllOf(HasSubstr("step_00000001: has no moving average"),
                    HasSubstr("training.ema_decay is 0.75")));
}

}  // namespace
}  // namespace sprocket::runtime
