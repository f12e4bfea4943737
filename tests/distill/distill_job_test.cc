// `sprocket distill` on a tiny trained teacher: ranks, resume, what it writes, bad input.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "configs/load.h"
#include "models/safetensors/tensor_set.h"
#include "runtime/checkpoint/run_checkpoints.h"
#include "runtime/data/embed_prompts.h"
#include "runtime/jobs/distill_job.h"
#include "runtime/jobs/sample_job.h"
#include "tests/data/temporary_folder.h"
#include "tests/runtime/thread_ranks.h"
#include "tests/runtime/tiny_job.h"

namespace sprocket::runtime {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

class DistillJobTest : public ::testing::Test {
 protected:
  std::string path(const std::string& name) const { return (folder_.path() / name).string(); }

  void SetUp() override { testing::train(testing::tiny_job(path(""), 1, {"training.steps: 4"})); }

  config::Job job(int ranks, const std::string& run,
                  std::vector<std::string> overrides = {}) const {
    overrides.insert(overrides.begin(),
                     {"attention { method: VSA vsa { sparsity { start: 0.5 } } }",
                      "distillation { teacher { weights: '" + path("run") +
                          "' } guidance: 2 tdm { segments: 4 skip_above: 0 } }",
                      "training { steps: 4 activation_checkpointing: BLOCK ema_decay: 0.9 }"});
    config::Job job = testing::tiny_job(path(""), ranks, overrides, config::Purpose::kDistill);
    job.mutable_output()->set_directory(path(run));
    return job;
  }

  DistillResult distill(const config::Job& job, const std::string& resume = "none") const {
    const config::Parallel& parallel = job.parallel();
    const int ranks = parallel.data() * parallel.outer() * parallel.ulysses();
    std::vector<DistillResult> results(ranks);
    testing::run_ranks(ranks, [&](std::unique_ptr<comm::Communicator> world) {
      TrainOptions options;
      options.resume = resume;
      options.print_report = false;
      const int rank = world->rank();
      results[rank] = run_distillation(job, std::move(world), options);
    });
    return results[0];
  }

  std::string error_of(const config::Job& job) const {
    try {
      distill(job);
    } catch (const InputError& error) {
      return error.what();
    }
    return "no error";
  }

