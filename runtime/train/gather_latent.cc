#include "runtime/train/gather_latent.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>

#include "parallel/tensor_buffer.h"

namespace sprocket::runtime {

at::Tensor gather_latent(Network& network, const at::Tensor& own_BLF,
                         const data::LatentShape& shape, models::FeatureOrder order) {
  comm::Communicator& group = network.mesh().sequence();
  const int64_t batch = own_BLF.size(0), features = own_BLF.size(2);
  std::vector<int64_t> counts;
  for (int rank = 0; rank < group.size(); ++rank) {
    counts.push_back(batch * network.tokens_of(shape, rank).video * features);
  }
  const parallel::TokenLayout& layout = network.layout(shape);
  const at::Tensor own = own_BLF.contiguous().cpu();
  const at::Tensor all = at::empty({batch * layout.spec.grid.tokens() * features}, own.options());
  group.all_gather(parallel::buffer_of(own), parallel::buffer_of(all), counts).wait_host();
  std::vector<at::Tensor> parts;
  int64_t first = 0;
  for (const int64_t count : counts) {
    parts.push_back(all.narrow(0, first, count).view({batch, -1, features}));
    first += count;
  }
  return models::unpatchify_tokens(at::cat(parts, 1), layout, network.patch(), order);
}

}  // namespace sprocket::runtime
