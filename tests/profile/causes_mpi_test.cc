// One of four ranks is slowed on purpose: the verdict must name it and say why. How long anything
// takes is asserted nowhere.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <iostream>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "parallel/comm/mpi_backend.h"
#include "runtime/jobs/train_job.h"
#include "runtime/profile/report.h"
#include "tests/profile/slow_rank.h"
#include "tests/runtime/tiny_job.h"

namespace sprocket::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using namespace std::chrono_literals;

constexpr int kRanks = 4;

// A folder that all ranks see, gone at the end.
class SharedFolder {
 public:
  SharedFolder() : world_(comm::make_mpi_world({})) {
    path_ = std::filesystem::temp_directory_path() / "sprocket_causes.XXXXXX";
    if (world_->rank() == 0) {
      EXPECT_TRUE(mkdtemp(path_.data()));
    }
    std::vector<uint8_t> bytes(path_.begin(), path_.end());
    world_->broadcast(comm::Buffer::of(std::span(bytes)), 0).wait_host();
    path_.assign(bytes.begin(), bytes.end());
  }
  ~SharedFolder() {
    world_->barrier();
    if (world_->rank() == 0) std::filesystem::remove_all(path_);
  }
  const std::string& path() const { return path_; }
  // Of rank 0, before the others go on.
  template <class Work>
  void first(Work&& work) {
    if (world_->rank() == 0) work();
    world_->barrier();
  }

 private:
  std::unique_ptr<comm::Communicator> world_;
  std::string path_;
};

struct MeshCase {
  const char* name;
  const char* parallel;
};

class Causes : public ::testing::TestWithParam<MeshCase> {
 protected:
  void SetUp() override {
    comm::CommunicatorOptions options;
    rank_ = comm::make_mpi_world(options)->rank();
  }

  // The verdict's line on who is waited for, of a run in which this rank is slow so; the same on
  // all ranks.
  std::string verdict_line(const Slowness& slowness) {
    SharedFolder folder;
    folder.first([&] { write_tiny_data(folder.path() + "/data"); });
    const config::Job job = tiny_job(folder.path(), kRanks,
                                     {"model.layers: 4", "training { steps: 11 }",
                                      "profile { steps: 8 warmup: 2 }", GetParam().parallel});
    comm::CommunicatorOptions options;
    options.timeline = &timeline_;
    options.timeout = 60s;
    runtime::TrainOptions train;
    train.print_report = false;
    runtime::run_training(
        job,
        std::make_unique<comm::Communicator>(make_slow_backend(comm::make_mpi_backend(), slowness),
                                             "world", options),
        train);
    const profile::Report report = profile::read_report(job.output().directory() + "/profile.json");
    std::string line;
    for (const std::string& verdict : report.verdict) {
      if (rank_ == 0) std::cout << verdict << "\n";
      if (verdict.find("waiting for") != std::string::npos) line = verdict;
    }
    EXPECT_LE(report.verdict.size(), 5u);
    EXPECT_TRUE(report.window.complete);
    return line;
  }

  int rank_ = 0;
  Timeline timeline_;
};

TEST_P(Causes, ARankThatComputesMoreInTwoLayers) {
  Slowness slowness;
  if (rank_ == 3) {
    slowness.before_operation = [this] {
      const int layer = timeline_.position.layer;
      if (layer == 1 || layer == 2) compute_for(timeline_, "planted", 4ms);
    };
  }
  EXPECT_THAT(verdict_line(slowness), HasSubstr("waiting for rank 3: its layers 1-2 compute"));
}

TEST_P(Causes, ARankWhoseDataIsSlow) {
  delay_data(rank_ == 2 ? 40ms : 0ms);
  EXPECT_THAT(verdict_line({}), HasSubstr("waiting for rank 2: loading its data takes"));
  delay_data(0ms);
}

TEST_P(Causes, ARankWhoseLinkIsSlow) {
  Slowness slowness;
  if (rank_ == 1) slowness.link_delay = 3ms;
  EXPECT_THAT(verdict_line(slowness), AllOf(HasSubstr("waiting for rank 1"), HasSubstr("link")));
}

INSTANTIATE_TEST_SUITE_P(
    Meshes, Causes,
    ::testing::Values(MeshCase{"Ulysses", "parallel { ulysses: 2 }"},
                      MeshCase{"Ring", "parallel { ulysses: 1 strategy: RING }"},
                      MeshCase{"Replicas", "parallel { data: 2 strategy: SELECTED }"}),
    [](const auto& mesh) { return mesh.param.name; });

}  // namespace
}  // namespace sprocket::testing
