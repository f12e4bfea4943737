// The process mesh: data x outer x ulysses.
//
// world rank = (data_index * outer + outer_index) * ulysses + ulysses_index. Ulysses is the
// innermost axis (fast links); the outer axis carries ring, all_gather or selected exchange. Groups
// are made by split, so nothing downstream assumes consecutive ranks.
#pragma once

#include <memory>

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

class Mesh {
 public:
  // Collective over `world`. Throws ConfigError when shape.world() differs from the group's size.
  Mesh(std::unique_ptr<comm::Communicator> world, const MeshShape& shape);

  const MeshShape& shape() const { return shape_; }
  const MeshCoordinate& coordinate() const { return coordinate_; }
  comm::Communicator& world() const { return *world_; }
  comm::Communicator& data() const { return *data_; }          // same sequence position
  comm::Communicator& sequence() const { return *sequence_; }  // one sample's shards
  comm::Communicator& outer() const { return *outer_; }
  comm::Communicator& ulysses() const { return *ulysses_; }
  Timeline* timeline() const { return world_->options().timeline; }

 private:
  MeshShape shape_;
  MeshCoordinate coordinate_;
  std::unique_ptr<comm::Communicator> world_, data_, sequence_, outer_, ulysses_;
};

}  // namespace sprocket::parallel
