// What the front demands of arguments, once for all backends. Throws InternalError: wrong arguments
// are a bug of the caller.
#pragma once

#include <span>
#include <string>

#include "parallel/comm/communicator.h"
#include "parallel/comm/recorder.h"

namespace sprocket::comm {

struct CallSite {
  const std::string& communicator;
  int rank;
  int size;
  OpKind op;
};

void check_buffer(const CallSite& site, const char* what, const Buffer& buffer);
// Every rank's count is >= 0; `whole` holds their sum and `own` the own one, of one dtype.
void check_counts(const CallSite& site, const Buffer& own, const Buffer& whole,
                  std::span<const int64_t> counts);
void check_all_to_all(const CallSite& site, const Buffer& in, const Buffer& out);
void check_root(const CallSite& site, int root);
void check_exchange(const CallSite& site, const Buffer& send,
                    std::span<const Segment> send_segments, const Buffer& receive,
                    std::span<const Segment> receive_segments);

}  // namespace sprocket::comm
