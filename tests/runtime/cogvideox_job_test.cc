// Jobs of the other family: text in the sequence, DDPM with v-prediction.
#include <cmath>

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/full.h>
#include <gtest/gtest.h>

#include "base/philox.h"
#include "parallel/mesh.h"
#include "runtime/distill/network_denoiser.h"
#include "runtime/jobs/sample_job.h"
#include "runtime/plan/flops.h"
#include "runtime/plan/job_specs.h"
#include "runtime/plan/memory_estimate.h"
#include "runtime/sample/sampler.h"
#include "runtime/train/job_diffusion.h"
#include "runtime/train/job_model.h"
#include "runtime/train/micro_batch.h"
#include "runtime/train/text_input.h"
#include "tests/data/temporary_folder.h"
#include "tests/runtime/thread_ranks.h"
#include "tests/runtime/tiny_job.h"

namespace sprocket {
namespace {

using runtime::TrainResult;
using testing::run_ranks;
using testing::TemporaryFolder;
using testing::train;
using Overrides = std::vector<std::string>;

class CogVideoXJob : public ::testing::Test {
 protected:
  void SetUp() override { at::set_num_threads(1); }

  config::Job job(int ranks, const std::string& run, Overrides overrides = {}) const {
    overrides.insert(overrides.begin(), testing::kTinyCogVideoX);
    config::Job job = testing::tiny_job(root(), ranks, std::move(overrides));
    job.mutable_output()->set_directory(root() + "/" + run);
    return job;
  }
  std::string root() const { return folder_.path().string(); }

