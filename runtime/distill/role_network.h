// One of the networks of a distillation on this rank: its job, mesh and weights.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "configs/roles.h"
#include "runtime/checkpoint/state.pb.h"
#include "runtime/data/index.h"
#include "runtime/distill/network_denoiser.h"
#include "runtime/train/frozen_weights.h"
#include "runtime/train/network.h"

namespace sprocket::runtime {

struct RoleSetup {
  int threads = 1;
  int64_t memory = 0;       // bytes that this network may use
  data::LatentShape shape;  // of the largest videos
  // What the job's latents are; a checkpoint of other latents is refused.
  const LatentDescription* latent = nullptr;
  // What is trained is left zero: the caller replaces it.
  bool from_checkpoint = false;
  // Of the job: whence the teacher, and networks of adapters, have the weights that stay as they
  // are.
  FrozenWeights* frozen = nullptr;
};

class RoleNetwork {
 public:
  // The network of `job` (with its distillation) in `role`. On `mesh`, which must outlive it, or on
  // a mesh of its own over the same ranks where the role's parallel asks for one. Collective over
  // the world. Throws InputError, on all ranks, for weights of another architecture or of other
  // latents.
  RoleNetwork(const config::Job& job, config::NetworkRole role, const parallel::Mesh& mesh,
              const RoleSetup& setup);

  const config::Job& job() const { return job_; }
  // Of the run or checkpoint whose weights it has; none for other weights.
  const std::optional<LatentDescription>& trained_on() const { return trained_on_; }
  // Null: the mesh of the constructor.
  const parallel::Mesh* own_mesh() const { return own_mesh_.get(); }
  Network& network() { return *network_; }
  // Whether its weights are on their device only while it is evaluated.
  bool offloaded() const { return offloaded_ != nullptr; }
  NetworkDenoiser& denoiser() { return *denoiser_; }

 private:
  config::Job job_;
  std::optional<LatentDescription> trained_on_;
  std::unique_ptr<parallel::Mesh> own_mesh_;
  std::unique_ptr<Network> network_;
  std::unique_ptr<OffloadedWeights> offloaded_;
  std::unique_ptr<NetworkDenoiser> denoiser_;
};

}  // namespace sprocket::runtime
