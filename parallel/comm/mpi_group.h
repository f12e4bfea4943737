// An MPI communicator with its abort channel.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <mpi.h>

#include "parallel/comm/operation.h"

namespace sprocket::comm {

// Throws BackendError with MPI's text when `code` is not MPI_SUCCESS.
void check_mpi(int code, const char* call, int peer = -1);

class MpiGroup {
 public:
  // Takes ownership of `comm`. `parent` is null for the world.
  MpiGroup(MPI_Comm comm, std::shared_ptr<MpiGroup> parent, std::string name);
  // Collective, unless the group was aborted.
  ~MpiGroup();
  MpiGroup(const MpiGroup&) = delete;
  MpiGroup& operator=(const MpiGroup&) = delete;

  MPI_Comm comm() const { return comm_; }
  int rank() const { return rank_; }
  int size() const { return static_cast<int>(world_ranks_.size()); }
  const std::vector<int>& world_ranks() const { return world_ranks_; }
  // The tag of a channel; channels wrap around after as many operations as MPI has tags.
  int tag_of(int64_t channel) const;

  void abort(const std::string& reason) noexcept;
  // Looks for an abort of this group or of one that it was split from.
  void throw_if_aborted();

 private:
  struct Abort {
    std::string reason;
    int world_rank;
  };
  void look_for_abort();

  MPI_Comm comm_;
  const std::shared_ptr<MpiGroup> parent_;
  const std::string name_;
  int rank_ = 0;
  int greatest_tag_ = 0;
  std::vector<int> world_ranks_;
  std::optional<Abort> aborted_;
};

}  // namespace sprocket::comm