 private:
  const testing::TemporaryFolder folder_;
};

void expect_close(const DistillResult& one, const DistillResult& many) {
  ASSERT_EQ(one.steps.size(), many.steps.size());
  for (size_t step = 0; step < one.steps.size(); ++step) {
    ASSERT_EQ(one.steps[step].size(), many.steps[step].size());
    for (size_t phase = 0; phase < one.steps[step].size(); ++phase) {
      const PhaseOutcome &a = one.steps[step][phase], &b = many.steps[step][phase];
      EXPECT_TRUE(a.updated());
      EXPECT_NEAR(a.loss, b.loss, 1e-5 * a.loss) << a.name << " of step " << step;
      EXPECT_NEAR(a.gradient_norm, b.gradient_norm, 1e-4 * a.gradient_norm) << a.name;
    }
  }
}

TEST_F(DistillJobTest, LossesOnSeveralRanksAreThoseOfOne) {
  const DistillResult one = distill(job(1, "one"));
  expect_close(one, distill(job(2, "two", {"parallel { outer: 2 strategy: SELECTED }"})));
  expect_close(one, distill(job(4, "four",
                                {"parallel { data: 2 ulysses: 2 outer: 1 }",
                                 "distillation.teacher.parallel { data: 2 outer: 2 }"})));
}

TEST_F(DistillJobTest, AResumedRunHasTheSameBits) {
  const DistillResult whole = distill(job(2, "whole", {"output.checkpoint_interval: 2"}));
  distill(job(2, "half", {"training.steps: 2"}));
  const DistillResult rest = distill(job(2, "half"), "latest");
  EXPECT_EQ(rest.first_step, 2);
  EXPECT_EQ(rest.last_step, 4);
  int compared = 0;
  for (const auto& entry : fs::recursive_directory_iterator(whole.checkpoint)) {
    if (entry.path().extension() != ".safetensors") continue;
    const fs::path relative = fs::relative(entry.path(), whole.checkpoint);
    EXPECT_EQ(testing::read_bytes(entry.path().string()),
              testing::read_bytes((fs::path(rest.checkpoint) / relative).string()))
        << relative;
    ++compared;
  }
  EXPECT_EQ(compared, 10);  // model, optim, fake_score, fake_score_optim and ema, of two ranks
}

// Student and fake score have adapters beside the teacher's weights, which are in memory once and
// in no checkpoint.
TEST_F(DistillJobTest, AdaptersOfTwoNetworksOnOneBase) {
  const std::vector<std::string> lora = {"training { lora { rank: 3 } }"};
  const auto with = [&](std::vector<std::string> more) {
    more.insert(more.begin(), lora.begin(), lora.end());
    return more;
  };
  expect_close(distill(job(1, "one", lora)),
               distill(job(2, "two", with({"parallel { outer: 2 strategy: SELECTED }"}))));
  const DistillResult whole = distill(job(2, "whole", lora));
  distill(job(2, "half", with({"training.steps: 2"})));
  const DistillResult rest = distill(job(2, "half", lora), "latest");
  for (const char* part : {"model", "optim", "fake_score", "fake_score_optim", "ema"}) {
    const auto tensors = safetensors::TensorSet::open(whole.checkpoint + "/" + part);
    const auto again = safetensors::TensorSet::open(rest.checkpoint + "/" + part);
    // Adapters of ten layers in each of two blocks, and a gate of weight and bias.
    const size_t moments = std::string(part).ends_with("optim") ? 2 : 1;
    EXPECT_EQ(tensors.names().size(), moments * 2 * (10 * 2 + 2)) << part;
    for (const std::string& name : tensors.names()) {
      EXPECT_EQ(tensors.floats(name), again.floats(name)) << part << " " << name;
    }
  }
  SampleOptions options;
  options.checkpoint = whole.checkpoint;
  options.output = path("samples");
  testing::run_ranks(1, [&](std::unique_ptr<comm::Communicator> world) {
    run_sampling(job(1, "whole", with({"sampling.steps: 2"})), std::move(world), options);
  });
  EXPECT_TRUE(fs::exists(path("samples/step_00000004_0.png")));
}

TEST_F(DistillJobTest, TheAverageIsWhatIsSampledFrom) {
  const config::Job with = job(1, "average", {"sampling.steps: 4"});
  distill(with);
  const auto sample = [&](const config::Job& job, const std::string& to) {
    SampleOptions options;
    options.output = path(to);
    options.checkpoint = path("average");
    testing::run_ranks(1, [&](std::unique_ptr<comm::Communicator> world) {
      run_sampling(job, std::move(world), options);
    });
    return testing::read_bytes(path(to + "/step_00000004_0.png"));
  };
  const std::string before = sample(with, "a");
  const std::string checkpoint = open_checkpoint(path("average")).path;
  EXPECT_TRUE(fs::exists(checkpoint + "/ema/ema.safetensors"));
  EXPECT_NE(testing::read_bytes(checkpoint + "/ema/ema.safetensors"),
            testing::read_bytes(checkpoint + "/model/model.safetensors"));
  EXPECT_EQ(before, sample(with, "b"));
}

TEST_F(DistillJobTest, MetricsHaveBothNetworks) {
  distill(job(2, "run_metrics", {"profile { steps: 2 warmup: 1 }"}));
  std::ifstream file(path("run_metrics/metrics.jsonl"));
  std::string line;
  int lines = 0;
  while (std::getline(file, line)) {
    const auto metrics = nlohmann::json::parse(line);
    for (const char* network : {"student", "fake_score"}) {
      EXPECT_GT(metrics.at(network).at("loss").get<double>(), 0);
      EXPECT_GT(metrics.at(network).at("grad_norm").get<double>(), 0);
      EXPECT_NEAR(metrics.at(network).at("density").get<double>(), 0.5, 0.1);
      EXPECT_GT(metrics.at(network).at("coverage").get<double>(), 0);
      EXPECT_LE(metrics.at(network).at("coverage").get<double>(), 1);
    }
    EXPECT_GT(metrics.at("student").at("score_gap").get<double>(), 0);
    EXPECT_FALSE(metrics.at("fake_score").contains("score_gap"));
    // A loss and its gradient for each sample of the two; everything else without.
    for (const char* network : {"student", "fake_score"}) {
      EXPECT_EQ(metrics.at("evaluations").at(network).at("with_graph"), 2);
    }
    EXPECT_EQ(metrics.at("evaluations").at("teacher").at("with_graph"), 0);
    EXPECT_EQ(metrics.at("evaluations").at("teacher").at("plain"), 2 * 2);  // guided
    EXPECT_EQ(metrics.at("evaluations").at("fake_score").at("plain"), 2);
    // Of the fake score's phase, and the trajectory down to the lower one of two segments.
    EXPECT_GE(metrics.at("evaluations").at("student").at("plain"), 2);
    EXPECT_LE(metrics.at("evaluations").at("student").at("plain"), 2 * (1 + 3));
    ++lines;
  }
  EXPECT_EQ(lines, 4);
  const auto profile = nlohmann::json::parse(testing::read_bytes(path("run_metrics/profile.json")));
  EXPECT_EQ(profile.at("job").at("kind"), "distill");
  EXPECT_TRUE(profile.at("window").at("complete"));
}

// For videos of the tiny data set's size, without knowing their codec; its text has 4 tokens.
std::string embed(const std::string& root, int64_t tokens) {
  std::ofstream(root + "/prompts.txt") << "a red fox\na blue bird\nclip 1\n";
  data::EmbedOptions options;
  options.prompts = root + "/prompts.txt";
  options.negative = "blurry";
  options.tokens = tokens;
  options.dim = 8;
  options.width = 80;
  options.height = 64;
  options.frames = 9;
  options.channels = 4;
  options.output = root + "/prompts_" + std::to_string(tokens);
  data::embed_prompts(options);
  return options.output;
}

TEST_F(DistillJobTest, PromptsAloneAreEnough) {
  const std::string prompts = "data.path: '" + embed(path(""), 4) + "'";
  const std::vector<std::string> more = {prompts, "output.sample_interval: 2",
                                         "sampling { steps: 2 guidance: 1 }"};
  const DistillResult one = distill(job(1, "prompts", more));
  EXPECT_TRUE(fs::exists(path("prompts/samples/step_00000004_0.mp4")));
  std::vector<std::string> on_two = more;
  on_two.push_back("parallel { outer: 2 strategy: RING }");
  expect_close(one, distill(job(2, "prompts_two", on_two)));
  // Another negative prompt than the captions' zeros, other texts.
  EXPECT_NE(one.steps[0][0].loss, distill(job(1, "captions")).steps[0][0].loss);
}

TEST_F(DistillJobTest, PromptsOfAnotherEmbedderAreRefused) {
  const std::string prompts = "data.path: '" + embed(path(""), 3) + "'";
  EXPECT_THAT(error_of(job(1, "embedder", {prompts})), HasSubstr("hashed"));
}

TEST_F(DistillJobTest, ATeacherOfAnotherModelIsRefused) {
  EXPECT_THAT(error_of(job(1, "other", {"model.layers: 3"})),
              HasSubstr("model.layers: checkpoint 2, job 3"));
}

TEST_F(DistillJobTest, ARunOfTrainingIsNoDistillation) {
  config::Job resumed = job(1, "resumed", {"attention { method: DENSE }"});
  try {
    distill(resumed, path("run"));
    ADD_FAILURE() << "expected an error";
  } catch (const InputError& error) {
    EXPECT_THAT(error.what(), HasSubstr("expected a checkpoint of `sprocket distill`"));
  }
}

}  // namespace
}  // namespace sprocket::runtime
