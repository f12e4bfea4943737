// One training-like pass of a small Wan model on any mesh, for comparisons.
#pragma once

#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "models/parameter_store.h"
#include "models/patches.h"
#include "models/wan/wan_model.h"
#include "parallel/mesh.h"
#include "parallel/sequence_attention.h"

namespace sprocket::models::testing {

// Standard normal numbers of one test stream.
at::Tensor random_tensor(at::IntArrayRef shape, uint64_t stream, at::ScalarType dtype);

struct WanInputs {
  at::Tensor latent_BCTHW, timestep_B, text_BSE, cotangent_BCTHW;
};

struct WanCase {
  WanConfig config;
  parallel::TokenLayoutSpec layout;
  parallel::AttentionSpec spec;
  parallel::MeshShape mesh;
  parallel::StrategySpec strategy;
  ModelCompute compute;
};

// 2 layers, 6 heads, odd grid with partial cubes in every axis, 12 cubes, with gates.
WanCase small_case();
// Batch 2, fp64.
WanInputs small_inputs(const WanCase& c);

// Values that leave no gradient zero: every tensor random, the norms around 1.
void randomise(ParameterStore& parameters);

struct WanResult {
  at::Tensor velocity_BLF;  // of this rank's tokens
  at::Tensor gradients;     // flat, of sum(velocity * cotangent), summed over the sequence ranks
  std::vector<parallel::AttentionSlot> slots;
};

// Collective over `world`, whose size is the mesh's. Adds to the store's gradients, which start at
// 0.
WanResult run_wan(const WanCase& c, const WanInputs& inputs, ParameterStore& parameters,
                  comm::Communicator& world);
// With gradients of what is trained beside `weights.base`.
WanResult run_wan(const WanCase& c, const WanInputs& inputs, const ModelWeights& weights,
                  ParameterStore& trained, comm::Communicator& world);

}  // namespace sprocket::models::testing
