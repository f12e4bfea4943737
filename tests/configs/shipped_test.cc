// Every job in configs/ is loaded and validated as its first lines say it is run.
#include <algorithm>
#include <filesystem>
#include <fstream>
#include <regex>

#include <gtest/gtest.h>

#include "configs/load.h"

namespace sprocket::config {
namespace {

std::vector<std::string> shipped_jobs() {
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(SPROCKET_SOURCE_DIR "/configs")) {
    if (entry.path().extension() != ".txtpb") continue;
    // Those of `sprocket attention` describe no model; its own tests run them.
    if (entry.path().filename().string().starts_with("attention_")) continue;
    if (entry.path().filename().string().starts_with("cluster_")) continue;
    files.push_back(entry.path().string());
  }
  std::sort(files.begin(), files.end());
  return files;
}

// What the comment "mpirun -np N … sprocket COMMAND --config configs/NAME" says.
LoadOptions documented_start(const std::string& file) {
  std::ifstream stream(file);
  const std::regex command("# +mpirun -np ([0-9]+) .*sprocket (train|distill) --config configs/" +
                           std::filesystem::path(file).filename().string() + ".*");
  std::smatch match;
  for (std::string line; std::getline(stream, line);) {
    if (!std::regex_match(line, match, command)) continue;
    LoadOptions options;
    options.purpose = match[2] == "train" ? Purpose::kTrain : Purpose::kDistill;
    options.world = std::stoi(match[1]);
    return options;
  }
  ADD_FAILURE() << file << ": expected a comment `mpirun -np N sprocket train --config configs/…`";
  return {};
}

TEST(ShippedJobs, LoadAndAreLegalOnTheRanksTheyName) {
  const std::vector<std::string> files = shipped_jobs();
  EXPECT_GE(files.size(), 6u);
  for (const std::string& file : files) {
    const LoadOptions options = documented_start(file);
    EXPECT_NO_THROW({
      const LoadedJob loaded = load_job(file, {}, options);
      EXPECT_TRUE(loaded.job.data().has_latent()) << file << " has no extents for a dry run";
      EXPECT_GT(loaded.job.parallel().outer(), 0);
    }) << file;
  }
}

}  // namespace
}  // namespace sprocket::config
