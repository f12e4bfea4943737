#include "runtime/distill/recipe.h"

#include <functional>
#include <numeric>

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>

#include "base/error.h"
#include "base/philox.h"
#include "runtime/distill/dmd2.h"
#include "runtime/distill/tdm.h"

namespace sprocket::runtime {
namespace {

constexpr int kDraws = 256;

RandomStream stream(uint64_t seed, int64_t step, int64_t sample, int draw) {
  SPROCKET_CHECK(draw >= 0 && draw < kDraws, "draw {}", draw);
  return {seed, static_cast<uint64_t>(step), static_cast<uint64_t>(sample * kDraws + draw),
          RandomPurpose::kDistillation};
}

}  // namespace

Scene::Scene(uint64_t seed, int64_t step, std::vector<int64_t> samples, std::vector<int64_t> latent,
             const at::TensorOptions& options, at::Tensor text, at::Tensor empty_text)
    : seed_(seed),
      step_(step),
      samples_(std::move(samples)),
      latent_(std::move(latent)),
      options_(options),
      text_(std::move(text)),
      empty_text_(std::move(empty_text)) {}

int64_t Scene::elements() const {
  return std::accumulate(latent_.begin(), latent_.end(), int64_t{1}, std::multiplies<>());
}

at::Tensor Scene::normal(int draw) const {
  std::vector<int64_t> shape = {batch()};
  shape.insert(shape.end(), latent_.begin(), latent_.end());
  const at::Tensor host = at::empty(shape, at::kFloat);
  auto* const values = host.data_ptr<float>();
  for (int64_t lane = 0; lane < batch(); ++lane) {
    stream(seed_, step_, samples_[lane], draw)
        .normal({values + lane * elements(), static_cast<size_t>(elements())});
  }
  return host.to(options_);
}

double Scene::uniform(int draw, int64_t lane) const {
  return stream(seed_, step_, samples_[lane], draw).uniform(0);
}

int64_t Scene::below(int draw, int64_t lane, int64_t bound) const {
  return static_cast<int64_t>(
      stream(seed_, step_, samples_[lane], draw).below(0, static_cast<uint64_t>(bound)));
}

std::unique_ptr<Recipe> make_recipe(const config::Job& job) {
  const config::Distillation& distillation = job.distillation();
  switch (distillation.recipe()) {
    case config::Distillation::TDM:
      return std::make_unique<Tdm>(distillation.tdm(), distillation.guidance());
    case config::Distillation::DMD2:
      return std::make_unique<Dmd2>(distillation.dmd2(), distillation.guidance(),
                                    job.flow().shift());
  }
  throw InternalError("a recipe without an implementation");
}

at::Tensor predicted(Denoiser& network, const at::Tensor& x, std::span<const double> timesteps,
                     const Scene& scene) {
  const at::NoGradGuard no_graph;
  return network.predict(x, timesteps, scene.text());
}

at::Tensor guided(Denoiser& network, const at::Tensor& x, std::span<const double> timesteps,
                  const Scene& scene, double guidance) {
  if (guidance == 1) return predicted(network, x, timesteps, scene);
  const at::NoGradGuard no_graph;
  std::vector<double> twice(timesteps.begin(), timesteps.end());
  twice.insert(twice.end(), timesteps.begin(), timesteps.end());
  const at::Tensor v =
      network.predict(at::cat({x, x}), twice, at::cat({scene.text(), scene.empty_text()}));
  const int64_t batch = scene.batch();
  const at::Tensor with_text = v.narrow(0, 0, batch), without = v.narrow(0, batch, batch);
  return without + (with_text - without) * guidance;
}

std::vector<Level> levels_of(const Diffusion& diffusion, std::span<const double> timesteps) {
  std::vector<Level> levels;
  for (const double timestep : timesteps) levels.push_back(diffusion.level(timestep));
  return levels;
}

at::Tensor sample_mean(const at::Tensor& x) { return x.flatten(1).mean(1); }

}  // namespace sprocket::runtime
