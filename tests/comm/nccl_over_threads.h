// A stand-in for a CUDA device and NCCL, without either: streams are queues of steps that run when
// the host calls, device memory is host memory, and ranks are threads. It follows the libraries'
// rules of order, so that the Nccl backend can be run, and not only its calls be looked at:
//  * a step runs after all former ones of its stream and after the events that it waits for;
//  nothing
//    has run when an enqueueing call returns;
//  * point-to-point operations of a pair of ranks match in their order, collectives of a
//    communicator in theirs;
//  * what waits for a rank that has aborted hangs until the own abort, and NCCL reports no error.
#pragma once

#include <memory>

#include "parallel/comm/nccl_backend.h"
#include "tests/comm/test_memory.h"

namespace sprocket::comm::testing {

class ThreadDevices {
 public:
  ThreadDevices();
  ~ThreadDevices();

  // For one rank, whose thread alone uses them.
  struct Rank {
    NcclLibraries libraries;
    std::unique_ptr<TestMemory> memory;
  };
  Rank make_rank();

 private:
  class Meetings;
  class Device;
  class Nccl;
  class Cuda;
  class Memory;
  const std::shared_ptr<Meetings> meetings_;
};

}  // namespace sprocket::comm::testing
