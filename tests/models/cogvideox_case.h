// One training-like pass of a small CogVideoX model on any mesh, for comparisons.
#pragma once

#include <ATen/core/Tensor.h>

#include "models/cogvideox/cogvideox_model.h"
#include "tests/models/wan_case.h"

namespace sprocket::models::testing {

struct CogVideoXCase {
  CogVideoXConfig config;
  parallel::TokenLayoutSpec layout;
  parallel::AttentionSpec spec;
  parallel::MeshShape mesh;
  parallel::StrategySpec strategy;
  ModelCompute compute;
};

// 2 layers, 6 heads of 16, 43 tokens of text in six blocks (more than a quarter of all tokens), an
// odd grid with partial cubes in every axis, 12 cubes, with gates, fp64.
CogVideoXCase small_cogvideox(CogVideoXPositions positions);

struct CogVideoXInputs {
  at::Tensor latent_BCTHW, timestep_B, text_BSE, cotangent_BCTHW;
};

// Batch 2, fp64.
CogVideoXInputs small_inputs(const CogVideoXCase& c);

struct CogVideoXResult {
  at::Tensor prediction_BLF;  // of this rank's tokens of the video
  at::Tensor gradients;  // flat, of sum(prediction * cotangent), summed over the sequence ranks
  std::vector<parallel::AttentionSlot> slots;
};

// Collective over `world`, whose size is the mesh's. Adds to the store's gradients, which start at
// 0.
CogVideoXResult run_cogvideox(const CogVideoXCase& c, const CogVideoXInputs& inputs,
                              ParameterStore& parameters, comm::Communicator& world);
// With gradients of what is trained beside `weights.base`.
CogVideoXResult run_cogvideox(const CogVideoXCase& c, const CogVideoXInputs& inputs,
                              const ModelWeights& weights, ParameterStore& trained,
                              comm::Communicator& world);

// The same on one rank.
CogVideoXResult run_cogvideox_alone(const CogVideoXCase& c, const CogVideoXInputs& inputs,
                                    ParameterStore& parameters);

}  // namespace sprocket::models::testing
