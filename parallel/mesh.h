// The process mesh: data x outer x ulysses.
//
// world rank = (data_index * outer + outer_index) * ulysses + ulysses_index. Ulysses is the
// innermost axis (fast links); the outer axis carries ring, all_gather or selected exchange. Groups
// are made by split, so nothing downstream assumes consecutive ranks.
#pragma once

#include <memory>

#include <c10/core/Device.h>

#include "parallel/comm/communicator.h"

namespace sprocket::parallel {

struct MeshShape {
  int data = 1;
  int outer = 1;
  int ulysses = 1;
  int world() const { return data * outer * ulysses; }
  int sequence() const { return outer * ulysses; }
  bool operator==(const MeshShape&) const = default;
};

struct MeshCoordinate {
  int data = 0;
  int outer = 0;
  int ulysses = 0;
  bool operator==(const MeshCoordinate&) const = default;
};

MeshCoordinate coordinate_of(int world_rank, const MeshShape& shape);

// The groups of a rank, one communicator for each.
class MeshGroups {
 public:
  // Collective over `world`.
  MeshGroups(std::unique_ptr<comm::Communicator> world, const MeshShape& shape,
             const MeshCoordinate& coordinate);

  comm::Communicator& world() const { return *world_; }
  comm::Communicator& data() const { return *data_; }          // same sequence position
  comm::Communicator& sequence() const { return *sequence_; }  // one sample's shards
  comm::Communicator& outer() const { return *outer_; }
  comm::Communicator& ulysses() const { return *ulysses_; }

 private:
  std::unique_ptr<comm::Communicator> world_, data_, sequence_, outer_, ulysses_;
};

// One group of ranks: the communicator of what the host decides on, and that of the ranks' tensors.
// On the processor they are one object.
struct RankGroup {
  comm::Communicator& host;
  comm::Communicator& tensors;
};

class Mesh {
 public:
  // Collective over `world`, which moves host memory. With a CUDA device NCCL communicators are
  // made beside it for the tensors, and as long as the mesh lives the timeline has the times of the
  // device. Throws ConfigError when shape.world() differs from the group's size.
  Mesh(std::unique_ptr<comm::Communicator> world, const MeshShape& shape,
       const at::Device& device = at::kCPU);
  ~Mesh();
  Mesh(const Mesh&) = delete;
  Mesh& operator=(const Mesh&) = delete;

  const MeshShape& shape() const { return shape_; }
  const MeshCoordinate& coordinate() const { return coordinate_; }
  // Of the rank's tensors.
  const at::Device& device() const { return device_; }

  const MeshGroups& host() const { return *host_; }  // host memory
  // Memory of device(); on the processor the same as host().
  const MeshGroups& tensors() const { return device_groups_ ? *device_groups_ : *host_; }
  comm::Communicator& world() const { return host_->world(); }
  comm::Communicator& sequence() const { return host_->sequence(); }
  RankGroup outer() const { return {host_->outer(), tensors().outer()}; }
  Timeline* timeline() const { return world().options().timeline; }

 private:
  MeshShape shape_;
  MeshCoordinate coordinate_;
  at::Device device_;
  std::unique_ptr<MeshGroups> host_, device_groups_;
};

}  // namespace sprocket::parallel
