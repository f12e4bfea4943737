// What a step of distillation consists of: the interface between recipes, which know equations, and
// the executor, which knows networks, phases and updates.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "configs/job.pb.h"
#include "configs/roles.h"
#include "runtime/diffusion/diffusion.h"

namespace sprocket::runtime {

// A network as recipes see it: whole latents in, whole predictions out, on every rank of a sequence
// group the same.
class Denoiser {
 public:
  virtual ~Denoiser() = default;
  // x [B, …], a timestep in 0..1000 for each sample, text [B, …] -> the prediction, like x. In a
  // graph where gradient mode is on: the backward of a loss leaves this rank's share of the
  // gradients with the network's parameters. Collective over the sequence group.
  virtual at::Tensor predict(const at::Tensor& x, std::span<const double> timesteps,
                             const at::Tensor& text) = 0;
  // After every backward through the network.
  virtual void end_backward() {}
};

// The networks of a job; all of one form of diffusion.
struct Networks {
  Denoiser& student;
  Denoiser& teacher;
  Denoiser& fake_score;
  Diffusion diffusion;
};

// The samples of a micro-batch: what they are made of, and their random numbers, which are
// functions of (seed, step, sample, draw) alone. The same on all ranks of a sequence group.
class Scene {
 public:
  // samples: indices within the step, one for each sample of the micro-batch. latent: sizes of
  // one, on the host or a device by `options`.
  Scene(uint64_t seed, int64_t step, std::vector<int64_t> samples, std::vector<int64_t> latent,
        const at::TensorOptions& options, at::Tensor text, at::Tensor empty_text);

  int64_t step() const { return step_; }
  int64_t batch() const { return static_cast<int64_t>(samples_.size()); }
  // Elements of one sample.
  int64_t elements() const;
  const at::Tensor& text() const { return text_; }              // [B, …]
  const at::Tensor& empty_text() const { return empty_text_; }  // [B, …], for guidance

  // Draw `draw` (0 to 255) of the step: standard normal [B, latent…], or for sample `lane` uniform
  // in (0, 1), or an integer in [0, bound). A draw serves one of the three.
  at::Tensor normal(int draw) const;
  double uniform(int draw, int64_t lane) const;
  int64_t below(int draw, int64_t lane, int64_t bound) const;

  // What a recipe keeps from one phase of the step to the next.
  std::vector<at::Tensor> kept;
  // Mean distance of the teacher's clean video from the fake score's, where the student was led by
  // it: set by the student's phase.
  std::optional<double> score_gap;

 private:
  uint64_t seed_;
  int64_t step_;
  std::vector<int64_t> samples_, latent_;
  at::TensorOptions options_;
  at::Tensor text_, empty_text_;
};

// One update of one network.
struct PhaseSpec {
  std::string name;
  config::NetworkRole trained = config::NetworkRole::kStudent;
  // A loss above it is taken for an outlier: no update; 0: never.
  double skip_above = 0;
};

class Recipe {
 public:
  virtual ~Recipe() = default;
  // The updates of step `step`, in order. Every phase has a network of its own.
  virtual std::vector<PhaseSpec> phases(int64_t step) const = 0;
  // Phase number `phase` of the step: the mean of the samples' losses, in a graph of the trained
  // network alone. Called with gradient mode on, for every micro-batch once.
  virtual at::Tensor loss(size_t phase, const Networks& networks, Scene& scene) const = 0;
};

// By distillation.recipe; `job` has its defaults.
std::unique_ptr<Recipe> make_recipe(const config::Job& job);

// v_empty + guidance (v_text - v_empty), both in one batch; with guidance 1 the text's alone. No
// graph.
at::Tensor guided(Denoiser& network, const at::Tensor& x, std::span<const double> timesteps,
                  const Scene& scene, double guidance);

// Without a graph.
at::Tensor predicted(Denoiser& network, const at::Tensor& x, std::span<const double> timesteps,
                     const Scene& scene);

std::vector<Level> levels_of(const Diffusion& diffusion, std::span<const double> timesteps);

// Mean over all dimensions but the first: [B].
at::Tensor sample_mean(const at::Tensor& x);

}  // namespace sprocket::runtime
