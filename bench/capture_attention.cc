// What a layer's attention is called with in a trained model: the input of `sprocket attention`.
//
// Noises the first clip of a data set, by default the run's, to a level, evaluates the newest
// checkpoint once on one rank, and writes q and k (after norm and rotary embedding), v and the
// gates of one layer as fp32, tokens in raster order; of several layers, their heads side by side.
// The attention is that of the run at the checkpoint's step.
#include <cstdio>
#include <string>
#include <vector>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/full.h>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <CLI/CLI.hpp>

#include "base/error.h"
#include "models/safetensors/writer.h"
#include "parallel/comm/thread_backend.h"
#include "runtime/attention/rank_tokens.h"
#include "runtime/checkpoint/run_checkpoints.h"
#include "runtime/data/latent_dataset.h"
#include "runtime/jobs/sample_job.h"
#include "runtime/plan/job_specs.h"
#include "runtime/train/flow.h"
#include "runtime/train/job_model.h"
#include "runtime/train/network.h"
#include "runtime/train/text_input.h"

namespace {

using namespace sprocket;

struct Arguments {
  std::string run, data, output;
  std::vector<int> layers{0};
  double noise = 0.5;
};

// The inputs of every layer's attention, tokens in block order.
std::vector<parallel::AttentionInputs> evaluate(const Arguments& a, runtime::Network& network,
                                                parallel::SequenceAttention& attention,
                                                const data::Sample& sample,
                                                const data::LatentShape& shape, int64_t step) {
  const config::Job& job = network.job();
  std::vector<float> noise = runtime::draw_noise(shape.elements(), {job.training().seed(), step});
  const auto latent = [&](const std::vector<float>& values) {
    return at::from_blob(const_cast<float*>(values.data()), {1, shape.c, shape.t, shape.h, shape.w},
                         at::kFloat);
  };
  const at::Tensor noised = latent(sample.latent) * (1 - a.noise) + latent(noise) * a.noise;

  models::ModelCompute compute;
  if (runtime::compute_dtype(job) == DType::kBF16) compute.dtype = at::kBFloat16;
  const auto model = runtime::make_model(job, network.parameters(), network.mesh(), compute);
  std::vector<parallel::AttentionSlot> slots(network.layers());
  for (const int layer : a.layers) slots[layer].keep_inputs = true;
  model->forward(network.own_patches(noised, shape, models::FeatureOrder::kChannelFirst),
                 at::full({1}, runtime::kTimesteps * a.noise),
                 runtime::text_tensor(job.model(), sample.text),
                 runtime::attention_spec(job.attention(), step), attention, slots);
  std::vector<parallel::AttentionInputs> inputs;
  for (const int layer : a.layers) inputs.push_back(slots[layer].inputs);
  return inputs;
}

void write(const std::string& path, const std::vector<parallel::AttentionInputs>& layers,
           const runtime::RankTokens& tokens) {
  std::vector<at::Tensor> raster;
  std::vector<safetensors::TensorToWrite> file;
  const auto add = [&](const char* name, auto&& tensor_of) {
    std::vector<at::Tensor> heads;
    for (const parallel::AttentionInputs& inputs : layers) {
      if (tensor_of(inputs).defined()) heads.push_back(tensor_of(inputs).to(at::kFloat));
    }
    if (heads.empty()) return;
    const at::Tensor x = at::cat(heads, 2).contiguous();
    raster.push_back(at::empty_like(x));
    runtime::permute_tokens(x, tokens.to_input, 1, raster.back());
    file.push_back({{name, safetensors::ElementType::kF32, x.sizes().vec()},
                    {static_cast<const std::byte*>(raster.back().data_ptr()),
                     static_cast<size_t>(x.numel()) * sizeof(float)}});
  };
  add("q", [](const auto& inputs) { return inputs.q; });
  add("k", [](const auto& inputs) { return inputs.k; });
  add("v", [](const auto& inputs) { return inputs.v; });
  add("gate", [](const auto& inputs) { return inputs.gates.coarse; });
  add("gate_fine", [](const auto& inputs) { return inputs.gates.fine; });
  safetensors::write_file(path, file);
}

void capture(const Arguments& a) {
  const at::NoGradGuard no_gradients;
  const std::string path = runtime::open_checkpoint(a.run).path;
  const config::Job job = runtime::job_of_checkpoint(path);
  if (job.model().family() != config::Model::WAN) {
    throw ConfigError(fmt::format("{}: model.family: {}; legal here: WAN", path,
                                  config::Model::Family_Name(job.model().family())));
  }
  const int64_t step = runtime::read_state(path).step();
  for (const int layer : a.layers) {
    if (layer >= 0 && layer < job.model().layers()) continue;
    throw ConfigError(fmt::format("--layer: {}; legal: 0 to {}, the layers of {}", layer,
                                  job.model().layers() - 1, path));
  }
  data::LatentDataset dataset(a.data.empty() ? job.data().path() : a.data);
  const data::LatentShape shape = dataset.index().samples.at(0).shape;
  auto world = comm::make_thread_world(1, {});
  const parallel::Mesh mesh(std::move(world.front()), {});
  runtime::Network network(job, mesh, 1, runtime::Network::Start::kCheckpoint);
  const runtime::FlatState weights = network.checkpoint_state();
  runtime::load_tensors(path, {weights.tensors(), {}});
  weights.write_back();

  const parallel::TokenLayout& layout = network.layout(shape);
  parallel::SequenceAttention attention(mesh, layout, runtime::strategy_spec(job, 1));
  write(a.output, evaluate(a, network, attention, dataset.load(0), shape, step),
        runtime::rank_tokens(layout, network.shards(shape), 0));
  const parallel::Grid& grid = layout.spec.grid;
  fmt::print("{}: layers {} of {} at noise {}; problem {{ grid {{ t: {} h: {} w: {} }} }}\n",
             a.output, fmt::join(a.layers, ", "), path, a.noise, grid.t, grid.h, grid.w);
}

}  // namespace

int main(int argc, char** argv) {
  Arguments a;
  CLI::App app{"Writes the attention inputs of one layer of a trained model"};
  app.add_option("--run", a.run, "folder of a run or of a checkpoint")->required();
  app.add_option("--data", a.data, "another data set than the run's, of any grid");
  app.add_option("--layer", a.layers, "one or several");
  app.add_option("--noise", a.noise, "s of (1 - s) x0 + s noise")->check(CLI::Range(0.0, 1.0));
  app.add_option("--output", a.output, "safetensors file")->required();
  CLI11_PARSE(app, argc, argv);
  try {
    capture(a);
  } catch (const Error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return 1;
  }
}
