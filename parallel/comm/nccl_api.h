// The calls of NCCL and of the CUDA runtime that the Nccl backend makes, and no others. Without
// their headers: the backend compiles, and its error paths are tested, where there is neither.
//
// Every function returns the library's own code; 0 is success for both.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "base/dtype.h"
#include "base/stream.h"
#include "parallel/comm/communicator.h"

namespace sprocket::comm {

struct NcclUniqueId {
  std::array<char, 128> bytes{};
};

struct NcclCommConfig {
  const char* name = "";  // in NCCL's own messages; outlives the communicator
  int max_ctas = 0;       // of one kernel; 0: NCCL's choice
};

inline constexpr int kNcclSuccess = 0;
inline constexpr int kNcclInProgress = 7;

class NcclApi {
 public:
  using Comm = void*;  // ncclComm_t
  virtual ~NcclApi() = default;

  virtual int get_unique_id(NcclUniqueId* id) = 0;
  // Non-blocking, as every call on the communicator is from then on.
  virtual int comm_init(Comm* comm, int size, const NcclUniqueId& id, int rank,
                        const NcclCommConfig& config) = 0;
  virtual int comm_get_async_error(Comm comm, int* code) = 0;
  virtual int comm_finalize(Comm comm) = 0;
  virtual int comm_destroy(Comm comm) = 0;
  virtual int comm_abort(Comm comm) = 0;

  virtual int group_start() = 0;
  virtual int group_end() = 0;
  virtual int send(const void* data, size_t bytes, int peer, Comm comm, void* stream) = 0;
  virtual int receive(void* data, size_t bytes, int peer, Comm comm, void* stream) = 0;
  virtual int broadcast(void* data, size_t bytes, int root, Comm comm, void* stream) = 0;
  virtual int all_gather(const void* in, void* out, size_t bytes, Comm comm, void* stream) = 0;
  // The dtypes that supports_reduction() allows.
  virtual int all_reduce(void* data, size_t count, DType dtype, ReduceOp op, Comm comm,
                         void* stream) = 0;
  virtual int reduce_scatter(const void* in, void* out, size_t count, DType dtype, Comm comm,
                             void* stream) = 0;
  virtual int reduce(const void* in, void* out, size_t count, DType dtype, int root, Comm comm,
                     void* stream) = 0;

  // With what NCCL has to say about the communicator's last failure; `comm` may be null.
  virtual std::string error_text(int code, Comm comm) = 0;
};

// Sums of u16 do not exist in NCCL; everything else of DType does.
inline bool nccl_reduces(DType dtype) { return dtype != DType::kU16; }

inline constexpr int kCudaSuccess = 0;
inline constexpr int kCudaNotReady = 600;

class CudaApi {
 public:
  virtual ~CudaApi() = default;

  virtual int set_device(int device) = 0;
  virtual int create_stream(void** stream, StreamPriority priority) = 0;
  virtual int destroy_stream(void* stream) = 0;
  virtual int create_event(void** event) = 0;  // which notes when it is reached
  virtual int destroy_event(void* event) = 0;
  virtual int record(void* event, void* stream) = 0;
  virtual int stream_wait(void* stream, void* event) = 0;
  virtual int query(void* event) = 0;  // kCudaNotReady while pending
  // When an event that is no longer pending was reached: nanoseconds of monotonic_ns(), by the one
  // clock of the device (base/cuda_clock.h).
  virtual int time_of(void* event, int64_t* ns) = 0;
  virtual int copy(void* to, const void* from, size_t bytes, void* stream) = 0;
  virtual int allocate(void** memory, size_t bytes) = 0;
  virtual int release(void* memory) = 0;
  virtual std::string error_text(int code) = 0;  // also clears the runtime's last error
};

}  // namespace sprocket::comm
