// What one rank did over the steps of a window, added up.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "runtime/profile/operation_matching.h"
#include "runtime/profile/step_parts.h"

namespace sprocket::profile {

struct KernelSums {
  Activity activity = Activity::kCompute;
  int64_t calls = 0, ns = 0;
  double flops = 0, bytes = 0;
};

struct LayerSums {
  int64_t compute_ns = 0, communication_ns = 0, exposed_ns = 0, wait_ns = 0;
  Spread density, coverage;
  std::vector<HeadPart> head_density, head_coverage;
};

struct RankSums {
  int64_t steps = 0;
  StepParts parts;
  int64_t wait_ns = 0;         // for others, in matched operations
  int64_t caused_wait_ns = 0;  // that others waited for it
  // That others stood still, with no compute to hide it, because it was late or its messages came
  // last; and because it was late. Sums over the others.
  int64_t held_up_ns = 0, late_ns = 0;
  // That its messages came last, alone, and no compute hid it: in each operation the longest wait
  // of any member; and of it, what lies beyond its being late.
  int64_t last_ns = 0, link_ns = 0;
  int64_t tokens = 0, sent_bytes = 0;
  int64_t records = 0, recording_ns = 0, lost_records = 0;
  std::map<std::pair<std::string, Phase>, KernelSums> kernels;
  std::vector<LayerSums> layers;
  // By the job's groups of a name: bytes to ranks of other hosts, and to all.
  struct Sent {
    int64_t all = 0, between_hosts = 0;
  };
  std::map<std::string, Sent> sent_by_group;
  std::map<int, int64_t> sent_to;  // by world rank

  // hosts: of every world rank.
  struct Step {
    StepParts parts;
    IntervalSet compute;
  };
  Step add(const RankStep& rank, const std::vector<std::string>& hosts);
};

}  // namespace sprocket::profile
