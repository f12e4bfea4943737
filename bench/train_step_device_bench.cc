// Training steps (forward, backward, AdamW) of Wan2.1-1.3B's shape on one CUDA device, with random
// weights: dense and with VSA. Prints a JSON line for each; bench/device_train_step.py runs it
// beside diffusers.
//
// `tflops_dense_equivalent` counts what a dense step without recomputation needs,
// `tflops_executed` what was done (runtime/plan/flops.h). Over the device's peak rate they are the
// MFU and the HFU.
#include <cstdio>

#include <fmt/format.h>
#include <CLI/CLI.hpp>
#include <nlohmann/json.hpp>

#include "bench/timed_steps.h"
#include "configs/load.h"
#include "parallel/comm/thread_backend.h"
#include "parallel/device/device_memory.h"
#include "parallel/device/device_ordinal.h"
#include "parallel/device/tensor_device.h"
#include "runtime/plan/job_specs.h"

namespace {

using namespace sprocket;

constexpr int kNoDevice = 77;

struct Arguments {
  std::string grid = "21x30x52";
  std::vector<double> sparsities = {0, 0.9};
  int layers = 30, dim = 1536, heads = 12, ffn_dim = 8960, text_dim = 4096, text_tokens = 512;
  int steps = 5;
  bool keep = false;
};

config::Job job_of(const Arguments& a, double sparsity) {
  return config::parse_job(
             fmt::format("model {{ dim: {} heads: {} layers: {} ffn_dim: {} text_dim: {} "
                         "text_tokens: {} }}\n"
                         "attention {{ method: {} vsa {{ sparsity {{ start: {} }} }} }}\n"
                         "training {{ activation_checkpointing: {} }}\n"
                         "compute {{ device: CUDA precision: BF16 }}\n",
                         a.dim, a.heads, a.layers, a.ffn_dim, a.text_dim, a.text_tokens,
                         sparsity > 0 ? "VSA" : "DENSE", sparsity, a.keep ? "KEEP" : "BLOCK"),
             "bench", {}, {.world = 1})
      .job;
}

void measure(const Arguments& a, double sparsity, const at::Device& device, int t, int h, int w) {
  const config::Job job = job_of(a, sparsity);
  parallel::release_unused_memory(device);
  Timeline timeline;
  comm::CommunicatorOptions options;
  options.timeline = &timeline;
  const parallel::Mesh mesh(std::move(comm::make_thread_world(1, options).front()),
                            runtime::mesh_shape(job), device);
  const bench::TimedSteps timed = bench::time_steps(job, mesh, 1, t, h, w, a.steps);
  const double seconds = 1e-3 * bench::median(timed.ms);
  const parallel::DeviceMemory memory = parallel::device_memory(device);
  const nlohmann::ordered_json line{
      {"program", "sprocket"},
      {"attention", config::Attention::Method_Name(job.attention().method())},
      {"sparsity", sparsity},
      {"density", timed.density},
      {"grid", {t, h, w}},
      {"tokens", timed.tokens},
      {"dtype", "bf16"},
      {"layers", a.layers},
      {"checkpointing", !a.keep},
      {"parameters", timed.parameters},
      {"steps_ms", timed.ms},
      {"median_ms", 1e3 * seconds},
      {"tokens_per_s", static_cast<double>(timed.tokens) / seconds},
      {"tflops_dense_equivalent", 1e-12 * timed.flops.dense_equivalent / seconds},
      {"tflops_executed", 1e-12 * timed.flops.executed / seconds},
      {"peak_allocated_bytes", memory.peak_allocated},
      {"peak_reserved_bytes", memory.peak_reserved}};
  std::printf("%s\n", line.dump().c_str());
  std::fflush(stdout);
}

}  // namespace

int main(int argc, char** argv) {
  Arguments a;
  CLI::App app{"Training steps of Wan2.1-1.3B's shape on a CUDA device"};
  app.add_option("--grid", a.grid, "tokens t x h x w");
  app.add_option("--sparsity", a.sparsities, "0: dense; several are measured one after the other");
  app.add_option("--layers", a.layers);
  app.add_option("--dim", a.dim);
  app.add_option("--heads", a.heads);
  app.add_option("--ffn-dim", a.ffn_dim);
  app.add_option("--text-dim", a.text_dim);
  app.add_option("--text-tokens", a.text_tokens);
  app.add_option("--steps", a.steps);
  app.add_flag("--keep", a.keep, "keep activations; otherwise every block is computed again");
  app.add_flag_callback(
      "--smoke",
      [&a] {
        a.grid = "3x16x16";
        a.layers = 2;
      },
      "two layers and a short video: figures that mean nothing");
  CLI11_PARSE(app, argc, argv);
  int t = 0, h = 0, w = 0;
  if (std::sscanf(a.grid.c_str(), "%dx%dx%d", &t, &h, &w) != 3) {
    std::fprintf(stderr, "--grid: expected TxHxW, found %s\n", a.grid.c_str());
    return 2;
  }
  if (parallel::visible_devices() == 0) {
    std::fprintf(stderr, "no CUDA device\n");
    return kNoDevice;
  }
  try {
    const parallel::TensorDevice device = parallel::TensorDevice::cuda(0);
    for (const double sparsity : a.sparsities) measure(a, sparsity, device.device(), t, h, w);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "train_step_device_bench: %s\n", error.what());
    return 1;
  }
}
