#include "models/layer_parameters.h"

#include "base/error.h"
#include "models/lora.h"
#include "parallel/tensor_buffer.h"

namespace sprocket::models {

void ModelWeights::refresh_copies() const {
  base.refresh_copies();
  if (trained) trained->refresh_copies();
}

void check_dtype(const ModelWeights& weights, at::ScalarType dtype) {
  const at::ScalarType accumulator = parallel::accumulator_type(dtype);
  for (const ParameterStore* store : {&weights.base, weights.trained}) {
    if (!store) continue;
    const at::ScalarType found = store->flat_parameters().scalar_type();
    SPROCKET_CHECK(found == accumulator, "compute in {} needs parameters in {}, found {}",
                   at::toString(dtype), at::toString(accumulator), at::toString(found));
  }
}

Affine affine_of(const ModelWeights& weights, const std::string& prefix) {
  const std::string weight = prefix + ".weight", bias = prefix + ".bias";
  const ParameterStore& store = weights.store_of(weight);
  Affine layer{store.tensor(weight), store.tensor(bias), store.copy(weight), store.copy(bias), {}};
  const std::string down = prefix + kAdapterDown, up = prefix + kAdapterUp;
  if (weights.trained && weights.trained->contains(down)) {
    const ParameterStore& trained = *weights.trained;
    layer.adapter = {trained.tensor(down), trained.tensor(up), trained.copy(down), trained.copy(up),
                     weights.adapter_factor};
  }
  return layer;
}

}  // namespace sprocket::models
