// Which hosts keep failing, and how a job goes on without one.
#pragma once

#include <functional>
#include <map>
#include <string>
#include <vector>

#include "launcher/launch/hosts.h"
#include "parallel/mesh.h"

namespace sprocket::launcher {

// Failures of every host since the last new checkpoint.
class HostRecord {
 public:
  // A host is to be dropped after so many; 0: never.
  explicit HostRecord(int limit) : limit_(limit) {}

  void failed(const std::vector<std::string>& hosts);
  void saved_a_checkpoint() { failures_.clear(); }
  // Of `hosts`, those that are to be dropped.
  std::vector<std::string> due(const std::vector<HostSlots>& hosts) const;

 private:
  int limit_;
  std::map<std::string, int> failures_;
};

// How a job goes on with fewer hosts.
struct Retreat {
  bool possible = false;
  std::string why_not;  // when it is not
  std::vector<HostSlots> hosts;
  int ranks = 0;
  int data = 0;  // the data-parallel degree
};

// What is wrong with the job on a mesh; empty: nothing.
using MeshProblem = std::function<std::string(const parallel::MeshShape&)>;

// Without the hosts `dropped`. As many ranks as before where the hosts that stay have the slots;
// else the highest lower data-parallel degree that fits them and that `problem` allows, with the
// sequence-parallel degrees as they are.
Retreat retreat(const std::vector<HostSlots>& hosts, const std::vector<std::string>& dropped,
                const parallel::MeshShape& mesh, const MeshProblem& problem);

}  // namespace sprocket::launcher
