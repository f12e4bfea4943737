// Helper of tensorboard_peer_test.py: `tensorboard_run DIR` trains the tiny job in DIR/run, loses
// its newest checkpoint, and goes on at another learning rate from the one before. Fails as a whole
// when a part does.
#include <gtest/gtest.h>

#include <filesystem>
#include <iostream>

#include "tests/runtime/tiny_job.h"

namespace {

namespace fs = std::filesystem;
using sprocket::testing::tiny_job;
using sprocket::testing::train;

void make_run(const std::string& folder) {
  const std::string held_out = folder + "/held_out";
  sprocket::testing::write_tiny_data(held_out, 0.7f);
  const std::vector<std::string> common = {
      "training.validation { path: \"" + held_out + "\" interval: 2 levels: 2 }",
      "attention.method: VSA",
      "attention.vsa.sparsity { start: 0.5 }",
      "attention.max_coverage { start: 0.5 }",
      "parallel.data: 2",
      "sampling.count: 3",
      "output { checkpoint_interval: 2 keep_checkpoints: 0 sample_interval: 2 }"};
  const auto job = [&](std::vector<std::string> more) {
    more.insert(more.end(), common.begin(), common.end());
    return tiny_job(folder, 4, more);
  };
  train(job({"training.steps: 6"}));
  fs::remove_all(fs::path(folder) / "run/step_00000006");
  sprocket::runtime::TrainOptions options;
  options.resume = "latest";
  train(job({"training.steps: 8", "training.optimizer.learning_rate: 1e-2"}), options);
}

}  // namespace

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  if (argc != 2) {
    std::cerr << "usage: tensorboard_run DIR\n";
    return 2;
  }
  make_run(argv[1]);
  return ::testing::UnitTest::GetInstance()->Failed() ? 1 : 0;
}
