#include "parallel/mesh.h"

#include "base/error.h"

namespace sprocket::parallel {

MeshCoordinate coordinate_of(int world_rank, const MeshShape& shape) {
  return {world_rank / shape.sequence(), world_rank / shape.ulysses % shape.outer,
          world_rank % shape.ulysses};
}

Mesh::Mesh(std::unique_ptr<comm::Communicator> world, const MeshShape& shape)
    : shape_(shape), world_(std::move(world)) {
  if (shape.world() != world_->size()) {
    throw ConfigError(
        fmt::format("parallel: data {} x outer {} x ulysses {} needs {} ranks, the job has {}",
                    shape.data, shape.outer, shape.ulysses, shape.world(), world_->size()));
  }
  coordinate_ = coordinate_of(world_->rank(), shape);
  const auto [data, outer, ulysses] = coordinate_;
  data_ = world_->split(outer * shape.ulysses + ulysses, data, "dp");
  sequence_ = world_->split(data, outer * shape.ulysses + ulysses, "sp");
  outer_ = sequence_->split(ulysses, outer, "sp.outer");
  ulysses_ = sequence_->split(outer, ulysses, "sp.ulysses");
}

}  // namespace sprocket::parallel