 private:
  const TemporaryFolder folder_;
};

const char* const kVsa =
    "attention { method: VSA vsa { sparsity { start: 0.5 } } max_coverage { start: 0.5 } }";

TEST_F(CogVideoXJob, TrainsTheSameOnAnyNumberOfRanks) {
  for (const char* method : {"attention.method: DENSE", kVsa}) {
    const std::string name = method == kVsa ? "vsa" : "dense";
    const TrainResult expected = train(job(1, name + "1", {method}));
    ASSERT_EQ(expected.losses.size(), 20u);
    EXPECT_LT(expected.losses.back(), expected.losses.front());
    int number = 0;
    for (const auto& [ranks, parallel] :
         {std::pair(2, "strategy: SELECTED"), std::pair(2, "data: 2"),
          std::pair(4, "strategy: RING"), std::pair(4, "ulysses: 4"),
          std::pair(4, "strategy: ALL_GATHER ulysses: 2")}) {
      const TrainResult found = train(job(ranks, name + "_" + std::to_string(number++),
                                          {method, std::string("parallel { ") + parallel + " }"}));
      ASSERT_EQ(found.losses.size(), 20u);
      for (size_t step = 0; step < 20; ++step) {
        EXPECT_NEAR(found.losses[step], expected.losses[step], 1e-5 * expected.losses[step])
            << method << ", " << parallel << ", step " << step;
      }
    }
  }
}

TEST_F(CogVideoXJob, ResumeIsBitwiseEqualToTheUninterruptedRun) {
  const Overrides steps = {kVsa, "training.optimizer.decay: CONSTANT"};
  const auto with = [&](int count) {
    Overrides all = steps;
    all.push_back("training.steps: " + std::to_string(count));
    return all;
  };
  const TrainResult whole = train(job(2, "whole", with(8)));
  TrainResult first = train(job(2, "parts", with(5)));
  runtime::TrainOptions options;
  options.resume = "latest";
  const TrainResult second = train(job(2, "parts", with(8)), options);
  EXPECT_EQ(second.first_step, 5);
  first.losses.insert(first.losses.end(), second.losses.begin(), second.losses.end());
  EXPECT_EQ(first.losses, whole.losses);
}

TEST_F(CogVideoXJob, ValidatesTheSameOnAnyNumberOfRanks) {
  const Overrides validation = {"training { steps: 2 validation { path: '" + root() +
                                "/data' interval: 1 levels: 4 } }"};
  const TrainResult expected = train(job(1, "one", validation));
  const TrainResult found = train(job(2, "two", validation));
  ASSERT_EQ(expected.validation_losses.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_NEAR(found.validation_losses[i], expected.validation_losses[i],
                1e-5 * expected.validation_losses[i]);
  }
}

TEST_F(CogVideoXJob, TimestepsAreWholeNumbersAllEquallyLikely) {
  const config::Job job = this->job(1, "run");
  constexpr int kDraws = 20000, kBins = 10;
  std::vector<int> bins(kBins);
  for (int i = 0; i < kDraws; ++i) {
    const double t = runtime::draw_timestep(job, {3, i / 7, i});
    ASSERT_EQ(t, std::floor(t));
    ASSERT_GE(t, 0);
    ASSERT_LE(t, 999);
    ++bins[static_cast<int>(t) / (1000 / kBins)];
  }
  const double mean = double{kDraws} / kBins;
  for (const int count : bins) EXPECT_NEAR(count, mean, 5 * std::sqrt(mean));
  config::Job four = job;
  four.mutable_training()->mutable_validation()->set_levels(4);
  for (int level = 0; level < 4; ++level) {
    EXPECT_EQ(runtime::validation_timestep(four, level), 125 + 250 * level);
  }
}

// Every tensor away from where it starts: zeros there hide what is behind them.
void fill(const models::ParameterStore& parameters) {
  for (int i = 0; i < parameters.size(); ++i) {
    const at::Tensor tensor = parameters.tensor(i).detach();
    std::vector<float> values(tensor.numel());
    RandomStream(1, 0, i, RandomPurpose::kTest).normal(values);
    tensor.copy_(at::from_blob(values.data(), tensor.sizes(), at::kFloat)).mul_(0.2);
  }
}

// In the words of diffusers' fine-tuning: x0 is read off the prediction at x_t, and its squared
// error is divided by 1 - abar.
TEST_F(CogVideoXJob, TheLossIsTheErrorOfTheCleanVideoOverTheNoisesPower) {
  const config::Job job = this->job(1, "run", {"training.text_dropout: 0"});
  const auto powers = runtime::signal_powers(job.ddpm());
  const data::LatentShape shape{4, 3, 8, 10};
  const std::vector<int64_t> sizes{1, shape.c, shape.t, shape.h, shape.w};
  const runtime::SampleKey key{3, 0, 5};
  data::Sample sample;
  sample.latent.resize(shape.elements());
  RandomStream(1, 2, 3, RandomPurpose::kTest).normal(sample.latent);
  sample.text.assign(4 * 8, 0.5f);
  const runtime::MicroBatch batch = runtime::make_micro_batch(job, shape, {&sample, 1}, {&key, 1});

  const double t = runtime::draw_timestep(job, key);
  EXPECT_EQ(batch.timestep_B.item<double>(), t);
  const double abar = powers[static_cast<size_t>(t)];
  const at::Tensor x0 = at::from_blob(sample.latent.data(), sizes);
  std::vector<float> noise = runtime::draw_noise(shape.elements(), key);
  const at::Tensor eps = at::from_blob(noise.data(), sizes);
  const at::Tensor x_t = std::sqrt(abar) * x0 + std::sqrt(1 - abar) * eps;
  EXPECT_LT((batch.noisy_BCTHW - x_t).abs().max().item<double>(), 1e-6);

  run_ranks(1, [&](std::unique_ptr<comm::Communicator> world) {
    const parallel::Mesh mesh(std::move(world), runtime::mesh_shape(job));
    runtime::Network network(job, mesh, 1, runtime::Network::Start::kFresh);
    fill(network.parameters());
    const runtime::PassOutcome outcome = runtime::forward_backward(network, batch, 0, 1);
    const auto own = [&](const at::Tensor& latent) {
      return network.own_patches(latent, shape, models::FeatureOrder::kChannelFirst);
    };
    const at::Tensor& v = outcome.velocity_BLF;
    EXPECT_GT(v.abs().max().item<double>(), 1e-3);
    const at::Tensor clean = std::sqrt(abar) * own(x_t) - std::sqrt(1 - abar) * v;
    const double loss = (clean - own(x0)).square().mean().item<double>() / (1 - abar);
    EXPECT_NEAR(outcome.loss, loss, 1e-4 * loss);
  });
}

TEST_F(CogVideoXJob, SamplesTheSameOnAnyNumberOfRanks) {
  for (const char* sampling : {"sampler: DDIM steps: 7 guidance: 3", "sampler: DPM steps: 7",
                               "sampler: TDM timestep: [999, 749, 499, 249] guidance: 1"}) {
    std::vector<float> expected;
    for (const auto& [ranks, ulysses] : {std::pair(1, 1), {2, 1}, {4, 2}, {4, 4}}) {
      const config::Job job = this->job(ranks, "run",
                                        {kVsa, std::string("sampling { ") + sampling + " }",
                                         "parallel.ulysses: " + std::to_string(ulysses)});
      std::vector<std::vector<float>> latents(ranks);
      run_ranks(ranks, [&](std::unique_ptr<comm::Communicator> world) {
        const parallel::Mesh mesh(std::move(world), runtime::mesh_shape(job));
        runtime::Network network(job, mesh, 1, runtime::Network::Start::kFresh);
        fill(network.parameters());
        runtime::SampleRequest request;
        request.shape = {4, 3, 8, 10};
        request.text.assign(4 * 8, 0.5f);
        latents[mesh.world().rank()] = sample_latent(network, job.sampling(), request);
      });
      for (const auto& latent : latents) EXPECT_EQ(latent, latents[0]);
      if (ranks == 1) {
        expected = latents[0];
        ASSERT_EQ(expected.size(), 4u * 3 * 8 * 10);
        continue;
      }
      double error = 0, norm = 0;
      for (size_t i = 0; i < expected.size(); ++i) {
        error += std::pow(latents[0][i] - expected[i], 2);
        norm += std::pow(expected[i], 2);
      }
      EXPECT_LT(std::sqrt(error / norm), 1e-4) << sampling << " on " << ranks << " ranks";
    }
  }
}

// One step of DDIM from the last timestep, where there is no signal, ends at x0 = -v: the features
// of the model's output are in the order of its input.
TEST_F(CogVideoXJob, PutsTheOutputTogetherInItsOwnOrder) {
  const config::Job job = this->job(1, "run", {"sampling { steps: 1 guidance: 1 }"});
  const data::LatentShape shape{4, 3, 8, 10};
  std::vector<float> noise(shape.elements());
  RandomStream(0, 0, 0, RandomPurpose::kSampling).normal(noise);
  const at::Tensor x = at::from_blob(noise.data(), {1, shape.c, shape.t, shape.h, shape.w});
  run_ranks(1, [&](std::unique_ptr<comm::Communicator> world) {
    const parallel::Mesh mesh(std::move(world), runtime::mesh_shape(job));
    runtime::Network network(job, mesh, 1, runtime::Network::Start::kFresh);
    fill(network.parameters());
    runtime::SampleRequest request;
    request.shape = shape;
    std::vector<float> sampled = sample_latent(network, job.sampling(), request);
    const at::NoGradGuard no_gradients;
    const at::Tensor text = runtime::text_tensor(job.model(), {});
    const at::Tensor v = models::unpatchify_tokens(
        network.velocity(network.own_patches(x, shape, models::FeatureOrder::kChannelFirst),
                         at::full({1}, 999.), text, shape,
                         runtime::attention_spec(job.attention(), 0)),
        network.layout(shape), {1, 2, 2}, models::FeatureOrder::kChannelFirst);
    const double largest = v.abs().max().item<double>();
    EXPECT_GT(largest, 1e-2);
    EXPECT_LT((at::from_blob(sampled.data(), x.sizes()) + v).abs().max().item<double>(),
              1e-5 * largest);
    runtime::NetworkDenoiser denoiser(network, Phase::kSample);
    const double timestep = 999;
    EXPECT_LT((denoiser.predict(x, {&timestep, 1}, text) - v).abs().max().item<double>(),
              1e-5 * largest);
  });
}

// A network that has learnt nothing predicts v = 0 everywhere: then x0 is a x, and DDIM multiplies
// x by a a' + s s' in each step.
TEST_F(CogVideoXJob, UnpatchifiesWhatItSamples) {
  const config::Job job = this->job(1, "run", {"sampling { sampler: DDIM steps: 2 guidance: 1 }"});
  const auto powers = runtime::signal_powers(job.ddpm());
  std::vector<float> expected(4 * 3 * 8 * 10);
  RandomStream(0, 0, 0, RandomPurpose::kSampling).normal(expected);
  const auto factor = [](double power, double next) {
    return std::sqrt(power * next) + std::sqrt((1 - power) * (1 - next));
  };
  const double all = factor(powers[999], powers[499]) * factor(powers[499], 1);
  run_ranks(1, [&](std::unique_ptr<comm::Communicator> world) {
    const parallel::Mesh mesh(std::move(world), runtime::mesh_shape(job));
    runtime::Network network(job, mesh, 1, runtime::Network::Start::kFresh);
    runtime::SampleRequest request;
    request.shape = {4, 3, 8, 10};
    const std::vector<float> found = sample_latent(network, job.sampling(), request);
    for (size_t i = 0; i < expected.size(); ++i) {
      ASSERT_NEAR(found[i], all * expected[i], 1e-5) << i;
    }
  });
}

TEST_F(CogVideoXJob, WritesVideosOfACheckpoint) {
  train(job(2, "run", {"training.steps: 2"}));
  const config::Job job = this->job(2, "run", {"sampling { sampler: DPM steps: 3 }"});
  runtime::SampleOptions options;
  options.output = root() + "/out";
  std::vector<runtime::SampleResult> results(2);
  run_ranks(2, [&](std::unique_ptr<comm::Communicator> world) {
    const int rank = world->rank();
    results[rank] = runtime::run_sampling(job, std::move(world), options);
  });
  ASSERT_EQ(results[0].samples.size(), 1u);
  EXPECT_EQ(results[0].step, 2);
}

// What the plan counts, against the model's own list.
TEST_F(CogVideoXJob, IsCountedByThePlan) {
  const auto parsed = [](const std::string& text) {
    return config::parse_job("model { family: COGVIDEOX " + text + " }", "x").job;
  };
  const std::string sizes_5b =
      "dim: 3072 heads: 48 layers: 42 ffn_dim: 12288 text_tokens: 226 cogvideox { positions: ";
  const config::Job small = job(1, "run", {"attention { method: VSA vsa { fine_gate: true } }"});
  for (const auto& [job, published] : std::vector<std::pair<config::Job, int64_t>>{
           {parsed("dim: 1920 heads: 30 layers: 30 ffn_dim: 7680 text_tokens: 226"), 1693783872},
           {parsed(sizes_5b + "SCALED_ROPE }"), 5570283072},
           {parsed(sizes_5b + "ROPE } patch { t: 2 }"), 5570676352},
           {small, 0}}) {
    int64_t elements = 0;
    for (const auto& spec : runtime::model_parameters(job)) elements += spec.elements();
    EXPECT_EQ(runtime::parameter_count(job), elements);
    if (published > 0) {
      EXPECT_EQ(elements, published);
    }
  }
  // 49 frames of 480 x 720: per layer q, k, v and o, the feed-forward network and the modulation;
  // attention over text and video.
  const config::Job big = parsed(sizes_5b + "SCALED_ROPE }");
  const double text = 226, video = 13. * 30 * 45, n = text + video, dim = 3072;
  const double layer = 2 * n * (4 * dim * dim + 2 * dim * 4 * dim) + 2 * 2 * 512 * 6 * dim;
  const double attention = 4 * n * n * dim;
  const double edges = 2 * 2 * video * 64 * dim + 2 * text * 4096 * dim;
  const auto flops = runtime::forward_step_flops(big, 1, static_cast<int64_t>(n), 1);
  EXPECT_NEAR(flops.executed, 42 * (layer + attention) + edges, 1e-9 * flops.executed);
}

}  // namespace
}  // namespace sprocket
