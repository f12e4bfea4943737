// One NCCL communicator with its stream, its events and its end.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "parallel/comm/nccl_backend.h"

namespace sprocket::comm {

class NcclComm {
 public:
  // Collective over `host`.
  NcclComm(NcclLibraries libraries, std::unique_ptr<Communicator> host, const NcclOptions& options);
  // Finalises and destroys when healthy; aborts when unwinding or when that takes too long.
  ~NcclComm();
  NcclComm(const NcclComm&) = delete;
  NcclComm& operator=(const NcclComm&) = delete;

  NcclApi& nccl() const { return *libraries_.nccl; }
  CudaApi& cuda() const { return *libraries_.cuda; }
  const NcclLibraries& libraries() const { return libraries_; }
  const NcclOptions& options() const { return options_; }
  Communicator& host() const { return *host_; }
  NcclApi::Comm handle() const { return comm_; }
  void* stream() const { return stream_; }

  // Throws BackendError unless `code` is success.
  void check_cuda(int code, const char* call) const;
  // The same for NCCL; waits while the call is in progress.
  void check_nccl(int code, const char* call, int peer = -1);
  // Inside a group nothing settles before its end: there "in progress" is success.
  void check_enqueued(int code, const char* call, int peer = -1) const;

  // The events of an operation's start and end on the communicator's stream.
  struct Events {
    void* start = nullptr;
    void* end = nullptr;
  };
  // Runs `enqueue` in one NCCL group on the communicator's stream, after what is on `after` now.
  Events run(void* after, const std::function<void()>& enqueue);

  void throw_if_aborted() const;
  // Throws when this rank or another one has aborted, or NCCL failed meanwhile.
  void throw_if_failed();
  void abort(const std::string& reason) noexcept;

  void recycle(const Events& events) noexcept;

 private:
  void connect_all_pairs();
  // `bytes` are two for each rank, on the device.
  void exchange_with_all(char* bytes);
  void* take_event();
  // Polls until the communicator is no longer busy; its state then. Throws at the deadline.
  int settle(const char* call);
  void close(bool healthy) noexcept;

  const NcclLibraries libraries_;
  const std::unique_ptr<Communicator> host_;
  const NcclOptions options_;
  const int uncaught_at_birth_;
  NcclApi::Comm comm_ = nullptr;
  void* stream_ = nullptr;
  std::vector<void*> spare_events_;
  std::optional<std::string> aborted_;
};

}  // namespace sprocket::comm
