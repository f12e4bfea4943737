// Jobs that train adapters: ranks, resume, what a checkpoint holds, export, bad input.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "base/error.h"
#include "models/safetensors/tensor_set.h"
#include "runtime/checkpoint/run_checkpoints.h"
#include "runtime/jobs/checkpoint_export.h"
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

class LoraJob : public ::testing::Test {
 protected:
  std::string path(const std::string& name) const { return (folder_.path() / name).string(); }

  // What adapters are trained beside.
  void SetUp() override { testing::train(testing::tiny_job(path(""), 1, {"training.steps: 4"})); }

  config::Job job(int ranks, const std::string& run,
                  std::vector<std::string> overrides = {}) const {
    overrides.insert(
        overrides.begin(),
        {"model.weights: '" + path("run") + "'",
         "training { steps: 6 lora { rank: 4 alpha: 8 } activation_checkpointing: "
         "BLOCK optimizer { learning_rate: 0.01 decay: CONSTANT } }",
         "attention { method: VSA vsa { sparsity { start: 0.5 } } }", "sampling { steps: 2 }"});
    config::Job job = testing::tiny_job(path(""), ranks, overrides);
    job.mutable_output()->set_directory(path(run));
    return job;
  }

  // The picture of a sample.
  std::string sample(const config::Job& job, const std::string& checkpoint) const {
    SampleOptions options;
    options.checkpoint = checkpoint;
    options.output = path("samples");
    std::string picture;
    testing::run_ranks(1, [&](std::unique_ptr<comm::Communicator> world) {
      const SampleResult result = run_sampling(job, std::move(world), options);
      picture = testing::read_bytes(result.samples.at(0).sheet);
    });
    return picture;
  }

 private:
  const testing::TemporaryFolder folder_;
};

std::vector<std::string> names_in(const std::string& folder) {
  return safetensors::TensorSet::open(folder).names();
}

TEST_F(LoraJob, LossesOnSeveralRanksAreThoseOfOne) {
  const TrainResult one = testing::train(job(1, "one"));
  ASSERT_EQ(one.losses.size(), 6u);
  for (const char* parallel :
       {"parallel { outer: 2 strategy: SELECTED }", "parallel.ulysses: 2", "parallel.data: 2"}) {
    const std::string run = std::string("two") + std::to_string(std::string(parallel).size());
    const TrainResult two = testing::train(job(2, run, {parallel}));
    ASSERT_EQ(two.losses.size(), 6u);
    for (size_t step = 0; step < 6; ++step) {
      EXPECT_NEAR(two.losses[step], one.losses[step], 1e-5 * one.losses[step])
          << parallel << ", step " << step;
    }
  }
}

TEST_F(LoraJob, ACheckpointHoldsWhatIsTrainedAndAResumedRunHasTheSameBits) {
  const std::string whole = testing::train(job(1, "whole")).checkpoint;
  testing::train(job(1, "half", {"training.steps: 3"}));
  TrainOptions options;
  options.resume = "latest";
  const std::string rest = testing::train(job(1, "half"), options).checkpoint;
  for (const char* part : {"/model/model.safetensors", "/optim/optim.safetensors"}) {
    EXPECT_TRUE(testing::read_bytes(whole + part) == testing::read_bytes(rest + part)) << part;
  }
  // Ten layers in each of two blocks, and a gate of weight and bias.
  EXPECT_EQ(names_in(whole + "/model").size(), 2u * (10 * 2 + 2));
  EXPECT_NE(read_state(whole).base_hash(), 0u);
}

