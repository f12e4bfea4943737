#include "tests/runtime/tiny_job.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <mutex>

#include "configs/load.h"
#include "models/text/hashed_text.h"
#include "runtime/data/latent_writer.h"
#include "tests/runtime/thread_ranks.h"

namespace sprocket::testing {
namespace {

constexpr char kJob[] = R"(
model {
  dim: 48 heads: 4 layers: 2 ffn_dim: 64 latent_channels: 4
  text_dim: 8 text_tokens: 6 frequency_dim: 16
}
attention { cube { t: 2 h: 2 w: 2 } domains: 4 budget_head_group: 1 }
training {
  steps: 20 global_batch: 2 micro_batch: 1 seed: 3 text_dropout: 0.25
  optimizer { learning_rate: 2e-3 warmup_steps: 1 decay: COSINE }
}
sampling { steps: 3 guidance: 2 }
output { log_interval: 1 }
profile { warmup: 1 }
)";

}  // namespace

void write_tiny_data(const std::string& folder, float scale) {
  data::LatentWriter writer(folder, {"haar", 1, 4}, {"hashed", text::kHashedTextVersion, 4, 8},
                            1 << 20);
  const data::LatentShape shape{4, 3, 8, 10};
  for (int clip = 0; clip < 4; ++clip) {
    std::vector<float> latent(shape.elements());
    for (size_t i = 0; i < latent.size(); ++i) {
      latent[i] = scale * static_cast<float>(std::sin(0.37 * static_cast<double>(i) + clip) +
                                             0.2 * static_cast<double>(i % 7));
    }
    data::SampleInfo info;
    info.shape = shape;
    info.caption = "clip " + std::to_string(clip);
    info.source = "closed form";
    info.frames = 9;
    info.fps = 8;
    info.width = 80;
    info.height = 64;
    writer.add(info, latent, {});
  }
  writer.finish();
}

config::Job tiny_job(const std::string& root, int ranks, std::vector<std::string> overrides,
                     config::Purpose purpose) {
  const std::string data = root + "/data";
  if (!std::filesystem::exists(data)) write_tiny_data(data);
  overrides.insert(overrides.begin(), "data.path: '" + data + "'");
  config::LoadOptions options;
  options.purpose = purpose;
  options.world = ranks;
  options.output_directory = root + "/run";
  return config::parse_job(kJob, "tiny_job", overrides, options).job;
}

runtime::TrainResult train(const config::Job& job, runtime::TrainOptions options) {
  options.print_report = false;
  const int ranks = job.parallel().data() * job.parallel().outer() * job.parallel().ulysses();
  std::vector<runtime::TrainResult> results(ranks);
  run_ranks(ranks, [&](std::unique_ptr<comm::Communicator> world) {
    const int rank = world->rank();
    results[rank] = runtime::run_training(job, std::move(world), options);
  });
  for (const auto& result : results) {
    EXPECT_EQ(result.losses, results[0].losses);
    EXPECT_EQ(result.exit_code, results[0].exit_code);
  }
  return results[0];
}

}  // namespace sprocket::testing
