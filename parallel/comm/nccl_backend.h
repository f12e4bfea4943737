// Ranks that own one GPU each; device memory.
//
// NCCL moves the data; a host communicator of the same ranks bootstraps it, carries barriers and
// splits, and is how a rank hears of another one's abort. Operations run on a stream of the
// communicator's own: they start after what is already on the caller's stream, and overlap with
// what the caller enqueues next, until Work::wait(stream).
//
// Two things differ from the host backends. Reductions are NCCL's: the same bits on every run of
// one configuration, but in the order of its rings and trees, not of the ranks. And buffers must be
// device memory, which an allocator must not give away before the stream has waited for the
// operation.
#pragma once

#include <chrono>
#include <memory>

#include "parallel/comm/backend.h"
#include "parallel/comm/nccl_api.h"

namespace sprocket::comm {

struct NcclOptions {
  int device = 0;  // the CUDA ordinal in this process
  // Of the communicator's own stream: high, so that kernels of a few blocks start while a kernel of
  // many computes.
  StreamPriority priority = StreamPriority::kHigh;
  // Most thread blocks of one NCCL kernel, which is what communication takes from the computation
  // that it overlaps with; 0 leaves the number to NCCL. Ranks that share a device need few.
  int max_ctas = 0;
  // Of start-up, of enqueueing and of an orderly end; completion has the group's own timeout.
  std::chrono::milliseconds timeout{std::chrono::minutes(5)};
};

struct NcclLibraries {
  std::shared_ptr<NcclApi> nccl;
  std::shared_ptr<CudaApi> cuda;
};

// Collective over `host`, which it takes over. Connects all pairs before it returns. Throws
// CommError.
std::unique_ptr<Backend> make_nccl_backend(NcclLibraries libraries,
                                           std::unique_ptr<Communicator> host,
                                           const NcclOptions& options);

// With the libraries of this build, whose collectives are connected at start-up, too. Throws
// ConfigError when the build has none. Call it before threads that read the environment: it sets
// NCCL_RUNTIME_CONNECT unless it is set.
std::unique_ptr<Communicator> make_nccl_communicator(std::unique_ptr<Communicator> host,
                                                     const NcclOptions& nccl,
                                                     const CommunicatorOptions& options);

}  // namespace sprocket::comm
