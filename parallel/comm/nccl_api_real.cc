// The Nccl backend's libraries in builds with CUDA.
#include <cuda_runtime_api.h>
#include <nccl.h>

#include <cstdlib>
#include <cstring>
#include <utility>

#include <fmt/format.h>

#include "base/cuda_clock.h"
#include "base/cuda_stream.h"
#include "base/error.h"
#include "parallel/comm/nccl_backend.h"
#include "parallel/comm/nccl_version.h"

namespace sprocket::comm {
namespace {

static_assert(kNcclSuccess == ncclSuccess && kNcclInProgress == ncclInProgress);
static_assert(kCudaSuccess == cudaSuccess && kCudaNotReady == cudaErrorNotReady);
static_assert(sizeof(NcclUniqueId) == sizeof(ncclUniqueId));

ncclComm_t native(NcclApi::Comm comm) { return static_cast<ncclComm_t>(comm); }
cudaStream_t native_stream(void* stream) { return static_cast<cudaStream_t>(stream); }
cudaEvent_t native_event(void* event) { return static_cast<cudaEvent_t>(event); }

ncclDataType_t native(DType dtype) {
  switch (dtype) {
    case DType::kF64:
      return ncclFloat64;
    case DType::kF32:
      return ncclFloat32;
    case DType::kBF16:
      return ncclBfloat16;
    case DType::kF16:
      return ncclFloat16;
    case DType::kI64:
      return ncclInt64;
    case DType::kI32:
      return ncclInt32;
    case DType::kU8:
      return ncclUint8;
    case DType::kU16:
      break;
  }
  throw InternalError(fmt::format("NCCL cannot reduce {}", name_of(dtype)));
}

ncclRedOp_t native(ReduceOp op) {
  switch (op) {
    case ReduceOp::kSum:
      return ncclSum;
    case ReduceOp::kMax:
      return ncclMax;
    case ReduceOp::kMin:
      return ncclMin;
  }
  throw InternalError("a reduction that NCCL does not know");
}

class RealNccl : public NcclApi {
 public:
  int get_unique_id(NcclUniqueId* id) override {
    ncclUniqueId native_id;
    const int code = ncclGetUniqueId(&native_id);
    std::memcpy(id->bytes.data(), &native_id, sizeof(native_id));
    return code;
  }
  int comm_init(Comm* comm, int size, const NcclUniqueId& id, int rank,
                const NcclCommConfig& settings) override {
    ncclUniqueId native_id;
    std::memcpy(&native_id, id.bytes.data(), sizeof(native_id));
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    config.blocking = 0;
    config.commName = settings.name;
    if (settings.max_ctas > 0) config.maxCTAs = settings.max_ctas;
    ncclComm_t made = nullptr;
    const int code = ncclCommInitRankConfig(&made, size, native_id, rank, &config);
    *comm = made;
    return code;
  }
  int comm_get_async_error(Comm comm, int* code) override {
    ncclResult_t state = ncclSuccess;
    const int result = ncclCommGetAsyncError(native(comm), &state);
    *code = state;
    return result;
  }
  int comm_finalize(Comm comm) override { return ncclCommFinalize(native(comm)); }
  int comm_destroy(Comm comm) override { return ncclCommDestroy(native(comm)); }
  int comm_abort(Comm comm) override { return ncclCommAbort(native(comm)); }
  int group_start() override { return ncclGroupStart(); }
  int group_end() override { return ncclGroupEnd(); }
  int send(const void* data, size_t bytes, int peer, Comm comm, void* stream) override {
    return ncclSend(data, bytes, ncclUint8, peer, native(comm), native_stream(stream));
  }
  int receive(void* data, size_t bytes, int peer, Comm comm, void* stream) override {
    return ncclRecv(data, bytes, ncclUint8, peer, native(comm), native_stream(stream));
  }
  int broadcast(void* data, size_t bytes, int root, Comm comm, void* stream) override {
    return ncclBroadcast(data, data, bytes, ncclUint8, root, native(comm), native_stream(stream));
  }
  int all_gather(const void* in, void* out, size_t bytes, Comm comm, void* stream) override {
    return ncclAllGather(in, out, bytes, ncclUint8, native(comm), native_stream(stream));
  }
  int all_reduce(void* data, size_t count, DType dtype, ReduceOp op, Comm comm,
                 void* stream) override {
    return ncclAllReduce(data, data, count, native(dtype), native(op), native(comm),
                         native_stream(stream));
  }
  int reduce_scatter(const void* in, void* out, size_t count, DType dtype, Comm comm,
                     void* stream) override {
    return ncclReduceScatter(in, out, count, native(dtype), ncclSum, native(comm),
                             native_stream(stream));
  }
  int reduce(const void* in, void* out, size_t count, DType dtype, int root, Comm comm,
             void* stream) override {
    return ncclReduce(in, out, count, native(dtype), ncclSum, root, native(comm),
                      native_stream(stream));
  }
  std::string error_text(int code, Comm comm) override {
    const char* text = ncclGetErrorString(static_cast<ncclResult_t>(code));
    const char* detail = ncclGetLastError(comm ? native(comm) : nullptr);
    return detail && *detail ? fmt::format("{} ({})", text, detail) : std::string(text);
  }
};

class RealCuda : public CudaApi {
 public:
  int set_device(int device) override {
    if (const cudaError_t code = cudaSetDevice(device); code != cudaSuccess || clock_) return code;
    return code_of([&] { clock_ = &CudaClock::of_device(device); });
  }
  // Streams and events are made in base alone, which throws; here codes are returned.
  int create_stream(void** stream, StreamPriority priority) override {
    return code_of([&] { *stream = CudaStream(priority).release(); });
  }
  int destroy_stream(void* stream) override {
    CudaStream::adopt(stream);
    return cudaSuccess;
  }
  int create_event(void** event) override {
    return code_of([&] { *event = CudaEvent(EventTiming::kOn).release(); });
  }
  int destroy_event(void* event) override {
    CudaEvent::adopt(event);
    return cudaSuccess;
  }
  int record(void* event, void* stream) override {
    return cudaEventRecord(native_event(event), native_stream(stream));
  }
  int stream_wait(void* stream, void* event) override {
    return cudaStreamWaitEvent(native_stream(stream), native_event(event), 0);
  }
  int query(void* event) override {
    const cudaError_t code = cudaEventQuery(native_event(event));
    // "Not ready" would stay the runtime's last error, and be found after somebody's next launch.
    if (code == cudaErrorNotReady) cudaGetLastError();
    return code;
  }
  int time_of(void* event, int64_t* ns) override { return clock_->time_of(event, ns); }
  int copy(void* to, const void* from, size_t bytes, void* stream) override {
    return cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, native_stream(stream));
  }
  int allocate(void** memory, size_t bytes) override { return cudaMalloc(memory, bytes); }
  int release(void* memory) override { return cudaFree(memory); }
  std::string error_text(int code) override {
    cudaGetLastError();
    return cudaGetErrorString(static_cast<cudaError_t>(code));
  }

 private:
  template <class Body>
  static int code_of(Body&& body) {
    try {
      body();
      return cudaSuccess;
    } catch (const CudaError& error) {
      return error.code() != 0 ? error.code() : cudaErrorUnknown;
    }
  }

  CudaClock* clock_ = nullptr;  // of the one device that this is used for
};

}  // namespace

std::unique_ptr<Communicator> make_nccl_communicator(std::unique_ptr<Communicator> host,
                                                     const NcclOptions& nccl,
                                                     const CommunicatorOptions& options) {
  // Else NCCL connects the ranks of a collective at its first use, and the host that enqueues it
  // waits for all of them, in the middle of a step. NCCL has no other way to ask for this; a user's
  // own choice stays.
  setenv("NCCL_RUNTIME_CONNECT", "0", 0);
  const std::string name = host->name();
  auto backend = make_nccl_backend({std::make_shared<RealNccl>(), std::make_shared<RealCuda>()},
                                   std::move(host), nccl);
  return std::make_unique<Communicator>(std::move(backend), name, options);
}

NcclVersions nccl_versions() {
  NcclVersions versions{NCCL_VERSION_CODE, 0};
  ncclGetVersion(&versions.loaded);
  return versions;
}

}  // namespace sprocket::comm
