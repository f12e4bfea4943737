// Ranks that are processes under mpirun; host memory.
//
// MPI never sees device pointers, and only point-to-point messages: reductions are the shared ones
// of exchange_backend.h, whatever MPI's own would do. All calls come from one thread at a time
// (MPI_THREAD_SERIALIZED). Error codes are returned and become CommError. An abort travels as a
// message that every rank looks for while it waits.
#pragma once

#include <cstddef>
#include <memory>
#include <string>

#include "parallel/comm/communicator.h"

namespace sprocket::comm {

class Backend;

// Between construction and destruction the process may use MPI; once per process. Throws
// ConfigError when this MPI cannot be called from several threads in turn.
class MpiSession {
 public:
  MpiSession(int* argc, char*** argv);
  // Finalises; when an exception is unwinding, ends the whole job instead, peers included, because
  // they would wait for this rank.
  ~MpiSession();
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  // Ends all processes of the job; mpirun exits with `exit_code`.
  [[noreturn]] void abort_job(int exit_code) const;

 private:
  int rank_ = 0;
  int size_ = 1;
  int uncaught_at_birth_;
};

// The MPI library's own words about itself, "Open MPI v4.1.4" for example; needs no session.
std::string mpi_library_version();

struct MpiOptions {
  // Longer messages are cut; MPI counts are ints.
  size_t max_message_bytes = size_t{1} << 30;
};

// A duplicate of MPI_COMM_WORLD, collective. InternalError outside a session.
std::unique_ptr<Backend> make_mpi_backend(const MpiOptions& mpi = {});
std::unique_ptr<Communicator> make_mpi_world(const CommunicatorOptions& options,
                                             const MpiOptions& mpi = {});

}  // namespace sprocket::comm
