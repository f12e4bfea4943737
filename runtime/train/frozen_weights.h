// Weights that no network of a job trains, in memory once for all that have them.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "configs/job.pb.h"
#include "models/parameter_store.h"
#include "parallel/mesh.h"

namespace sprocket::runtime {

class FrozenWeights {
 public:
  // For networks of this job, whatever gates their attention has.
  explicit FrozenWeights(const config::Job& job);

  // All weights of `own`'s model, read from its model.weights when they are first asked for, on the
  // mesh's device. Throws InputError for weights that do not fit.
  std::shared_ptr<models::ParameterStore> of(const config::Job& own, const parallel::Mesh& mesh);

 private:
  config::Attention widest_;  // has every gate that one of the networks has
  std::map<std::string, std::shared_ptr<models::ParameterStore>> by_path_;
};

}  // namespace sprocket::runtime
