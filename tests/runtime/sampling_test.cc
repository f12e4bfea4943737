// Sampling: the same latent on any number of ranks, and files for people.
#include <gtest/gtest.h>

#include <filesystem>
#include <mutex>

#include "base/error.h"
#include "parallel/mesh.h"
#include "runtime/jobs/sample_job.h"
#include "runtime/plan/job_specs.h"
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
}

}  // namespace
}  // namespace sprocket
