// What comparisons of a model on several ranks with one share.
#pragma once

#include <string>
#include <vector>

#include "models/parameter_store.h"
#include "parallel/mesh.h"

namespace sprocket::models::testing {

// Every outer x ulysses mesh of so many ranks whose Ulysses degree divides the heads.
std::vector<parallel::MeshShape> sequence_meshes(int ranks, int heads);

// Largest |a - b| relative to the largest |a|, over each tensor by itself; the worst of all, and
// its name. The gradients are flat, in the store's order.
double worst_gradient(const ParameterStore& store, const at::Tensor& expected,
                      const at::Tensor& found, std::string& name);

}  // namespace sprocket::models::testing