TEST_F(LoraJob, AMergedExportMakesTheSameVideos) {
  const config::Job own = job(1, "own");
  const std::string checkpoint = testing::train(own).checkpoint;
  CheckpointExport merge{path("own"), path("merged.safetensors"), false};
  const CheckpointExportResult merged = export_weights(merge);
  EXPECT_EQ(merged.step, 6);
  EXPECT_TRUE(merged.merged);
  // A run of whole weights that makes no step of any size keeps them.
  const config::Job whole =
      job(1, "whole",
          {"model.weights: '" + merge.output + "'", "training.lora { rank: 0 alpha: 0 }",
           "training { steps: 1 optimizer { learning_rate: 0 } }"});
  const std::string kept = testing::train(whole).checkpoint;
  const config::Job untouched = job(1, "untouched",
                                    {"training.lora { rank: 0 alpha: 0 }",
                                     "training { steps: 1 optimizer { "
                                     "learning_rate: 0 } }"});
  const std::string from_adapters = sample(own, checkpoint);
  // Pictures are of 8 bits, far coarser than the roundings between the two ways to compute.
  EXPECT_EQ(from_adapters, sample(whole, kept));
  EXPECT_NE(from_adapters, sample(untouched, testing::train(untouched).checkpoint));
  EXPECT_THAT(message_of<OutputError>([&] { export_weights(merge); }), HasSubstr("exists"));
}

TEST_F(LoraJob, ExportedAdaptersStartAnotherRun) {
  const TrainResult first = testing::train(job(1, "first"));
  const CheckpointExport exported{first.checkpoint, path("adapters.safetensors"), false};
  EXPECT_EQ(export_adapters(exported).tensors, 2 * (10 * 2 + 2));
  EXPECT_THAT(names_in(exported.output),
              ::testing::Contains("transformer.blocks.0.attn1.to_q.lora_A.weight"));
  // Another alpha, the same function: the same loss.
  const auto loss = [&](const std::string& run, const std::string& lora) {
    return testing::train(job(1, run, {"training.steps: 1", lora})).losses.at(0);
  };
  const std::string weights = "weights: '" + exported.output + "'";
  const double again = loss("again", "training.lora { " + weights + " }");
  EXPECT_NEAR(again, loss("alpha", "training.lora { alpha: 1 " + weights + " }"), 1e-6 * again);
  EXPECT_LT(again, 0.999 * first.losses.front());
}

TEST_F(LoraJob, OtherBaseWeightsAreRefused) {
  const config::Job own = job(1, "own");
  const std::string checkpoint = testing::train(own).checkpoint;
  config::Job other = testing::tiny_job(path(""), 1, {"training { steps: 2 seed: 5 }"});
  other.mutable_output()->set_directory(path("other"));
  testing::train(other);
  const config::Job elsewhere = job(1, "own", {"model.weights: '" + path("other") + "'"});
  const std::string message = message_of<InputError>([&] { sample(elsewhere, checkpoint); });
  EXPECT_THAT(message, AllOf(HasSubstr("trained on other weights"), HasSubstr("model.weights")));
  TrainOptions resume;
  resume.resume = "latest";
  EXPECT_THAT(message_of<InputError>([&] { testing::train(elsewhere, resume); }),
              HasSubstr("trained on other weights"));
}

TEST_F(LoraJob, BadInput) {
  const std::string checkpoint = testing::train(job(1, "own")).checkpoint;
  EXPECT_THAT(message_of<ConfigError>([&] {
                testing::train(job(1, "target", {"training.lora.target: 'blocks.*.attn1.to_q'"}));
              }),
              AllOf(HasSubstr("blocks.*.attn1.to_q"), HasSubstr("blocks.*.self_attn.q")));
  EXPECT_THAT(message_of<InputError>([&] {
                TrainOptions resume;
                resume.resume = "latest";
                testing::train(job(1, "own", {"training.lora.rank: 2"}), resume);
              }),
              AllOf(HasSubstr("adapters of rank 4"), HasSubstr("rank 2")));
  // Adapters are no whole weights.
  EXPECT_THAT(message_of<InputError>([&] {
                testing::train(job(1, "on_adapters", {"model.weights: '" + path("own") + "'"}));
              }),
              AllOf(HasSubstr("adapters alone"), HasSubstr("sprocket checkpoint export")));
  const CheckpointExport none{path("run"), path("none.safetensors"), false};
  EXPECT_THAT(message_of<InputError>([&] { export_adapters(none); }), HasSubstr("has no adapters"));
  const CheckpointExport average{checkpoint, path("none.safetensors"), true};
  EXPECT_THAT(message_of<InputError>([&] { export_adapters(average); }),
              HasSubstr("no moving average"));
}

}  // namespace
}  // namespace sprocket::runtime
