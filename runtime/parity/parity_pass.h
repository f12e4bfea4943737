// One forward and backward of a job's model on a mesh, with everything that is compared.
#pragma once

#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include "configs/job.pb.h"
#include "parallel/mesh.h"
#include "runtime/parity/parity_samples.h"
#include "runtime/parity/selection_gather.h"

namespace sprocket::runtime {

struct ParityTensor {
  std::string name;            // "loss", "output", "gradient of blocks.0.ffn.0.weight"
  std::vector<int64_t> shape;  // of the output: samples, tokens, features
  at::Tensor values;           // flat, in host memory; fp64, or fp32 where the pass computes so
};

struct ParityResults {
  std::vector<ParityTensor> tensors;  // on rank 0; none on the others
  // By replica, on rank 0; none where the method does not look at the data.
  std::vector<LayerSelections> selections;
  double density = 1;  // of the selections, mean over layers; on every rank

  const ParityTensor& at(const std::string& name) const;
};

struct ParityPassOptions {
  int threads = 1;
  int64_t attention_step = 0;  // at which the attention's schedules are evaluated
  // By replica, used instead of choosing; for a mesh of one rank. Null: every layer chooses.
  const std::vector<LayerSelections>* selections = nullptr;
};

// The network starts as a training run of the job does, except that tensors which start at zero are
// filled with small random numbers: a factor of zero would hide everything behind it. Gradients are
// summed over the world as in training. Collective over mesh.world(); mesh.shape().data is 1, and
// the rank computes all replicas one after the other, or else their number.
ParityResults compute_parity_pass(const config::Job& job, const parallel::Mesh& mesh,
                                  const ParitySamples& samples, const ParityPassOptions& options);

}  // namespace sprocket::runtime
