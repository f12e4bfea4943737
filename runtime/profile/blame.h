// Which rank the others wait for most, and where its time goes beyond theirs.
#pragma once

#include <optional>
#include <span>
#include <string>

#include "runtime/profile/window_sums.h"

namespace sprocket::profile {

enum class Cause {
  kCompute,
  kDataWait,
  kCopies,
  kOther,    // its own work between scopes
  kLink,     // it is not late: its messages arrive last
  kUnknown,  // it is late, and spends no more time than the others on anything
};

struct Blame {
  int rank = 0;  // of the world
  double waited_share =
      0;  // of all ranks' time, exposed, that they waited for it more than for others
  Cause cause = Cause::kUnknown;
  double excess_ms = 0;  // per step, what the cause takes beyond the mean of the others
  double factor = 0;     // what it takes over the mean of the others; 0: they have none of it
  // kCompute: the layers, from and to, or the kernel that has most of the excess.
  int first_layer = -1, last_layer = -1;
  std::string kernel;
  double density_factor = 0;  // of these layers, over the mean of the others; 0: unknown
};

// None where no rank makes the others wait for a fiftieth of the time more than other ranks do on
// average: ranks that are late by turns are nobody's fault. Waits count where the one who waits
// computes nothing meanwhile: what compute hides costs nothing.
//
// A rank is waited for where it is the late one of a matched operation, and where its messages are
// the last ones that a member waits for beyond that (RecordedOperation::last_alone_ns).
//
// A rank that works more than the others, and enough to explain the longest wait, comes before one
// that is waited for longer: who waited for it is late for the next one.
//
// The cause is what it has most of beyond the mean of the others. Of a link that is: by how much
// its messages come later than its lateness explains. A rank whose sends wait in the system's
// buffers is done with an operation before its messages are through, and looks late by the lengths
// of the operations. But who is late has worked in the meantime: lateness beyond what the rank
// works more than the others counts for the link, as far as its messages did come last.
std::optional<Blame> find_blame(const WindowSums& sums, std::span<const int> ranks);

}  // namespace sprocket::profile
