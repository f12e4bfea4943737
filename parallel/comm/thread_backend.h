// Ranks that are threads of one process, for tests and for runs without MPI.
//
// Host memory only: LibTorch shares its CUDA autograd threads between all ranks of a process.
// An operation returns at once; whoever comes second copies the bytes, straight from the sender's
// buffer to the receiver's, so that neither side has to poll for the other to finish.
#pragma once

#include <memory>
#include <vector>

#include "parallel/comm/communicator.h"

namespace sprocket::comm {

class Backend;

// One backend per rank; each is used by one thread at a time.
std::vector<std::unique_ptr<Backend>> make_thread_backends(int size, const std::string& name);

// Communicator r is for the thread of rank r; all are named "world". One set of options for all
// ranks, or one per rank (a Timeline belongs to one rank).
std::vector<std::unique_ptr<Communicator>> make_thread_world(int size,
                                                             const CommunicatorOptions& options);
std::vector<std::unique_ptr<Communicator>> make_thread_world(
    const std::vector<CommunicatorOptions>& options_of_rank);

}  // namespace sprocket::comm
