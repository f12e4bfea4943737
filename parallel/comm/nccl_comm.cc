#include "parallel/comm/nccl_comm.h"

#include <exception>
#include <thread>
#include <utility>

#include <fmt/format.h>

#include "base/error.h"

namespace sprocket::comm {

NcclComm::NcclComm(NcclLibraries libraries, std::unique_ptr<Communicator> host,
                   const NcclOptions& options)
    : libraries_(std::move(libraries)),
      host_(std::move(host)),
      options_(options),
      uncaught_at_birth_(std::uncaught_exceptions()) {
  try {
    check_cuda(cuda().set_device(options_.device), "cudaSetDevice");
    check_cuda(cuda().create_stream(&stream_, options_.priority), "cudaStreamCreate");
    NcclUniqueId id;
    if (host_->rank() == 0) check_nccl(nccl().get_unique_id(&id), "ncclGetUniqueId");
    host_->broadcast({id.bytes.data(), static_cast<int64_t>(id.bytes.size()), DType::kU8}, 0)
        .wait_host();
    const NcclCommConfig config{host_->name().c_str(), options_.max_ctas};
    check_nccl(nccl().comm_init(&comm_, host_->size(), id, host_->rank(), config),
               "ncclCommInitRank");
    connect_all_pairs();
  } catch (const std::exception& error) {
    abort(error.what());
    close(false);
    throw;
  }
}

NcclComm::~NcclComm() { close(std::uncaught_exceptions() <= uncaught_at_birth_); }

void NcclComm::close(bool healthy) noexcept {
  try {
    if (!healthy) abort("its communicator was destroyed while an exception unwound");
    if (comm_ && !aborted_) {
      check_nccl(nccl().comm_finalize(comm_), "ncclCommFinalize");
      check_enqueued(nccl().comm_destroy(std::exchange(comm_, nullptr)), "ncclCommDestroy");
    }
  } catch (const BackendError& error) {
    abort(error.what());
  }
  for (void* event : spare_events_) cuda().destroy_event(event);
  spare_events_.clear();
  if (stream_) cuda().destroy_stream(std::exchange(stream_, nullptr));
}

void NcclComm::abort(const std::string& reason) noexcept {
  if (aborted_) return;
  aborted_ = reason;
  // The peers first: their kernels may be what this rank's abort has to wait for.
  host_->abort(reason);
  if (comm_) nccl().comm_abort(std::exchange(comm_, nullptr));
}

void NcclComm::check_cuda(int code, const char* call) const {
  if (code == kCudaSuccess) return;
  throw BackendError(fmt::format("{} failed: {}", call, cuda().error_text(code)));
}

int NcclComm::settle(const char* call) {
  const auto deadline = Operation::Clock::now() + options_.timeout;
  for (;;) {
    int state = kNcclSuccess;
    if (const int code = nccl().comm_get_async_error(comm_, &state); code != kNcclSuccess) {
      return code;
    }
    if (state != kNcclInProgress) return state;
    try {
      host_->check();
    } catch (const CommError& error) {
      throw BackendError(error.what(), error.where().peer);
    }
    if (Operation::Clock::now() >= deadline) {
      throw BackendError(
          fmt::format("{} is still in progress after {} ms", call, options_.timeout.count()));
    }
    std::this_thread::yield();
  }
}

void NcclComm::check_nccl(int code, const char* call, int peer) {
  if (code == kNcclInProgress) code = settle(call);
  if (code == kNcclSuccess) return;
  throw BackendError(fmt::format("{} failed: {}", call, nccl().error_text(code, comm_)), peer);
}

void NcclComm::check_enqueued(int code, const char* call, int peer) const {
  if (code == kNcclSuccess || code == kNcclInProgress) return;
  throw BackendError(fmt::format("{} failed: {}", call, nccl().error_text(code, comm_)), peer);
}

void* NcclComm::take_event() {
  if (!spare_events_.empty()) {
    void* const event = spare_events_.back();
    spare_events_.pop_back();
    return event;
  }
  // An event belongs to the current device, which the thread of a backward pass may not have set.
  void* event = nullptr;
  check_cuda(cuda().set_device(options_.device), "cudaSetDevice");
  check_cuda(cuda().create_event(&event), "cudaEventCreate");
  return event;
}

void NcclComm::recycle(const Events& events) noexcept {
  for (void* event : {events.start, events.end}) {
    if (event) spare_events_.push_back(event);
  }
}

NcclComm::Events NcclComm::run(void* after, const std::function<void()>& enqueue) {
  throw_if_failed();
  Events events;
  try {
    events.start = take_event();
    events.end = take_event();
    if (after) {
      check_cuda(cuda().record(events.start, after), "cudaEventRecord");
      check_cuda(cuda().stream_wait(stream_, events.start), "cudaStreamWaitEvent");
    }
    // Anew: what the wait was for has been taken from the former record.
    check_cuda(cuda().record(events.start, stream_), "cudaEventRecord");
    check_enqueued(nccl().group_start(), "ncclGroupStart");
    try {
      enqueue();
    } catch (...) {
      nccl().group_end();  // the group is the thread's: it must not stay open
      throw;
    }
    check_nccl(nccl().group_end(), "ncclGroupEnd");
    check_cuda(cuda().record(events.end, stream_), "cudaEventRecord");
  } catch (...) {
    recycle(events);
    throw;
  }
  return events;
}

void NcclComm::throw_if_aborted() const {
  if (aborted_) throw BackendError("aborted: " + *aborted_);
}

void NcclComm::throw_if_failed() {
  throw_if_aborted();
  int state = kNcclSuccess;
  int code = nccl().comm_get_async_error(comm_, &state);
  if (code == kNcclSuccess) code = state;
  if (code != kNcclSuccess && code != kNcclInProgress) {
    throw BackendError("NCCL failed: " + nccl().error_text(code, comm_));
  }
  try {
    host_->check();
  } catch (const CommError& error) {
    throw BackendError(error.what(), error.where().peer);
  }
}

// NCCL connects a pair when it first exchanges data, which would be in the middle of a step, in
// whatever order ranks come there. So everybody exchanges a byte with everybody now.
void NcclComm::connect_all_pairs() {
  void* memory = nullptr;
  check_cuda(cuda().allocate(&memory, 2 * host_->size()), "cudaMalloc");
  const std::unique_ptr<void, std::function<void(void*)>> owner(
      memory, [this](void* owned) { cuda().release(owned); });
  try {
    exchange_with_all(static_cast<char*>(memory));
  } catch (const std::exception& error) {
    abort(error.what());  // before the release, which waits for the kernels
    throw;
  }
}

void NcclComm::exchange_with_all(char* bytes) {
  const int size = host_->size(), rank = host_->rank();
  const auto enqueue = [&] {
    for (int step = 1; step < size; ++step) {
      const int to = (rank + step) % size, from = (rank + size - step) % size;
      check_enqueued(nccl().send(bytes + to, 1, to, comm_, stream_), "ncclSend", to);
      check_enqueued(nccl().receive(bytes + size + from, 1, from, comm_, stream_), "ncclRecv",
                     from);
    }
  };
  const Events events = run(nullptr, enqueue);
  const std::unique_ptr<const Events, std::function<void(const Events*)>> owner(
      &events, [this](const Events* used) { recycle(*used); });
  const auto deadline = Operation::Clock::now() + options_.timeout;
  int state = cuda().query(events.end);
  while (state == kCudaNotReady && Operation::Clock::now() < deadline) {
    throw_if_failed();
    std::this_thread::yield();
    state = cuda().query(events.end);
  }
  if (state == kCudaNotReady) {
    throw BackendError(
        fmt::format("connecting all pairs: not done after {} ms", options_.timeout.count()));
  }
  check_cuda(state, "cudaEventQuery");
}

}  // namespace sprocket::comm
