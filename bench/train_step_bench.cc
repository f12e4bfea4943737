// Training steps (forward, backward, AdamW) of Sprocket's Wan-shaped transformer, on one rank or
// under mpirun on several, which share the sequence.
//
// Rank 0 prints one JSON line with the keys of bench/peers/diffusers_step.py, and how long it
// waited for others. bench/train_step.py and bench/train_scaling.py run it.
#include <sys/resource.h>

#include <algorithm>
#include <cstdio>

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/full.h>
#include <ATen/ops/mse_loss.h>
#include <ATen/ops/randn.h>

#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "base/timeline.h"
#include "configs/load.h"
#include "parallel/comm/mpi_backend.h"
#include "runtime/plan/job_specs.h"
#include "runtime/train/network.h"
#include "runtime/train/optimizer.h"

namespace {

using namespace sprocket;

struct Arguments {
  std::string grid = "8x32x32", dtype = "fp32", method = "auto", parallel;
  double sparsity = 0;
  int threads = 2, steps = 5, domains = 1;
  int dim = 384, heads = 6, layers = 6, ffn_dim = 1536, text_dim = 512, text_tokens = 64;
  bool checkpoint = false;
};

long peak_rss_mib() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_maxrss / 1024;
}

config::Job job_of(const Arguments& a, int world) {
  const bool vsa = a.method == "vsa" || (a.method == "auto" && a.sparsity > 0);
  return config::parse_job(
             fmt::format(
                 "model {{ dim: {} heads: {} layers: {} ffn_dim: {} text_dim: {} "
                 "text_tokens: {} }}\n"
                 "attention {{ method: {} domains: {} vsa {{ sparsity {{ start: {} }} }} }}\n"
                 "training {{ activation_checkpointing: {} }}\n"
                 "parallel {{ {} }}\n"
                 "compute {{ precision: {} }}\n",
                 a.dim, a.heads, a.layers, a.ffn_dim, a.text_dim, a.text_tokens,
                 vsa ? "VSA" : "DENSE", a.domains, a.sparsity, a.checkpoint ? "BLOCK" : "KEEP",
                 a.parallel, a.dtype == "bf16" ? "BF16" : "FP32"),
             "bench", {}, {.world = world})
      .job;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

double waited_ms(const std::vector<Interval>& intervals) {
  double sum = 0;
  for (const Interval& interval : intervals) {
    if (interval.activity == Activity::kCommunicationWait) {
      sum += static_cast<double>(interval.end_ns - interval.begin_ns) / 1e6;
    }
  }
  return sum;
}

}  // namespace

int main(int argc, char** argv) {
  Arguments a;
  CLI::App app{"Training steps of Sprocket's Wan-shaped transformer"};
  app.add_option("--grid", a.grid, "tokens t x h x w");
  app.add_option("--dtype", a.dtype)->check(CLI::IsMember({"fp32", "bf16"}));
  app.add_option("--method", a.method, "auto: VSA when sparsity > 0")
      ->check(CLI::IsMember({"auto", "dense", "vsa"}));
  app.add_option("--sparsity", a.sparsity);
  app.add_option("--threads", a.threads, "of a rank");
  app.add_option("--domains", a.domains, "attention.domains; the outer degree divides it");
  app.add_option("--parallel", a.parallel, "fields of `parallel`, \"ulysses: 2\" for example");
  app.add_option("--steps", a.steps);
  app.add_option("--dim", a.dim);
  app.add_option("--heads", a.heads);
  app.add_option("--layers", a.layers);
  app.add_option("--ffn-dim", a.ffn_dim);
  app.add_option("--text-dim", a.text_dim);
  app.add_option("--text-tokens", a.text_tokens);
  app.add_flag("--checkpoint", a.checkpoint, "recompute every block in the backward");
  CLI11_PARSE(app, argc, argv);
  int t = 0, h = 0, w = 0;
  if (std::sscanf(a.grid.c_str(), "%dx%dx%d", &t, &h, &w) != 3) {
    std::fprintf(stderr, "--grid: expected TxHxW, found %s\n", a.grid.c_str());
    return 2;
  }

  at::set_num_threads(a.threads);
  const comm::MpiSession session(nullptr, nullptr);
  const config::Job job = job_of(a, session.size());
  Timeline timeline;
  comm::CommunicatorOptions options;
  options.timeline = &timeline;
  const parallel::Mesh mesh(comm::make_mpi_world(options), runtime::mesh_shape(job));
  runtime::Network network(job, mesh, a.threads, runtime::Network::Start::kFresh);
  runtime::Optimizer optimizer(job.training().optimizer(), network.parameters(), a.threads);
  const long before = peak_rss_mib();

  const data::LatentShape shape{16, t, 2 * h, 2 * w};
  at::manual_seed(0);  // the same on all ranks
  const at::Tensor video = at::randn({1, 16, t, 2 * h, 2 * w}), noise = at::randn(video.sizes());
  const at::Tensor text = at::randn({1, a.text_tokens, a.text_dim});
  const at::Tensor timestep = at::full({1}, 500.0);
  const parallel::AttentionSpec spec = runtime::attention_spec(job.attention(), 0);
  std::vector<double> times, waits;
  for (int step = 0; step <= a.steps; ++step) {
    timeline.take();
    timeline.set_recording(true);
    const int64_t start = monotonic_ns();
    network.parameters().zero_gradients();
    const at::Tensor patches =
        network.own_patches(0.5 * video + 0.5 * noise, shape, models::FeatureOrder::kChannelFirst);
    const at::Tensor target =
        network.own_patches(noise - video, shape, models::FeatureOrder::kChannelLast);
    const at::Tensor velocity = network.velocity(patches, timestep, text, shape, spec);
    at::mse_loss(velocity, target, at::Reduction::Sum)
        .div(static_cast<double>(shape.elements()))
        .backward();
    runtime::sum_gradients(network.parameters(), mesh.world());
    optimizer.update(1e-4, optimizer.gradient_norm());
    const int64_t end = monotonic_ns();
    if (step == 0) continue;
    times.push_back(static_cast<double>(end - start) / 1e6);
    waits.push_back(waited_ms(timeline.take()));
  }
  if (session.rank() != 0) return 0;
  const int64_t tokens = int64_t{t} * h * w;
  nlohmann::ordered_json line{
      {"program", "sprocket"},
      {"attention", config::Attention::Method_Name(job.attention().method())},
      {"sparsity", a.sparsity},
      {"grid", {t, h, w}},
      {"tokens", tokens},
      {"dtype", a.dtype},
      {"threads", a.threads},
      {"ranks", session.size()},
      {"parallel", a.parallel},
      {"checkpointing", a.checkpoint},
      {"parameters", network.parameters().elements()},
      {"steps_ms", times},
      {"median_ms", median(times)},
      {"tokens_per_s", 1e3 * static_cast<double>(tokens) / median(times)},
      {"exposed_wait_ms", median(waits)},
      {"peak_rss_mib", peak_rss_mib()},
      {"rss_before_mib", before}};
  std::printf("%s\n", line.dump().c_str());
}
