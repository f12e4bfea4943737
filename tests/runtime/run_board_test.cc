// Which curves a run shows in TensorBoard. The files: tensorboard_test.cc,
// tensorboard_peer_test.py.
#include "runtime/metrics/run_board.h"

#include <gmock/gmock.h>

#include <filesystem>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "tests/data/temporary_folder.h"
#include "tests/runtime/tiny_job.h"

namespace sprocket {
namespace {

using runtime::metrics_curves;
using testing::message_of;
using testing::TemporaryFolder;
using testing::tiny_job;
using testing::train;
using ::testing::UnorderedElementsAreArray;

std::vector<std::string> names_in(const std::filesystem::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    names.push_back(entry.path().filename().string());
  }
  return names;
}

TEST(RunBoard, ShowsEveryNumberOfALineAndNoneTwice) {
  const auto line = nlohmann::json::parse(R"({
    "step": 3, "loss": 0.5, "tokens_per_second": 100.0, "bad_samples": 0, "of_tomorrow": 7,
    "density": {"mean": 0.25, "min": 0.125, "max": 0.375, "by_layer": [0.125, 0.375]},
    "kept_mass": {"mean": 1, "min": 1, "max": 1, "by_layer": [1], "by_head": [[1, 1]]},
    "note": "text"})");
  std::vector<std::pair<std::string, double>> found;
  for (const auto& curve : metrics_curves(line)) found.emplace_back(curve.tag, curve.value);
  EXPECT_THAT(found, UnorderedElementsAreArray(std::vector<std::pair<std::string, double>>{
                         {"loss", 0.5},
                         {"throughput/tokens_per_second", 100},
                         {"faults/bad_samples", 0},
                         {"of_tomorrow", 7},
                         {"attention/density_mean", 0.25},
                         {"attention/density_min", 0.125},
                         {"attention/density_max", 0.375},
                         {"density/layer_00", 0.125},
                         {"density/layer_01", 0.375},
                         {"attention/kept_mass_mean", 1},
                         {"attention/kept_mass_min", 1},
                         {"attention/kept_mass_max", 1},
                         {"kept_mass/layer_00", 1}}));
}

TEST(RunBoard, IsAbsentWhenNotWanted) {
  TemporaryFolder with, without;
  train(tiny_job(with.path().string(), 2, {"training.steps: 1"}));
  EXPECT_EQ(names_in(with.path() / "run/tensorboard").size(), 1u);
  train(tiny_job(without.path().string(), 1, {"training.steps: 1", "output.tensorboard: false"}));
  EXPECT_FALSE(std::filesystem::exists(without.path() / "run/tensorboard"));
}

TEST(RunBoard, AFolderThatCannotBeMadeEndsTheJobOnAllRanks) {
  TemporaryFolder folder;
  std::filesystem::create_directory(folder.path() / "run");
  testing::write_bytes(folder / "run/tensorboard", "a file");
  const std::string message =
      message_of<OutputError>([&] { train(tiny_job(folder.path().string(), 2)); });
  EXPECT_THAT(message, ::testing::HasSubstr(folder / "run/tensorboard"));
}

}  // namespace
}  // namespace sprocket
