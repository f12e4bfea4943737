// Whole weights of checkpoints as other programs read them.
#include "runtime/jobs/checkpoint_export.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/error.h"
#include "models/safetensors/tensor_set.h"
#include "tests/data/temporary_folder.h"
#include "tests/runtime/tiny_job.h"

namespace sprocket::runtime {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using testing::message_of;

class ExportedWeights : public ::testing::TestWithParam<std::string> {
 protected:
  std::string path(const std::string& name) const { return (folder_.path() / name).string(); }
  config::Job job(const std::string& run, int ranks, const std::string& more = "") const {
    config::Job job = testing::tiny_job(path(""), ranks, {"training.steps: 3", GetParam(), more});
    job.mutable_output()->set_directory(path(run));
    return job;
  }

 private:
  const testing::TemporaryFolder folder_;
};

// Shards of two ranks become one file; a run that starts from it is the one that starts from the
// checkpoint.
TEST_P(ExportedWeights, StartTheRunThatTheCheckpointStarts) {
  const TrainResult first = testing::train(job("first", 2));
  const CheckpointExport exported{path("first"), path("weights.safetensors"), false};
  const CheckpointExportResult result = export_weights(exported);
  EXPECT_EQ(result.checkpoint, first.checkpoint);
  EXPECT_EQ(result.step, 3);
  EXPECT_FALSE(result.merged);
  const auto file = safetensors::TensorSet::open(exported.output);
  EXPECT_EQ(static_cast<int>(file.names().size()), result.tensors);
  EXPECT_THAT(file.names(), Contains(HasSubstr("attn1.to_q.weight")));
  const auto losses = [&](const std::string& run, const std::string& weights) {
    return testing::train(job(run, 1, "model.weights: '" + weights + "'")).losses;
  };
  EXPECT_EQ(losses("from_file", exported.output), losses("from_checkpoint", first.checkpoint));
}

INSTANTIATE_TEST_SUITE_P(Families, ExportedWeights,
                         ::testing::Values("attention.method: DENSE", testing::kTinyCogVideoX),
                         [](const auto& info) { return info.index == 0 ? "Wan" : "CogVideoX"; });

TEST(ExportedWeightsOfATraining, HaveNoAverageAndReplaceNoFile) {
  const testing::TemporaryFolder folder;
  const std::string root = folder.path().string();
  const auto trained = testing::train(testing::tiny_job(root, 1, {"training.steps: 1"}));
  EXPECT_THAT(message_of<InputError>([&] {
                export_weights({trained.checkpoint, root + "/average.safetensors", true});
              }),
              HasSubstr("no moving average (training.ema_decay)"));
  testing::write_bytes(root + "/there.safetensors", "mine");
  EXPECT_THAT(message_of<OutputError>([&] {
                export_weights({trained.checkpoint, root + "/there.safetensors", false});
              }),
              HasSubstr("exists; expected the name of a new file"));
  EXPECT_EQ(testing::read_bytes(root + "/there.safetensors"), "mine");
}

}  // namespace
}  // namespace sprocket::runtime
