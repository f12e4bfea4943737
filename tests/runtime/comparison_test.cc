// Two models, the same prompts and noise: figures and files.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "runtime/jobs/comparison.h"
#include "runtime/plan/job_specs.h"
#include "tests/data/temporary_folder.h"
#include "tests/runtime/thread_ranks.h"
#include "tests/runtime/tiny_job.h"

namespace sprocket {
namespace {

namespace fs = std::filesystem;
using testing::message_of;
using testing::TemporaryFolder;
using testing::tiny_job;

class ComparisonTest : public ::testing::Test {
 protected:
  void SetUp() override { testing::train(job(1, {"training.steps: 2"})); }

  config::Job job(int ranks, const std::vector<std::string>& overrides) {
    return tiny_job(folder_.path().string(), ranks, overrides);
  }

  runtime::ComparedModel sample(const config::Job& job, const runtime::Reference* reference) {
    runtime::SampleOptions options;
    options.timed = true;
    options.reference = reference;
    const int ranks = runtime::mesh_shape(job).world();
    std::vector<runtime::SampleResult> results(ranks);
    testing::run_ranks(ranks, [&](std::unique_ptr<comm::Communicator> world) {
      const int rank = world->rank();
      results[rank] = runtime::run_sampling(job, std::move(world), options);
    });
    for (int r = 1; r < ranks; ++r) EXPECT_TRUE(results[r].timed.empty());
    return {job, results[0]};
  }

  TemporaryFolder folder_;
  const std::vector<std::string> many_ = {"sampling { prompt: ['a cat', 'clip 1'] steps: 4 }"};
};

TEST_F(ComparisonTest, WritesFiguresAndVideosSideBySide) {
  std::vector<runtime::ComparedModel> models = {sample(job(1, many_), nullptr)};
  const runtime::Reference reference = models[0].result.as_reference;
  // Prompts of its own count for nothing.
  models.push_back(sample(
      job(4, {"parallel { data: 2 }",
              "attention { method: VSA vsa { coarse: ADD sparsity { start: .5 } } }",
              "sampling { prompt: 'a dog' guidance: 1 sampler: TDM timestep: [1000, 500] }"}),
      &reference));
  models.push_back(sample(job(1, many_), &reference));
  ASSERT_EQ(models[1].result.timed.size(), 2u);
  EXPECT_EQ(models[1].result.as_reference.tasks[0].prompt, "a cat");
  EXPECT_NE(models[1].result.timed[0].latent, models[0].result.timed[0].latent);
  EXPECT_EQ(models[2].result.timed[1].latent, models[0].result.timed[1].latent);

  const std::string output = (folder_.path() / "out").string();
  const runtime::Comparison comparison = write_comparison(models, output);
  ASSERT_EQ(comparison.models.size(), 3u);
  const runtime::ModelFigures &teacher = comparison.models[0], &student = comparison.models[1];
  EXPECT_EQ(teacher.sampler, "EULER");
  EXPECT_EQ(teacher.steps, 4);
  EXPECT_EQ(teacher.forwards, 8);
  EXPECT_EQ(teacher.density, 1);
  EXPECT_EQ(teacher.speed_up, 1);
  EXPECT_TRUE(teacher.psnr.empty());
  EXPECT_EQ(student.sampler, "TDM");
  EXPECT_EQ(student.steps, 2);
  EXPECT_EQ(student.forwards, 2);
  EXPECT_GT(student.density, 0.3);
  EXPECT_LT(student.density, 0.8);
  EXPECT_GT(student.seconds, 0);
  EXPECT_EQ(student.speed_up, teacher.seconds / student.seconds);
  EXPECT_EQ(student.step, 2);
  ASSERT_EQ(student.psnr.size(), 2u);
  // The mean of squares lies between the two.
  EXPECT_GE(student.mean_psnr, std::min(student.psnr[0], student.psnr[1]));
  EXPECT_LE(student.mean_psnr, std::max(student.psnr[0], student.psnr[1]));
  EXPECT_TRUE(std::isinf(comparison.models[2].mean_psnr));

  ASSERT_EQ(comparison.files.size(), 2u);
  EXPECT_EQ(comparison.files[1].prompt, "clip 1");
  for (const auto& files : comparison.files) {
    EXPECT_GT(fs::file_size(files.video), 0u);
    EXPECT_GT(fs::file_size(files.sheet), 0u);
  }
  const auto json = nlohmann::json::parse(testing::read_bytes(comparison.json));
  EXPECT_EQ(json.at("models").size(), 3u);
  EXPECT_EQ(json.at("models")[1].at("forwards"), 2);
  EXPECT_EQ(json.at("models")[1].at("mean_psnr"), student.mean_psnr);
  EXPECT_TRUE(json.at("models")[2].at("mean_psnr").is_null());
  EXPECT_FALSE(json.at("models")[0].contains("psnr"));
  EXPECT_EQ(json.at("prompts")[0].at("prompt"), "a cat");
  EXPECT_NE(comparison_text(comparison).find("TDM 2 steps, 2 forwards"), std::string::npos);
}

TEST_F(ComparisonTest, RefusesAModelOfOtherLatentsOrTexts) {
  runtime::Reference reference = sample(job(1, many_), nullptr).result.as_reference;
  reference.latent.set_t(5);
  reference.latent.set_text_dim(16);
  const std::string message = message_of<InputError>([&] { sample(job(1, many_), &reference); });
  EXPECT_NE(message.find("latents [C, T, H, W]: [4, 3, 8, 10] here, [4, 5, 8, 10] there"),
            std::string::npos)
      << message;
  EXPECT_NE(message.find("width of a text: 8 here, 16 there"), std::string::npos) << message;
}

}  // namespace
}  // namespace sprocket
