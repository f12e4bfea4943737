#include "parallel/mesh.h"

#include "base/error.h"
#include "parallel/comm/nccl_backend.h"
#include "parallel/device/tensor_device.h"

namespace sprocket::parallel {

MeshCoordinate coordinate_of(int world_rank, const MeshShape& shape) {
  return {world_rank / shape.sequence(), world_rank / shape.ulysses % shape.outer,
          world_rank % shape.ulysses};
}

MeshGroups::MeshGroups(std::unique_ptr<comm::Communicator> world, const MeshShape& shape,
                       const MeshCoordinate& coordinate)
    : world_(std::move(world)) {
  const auto [data, outer, ulysses] = coordinate;
  data_ = world_->split(outer * shape.ulysses + ulysses, data, "dp");
  sequence_ = world_->split(data, outer * shape.ulysses + ulysses, "sp");
  outer_ = sequence_->split(ulysses, outer, "sp.outer");
  ulysses_ = sequence_->split(outer, ulysses, "sp.ulysses");
}

Mesh::Mesh(std::unique_ptr<comm::Communicator> world, const MeshShape& shape,
           const at::Device& device)
    : shape_(shape), device_(device) {
  if (shape.world() != world->size()) {
    throw ConfigError(
        fmt::format("parallel: data {} x outer {} x ulysses {} needs {} ranks, the job has {}",
                    shape.data, shape.outer, shape.ulysses, shape.world(), world->size()));
  }
  coordinate_ = coordinate_of(world->rank(), shape);
  std::unique_ptr<comm::Communicator> device_world;
  if (!device.is_cpu()) {
    const comm::CommunicatorOptions options = world->options();
    device_world = comm::make_nccl_communicator(world->split(0, world->rank(), "world.device"),
                                                {.device = device.index()}, options);
  }
  host_ = std::make_unique<MeshGroups>(std::move(world), shape, coordinate_);
  if (device_world) {
    device_groups_ = std::make_unique<MeshGroups>(std::move(device_world), shape, coordinate_);
    if (timeline()) timeline()->measure_by(moments_on(device_));
  }
}

Mesh::~Mesh() {
  if (device_groups_ && timeline()) timeline()->measure_by(nullptr);
}

}  // namespace sprocket::parallel
