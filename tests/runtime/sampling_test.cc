// Sampling: the same latent on any number of ranks, and files for people.
#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <mutex>

#include "base/error.h"
#include "base/philox.h"
#include "models/text/hashed_text.h"
#include "parallel/mesh.h"
#include "runtime/checkpoint/latent_description.h"
#include "runtime/data/embed_prompts.h"
#include "runtime/data/prompt_set.h"
#include "runtime/jobs/sample_job.h"
#include "runtime/plan/job_specs.h"
#include "runtime/sample/sample_set.h"
#include "runtime/sample/sampler.h"
#include "tests/data/temporary_folder.h"
#include "tests/runtime/thread_ranks.h"
#include "tests/runtime/tiny_job.h"

namespace sprocket {
namespace {

namespace fs = std::filesystem;
using testing::message_of;
using testing::run_ranks;
using testing::TemporaryFolder;
using testing::tiny_job;

std::vector<float> sample_on(int ranks, const std::string& root,
                             const std::vector<std::string>& overrides) {
  const config::Job job = tiny_job(root, ranks, overrides);
  std::vector<std::vector<float>> latents(ranks);
  run_ranks(ranks, [&](std::unique_ptr<comm::Communicator> world) {
    const parallel::Mesh mesh(std::move(world), runtime::mesh_shape(job));
    runtime::Network network(job, mesh, 1, runtime::Network::Start::kFresh);
    runtime::SampleRequest request;
    request.shape = {4, 3, 8, 10};
    request.text.assign(4 * 8, 0.5f);
    latents[mesh.world().rank()] = sample_latent(network, job.sampling(), request);
  });
  for (const auto& latent : latents) EXPECT_EQ(latent, latents[0]);
  return latents[0];
}

TEST(Sampling, EqualsOneRank) {
  TemporaryFolder root;
  const std::vector<std::string> vsa = {"attention.method: VSA",
                                        "attention.vsa.sparsity { start: 0.5 }",
                                        "attention.max_coverage { start: 0.5 }"};
  const auto expected = sample_on(1, root.path().string(), vsa);
  ASSERT_EQ(expected.size(), 4u * 3 * 8 * 10);
  float largest = 0;
  for (const float value : expected) largest = std::max(largest, std::abs(value));
  for (auto [ranks, ulysses] : {std::pair(2, 1), {4, 2}, {4, 4}}) {
    auto overrides = vsa;
    overrides.push_back("parallel.ulysses: " + std::to_string(ulysses));
    const auto found = sample_on(ranks, root.path().string(), overrides);
    for (size_t i = 0; i < expected.size(); ++i) {
      ASSERT_NEAR(found[i], expected[i], 1e-5f * largest) << i << " on " << ranks << " ranks";
    }
  }
}

// An untrained model predicts no velocity: x is all there is of the clean latent and of the noise.
// Every step adds a draw of the whole latent, the same on any number of ranks.
TEST(Sampling, FreshNoiseIsAFunctionOfSeedVideoAndStep) {
  TemporaryFolder root;
  const double eta = 0.6;
  std::vector<float> expected(4 * 3 * 8 * 10), fresh(expected.size());
  RandomStream(0, 0, 0, RandomPurpose::kSampling).normal(expected);
  const double levels[] = {0.75, 0.5};  // behind the first two of three evaluations
  for (const uint64_t step : {0, 1}) {
    RandomStream(0, step, 0, RandomPurpose::kSamplingStep).normal(fresh);
    for (size_t i = 0; i < fresh.size(); ++i) {
      expected[i] = static_cast<float>((1 - levels[step] + levels[step] * eta) * expected[i] +
                                       levels[step] * std::sqrt(1 - eta * eta) * fresh[i]);
    }
  }
  for (const int ranks : {1, 2, 4}) {
    const auto found = sample_on(ranks, root.path().string(),
                                 {"sampling { sampler: TDM eta: 0.6 timestep: [1000, 750, 500] }"});
    for (size_t i = 0; i < found.size(); ++i) {
      ASSERT_NEAR(found[i], expected[i], 1e-6 * (1 + std::abs(expected[i]))) << i << ", " << ranks;
    }
  }
}

TEST(Sampling, ManySamplersAreEqualOnAnyNumberOfRanks) {
  TemporaryFolder root;
  for (const char* sampler : {"sampler: UNIPC", "sampler: TDM"}) {
    const std::vector<std::string> job = {std::string("sampling { ") + sampler + " steps: 4 }"};
    const auto expected = sample_on(1, root.path().string(), job);
    const auto found = sample_on(2, root.path().string(), job);
    for (size_t i = 0; i < expected.size(); ++i) ASSERT_NEAR(found[i], expected[i], 1e-5f) << i;
  }
}

// With an untrained head of zeros the velocity is zero, and so a sample is its noise.
TEST(Sampling, GuidanceOfTwoEqualTextsIsNoGuidance) {
  TemporaryFolder root;
  const config::Job guided = tiny_job(root.path().string(), 1, {"sampling.guidance: 7"});
  const config::Job plain = tiny_job(root.path().string(), 1, {"sampling.guidance: 1"});
  std::vector<float> latents[2];
  for (int i = 0; i < 2; ++i) {
    const config::Job& job = i == 0 ? guided : plain;
    run_ranks(1, [&](std::unique_ptr<comm::Communicator> world) {
      const parallel::Mesh mesh(std::move(world), runtime::mesh_shape(job));
      runtime::Network network(job, mesh, 1, runtime::Network::Start::kFresh);
      runtime::SampleRequest request;
      request.shape = {4, 3, 8, 10};  // the text is empty: conditioned and not are the same
      latents[i] = sample_latent(network, job.sampling(), request);
    });
  }
  for (size_t i = 0; i < latents[0].size(); ++i) ASSERT_NEAR(latents[0][i], latents[1][i], 1e-5f);
}

runtime::SampleResult sample(const config::Job& job, const runtime::SampleOptions& options) {
  const int ranks = runtime::mesh_shape(job).world();
  std::vector<runtime::SampleResult> results(ranks);
  run_ranks(ranks, [&](std::unique_ptr<comm::Communicator> world) {
    const int rank = world->rank();
    results[rank] = runtime::run_sampling(job, std::move(world), options);
  });
  for (int r = 1; r < ranks; ++r) EXPECT_TRUE(results[r].samples.empty());
  return results[0];
}

TEST(Sampling, WritesVideosAndSheetsForCaptionsAndPrompts) {
  TemporaryFolder root;
  testing::train(tiny_job(root.path().string(), 2, {"training.steps: 2"}));
  runtime::SampleOptions options;
  options.output = root.path().string() + "/out";
  const auto captions =
      sample(tiny_job(root.path().string(), 4, {"parallel.data: 2", "sampling.count: 3"}), options);
  EXPECT_EQ(captions.step, 2);
  ASSERT_EQ(captions.samples.size(), 3u);
  for (const auto& files : captions.samples) {
    EXPECT_GT(fs::file_size(files.video), 0u);
    EXPECT_GT(fs::file_size(files.sheet), 0u);
    ASSERT_TRUE(files.psnr);
    EXPECT_GT(*files.psnr, 0);
  }
  EXPECT_EQ(captions.samples[2].prompt, "clip 2");

  const auto prompt =
      sample(tiny_job(root.path().string(), 1, {"sampling.prompt: 'a cat'"}), options);
  ASSERT_EQ(prompt.samples.size(), 1u);
  EXPECT_FALSE(prompt.samples[0].psnr);

  // The checkpoint alone is enough, without the data set.
  fs::remove_all(root.path().string() + "/data");
  config::Job alone = runtime::job_of_checkpoint(root.path().string() + "/run");
  alone.mutable_sampling()->add_prompt("a dog");
  alone.mutable_parallel()->set_outer(1);
  options.checkpoint = root.path().string() + "/run/step_00000002";
  EXPECT_EQ(sample(alone, options).samples.size(), 1u);
}

// A supervisor learns from every rank how far it is, videos that are only timed included.
TEST(Sampling, EveryRankTellsOfItsEvaluations) {
  TemporaryFolder root;
  testing::train(tiny_job(root.path().string(), 1, {"training.steps: 1"}));
  const config::Job job = tiny_job(root.path().string(), 4,
                                   {"parallel.data: 2", "sampling.count: 3", "sampling.steps: 5"});
  for (const bool timed : {false, true}) {
    std::vector<control::Pulse> pulses(4);
    run_ranks(4, [&](std::unique_ptr<comm::Communicator> world) {
      const int rank = world->rank();
      runtime::SampleOptions options;
      options.output = root.path().string() + "/out";
      options.timed = timed;
      options.pulse = &pulses[rank];
      run_sampling(job, std::move(world), options);
    });
    for (int rank = 0; rank < 4; ++rank) {
      SCOPED_TRACE(rank);
      const control::Heartbeat beat = pulses[rank].heartbeat();
      const int evaluations = rank < 2 ? 10 : 5;  // of two videos of the three, and of one
      EXPECT_EQ(beat.step(), evaluations);
      EXPECT_EQ(beat.total_steps(), evaluations);
      EXPECT_TRUE(std::isnan(beat.loss()));
      EXPECT_EQ(beat.tokens(), 2 * 3 * 4 * 5) << "latents of 3 x 8 x 10 in patches of 1 x 2 x 2";
      ASSERT_EQ(beat.step_time_size(), evaluations);
      EXPECT_EQ(beat.step_time(evaluations - 1).step(), evaluations);
    }
  }
}

TEST(Sampling, TakesPromptsAndTheNegativeOneFromAPromptSet) {
  TemporaryFolder root;
  const std::string folder = root.path().string();
  testing::train(tiny_job(folder, 1, {"training.steps: 1"}));
  testing::write_bytes(folder + "/prompts.txt", "a cat\na dog\na bird\n");
  data::EmbedOptions embed;
  embed.prompts = folder + "/prompts.txt";
  embed.negative = "blurry";
  embed.like = folder + "/data";
  embed.output = folder + "/prompts";
  data::embed_prompts(embed);
  runtime::SampleOptions options;
  options.output = folder + "/out";
  const std::string path = "data.path: '" + folder + "/prompts'";
  const auto first = sample(tiny_job(folder, 2, {path, "sampling.count: 2"}), options);
  ASSERT_EQ(first.samples.size(), 2u);
  EXPECT_EQ(first.samples[1].prompt, "a dog");
  EXPECT_FALSE(first.samples[1].psnr);

  data::PromptSet prompts(embed.output);
  const runtime::LatentDescription latent = runtime::describe_latents(prompts.index());
  const auto tasks =
      plan_samples(tiny_job(folder, 1, {"sampling.prompt: ['a bird', 'a fish']"}).sampling(),
                   latent, nullptr, &prompts);
  EXPECT_EQ(tasks[0].text, prompts.load(2).embedding);
  EXPECT_EQ(tasks[1].text, text::embed_hashed("a fish", 4, 8));
  for (const auto& task : tasks) {
    EXPECT_EQ(task.negative, prompts.negative());
    EXPECT_EQ(task.shape, (data::LatentShape{4, 3, 8, 10}));
    EXPECT_EQ(task.fps, 8);
  }

  embed.like.clear();
  embed.tokens = 5;
  embed.dim = 8;
  embed.frames = 9;
  embed.width = 80;
  embed.height = 64;
  embed.output = folder + "/others";
  data::embed_prompts(embed);
  const config::Job others = tiny_job(folder, 1, {"data.path: '" + embed.output + "'"});
  const std::string message = message_of<InputError>([&] { sample(others, options); });
  EXPECT_NE(message.find("\"hashed\" version 1 of 5 x 8"), std::string::npos) << message;
  EXPECT_NE(message.find("\"hashed\" version 1 of 4 x 8"), std::string::npos) << message;
}

TEST(Sampling, RefusesWhatCannotBeSampled) {
  TemporaryFolder root;
  const config::Job job = tiny_job(root.path().string(), 1);
  fs::create_directories(root.path().string() + "/run");
  EXPECT_NE(message_of<InputError>([&] { sample(job, {}); }).find("no complete checkpoint"),
            std::string::npos);
  testing::train(tiny_job(root.path().string(), 1, {"training.steps: 1"}));
  const config::Job other = tiny_job(root.path().string(), 2, {"model.layers: 3"});
  EXPECT_NE(
      message_of<InputError>([&] { sample(other, {}); }).find("model.layers: checkpoint 2, job 3"),
      std::string::npos);
  testing::write_bytes(root / "file", "");
  control::Pulse pulse;
  runtime::SampleOptions options;
  options.output = root / "file/out";
  options.pulse = &pulse;
  EXPECT_NE(message_of<OutputError>([&] { sample(job, options); }).find(options.output),
            std::string::npos);
  EXPECT_EQ(pulse.heartbeat().step(), -1) << "said after the work";
}

}  // namespace
}  // namespace sprocket
