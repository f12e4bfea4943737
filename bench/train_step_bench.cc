// Training steps (forward, backward, AdamW) of Sprocket's Wan-shaped transformer, on one rank or
// under mpirun on several, which share the sequence.
//
// Rank 0 prints one JSON line with the keys of bench/peers/diffusers_step.py, and how long it
// waited for others. bench/train_step.py and bench/train_scaling.py run it.
#include <cstdio>

#include <ATen/Parallel.h>

#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "bench/timed_steps.h"
#include "configs/load.h"
#include "parallel/comm/mpi_backend.h"
#include "runtime/plan/job_specs.h"

namespace {

using namespace sprocket;

struct Arguments {
  std::string grid = "8x32x32", dtype = "fp32", method = "auto", parallel;
  double sparsity = 0;
  int threads = 2, steps = 5, domains = 1;
  int dim = 384, heads = 6, layers = 6, ffn_dim = 1536, text_dim = 512, text_tokens = 64;
  bool checkpoint = false;
};

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
  const bench::TimedSteps timed = bench::time_steps(job, mesh, a.threads, t, h, w, a.steps);
  if (session.rank() != 0) return 0;
  const double median_ms = bench::median(timed.ms);
  nlohmann::ordered_json line{
      {"program", "sprocket"},
      {"attention", config::Attention::Method_Name(job.attention().method())},
      {"sparsity", a.sparsity},
      {"grid", {t, h, w}},
      {"tokens", timed.tokens},
      {"dtype", a.dtype},
      {"threads", a.threads},
      {"ranks", session.size()},
      {"parallel", a.parallel},
      {"checkpointing", a.checkpoint},
      {"parameters", timed.parameters},
      {"steps_ms", timed.ms},
      {"median_ms", median_ms},
      {"tokens_per_s", 1e3 * static_cast<double>(timed.tokens) / median_ms},
      {"exposed_wait_ms", bench::median(timed.waits_ms)},
      {"peak_rss_mib", bench::peak_rss_mib()},
      {"rss_before_mib", timed.rss_before_mib}};
  std::printf("%s\n", line.dump().c_str());
}
