#include "parallel/comm/nccl_backend.h"

#include <algorithm>
#include <numeric>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include <fmt/format.h>

#include "base/error.h"
#include "parallel/comm/nccl_comm.h"

namespace sprocket::comm {
namespace {

class NcclOperation : public Operation {
 public:
  NcclOperation(std::shared_ptr<NcclComm> comm, const NcclComm::Events& events)
      : comm_(std::move(comm)), events_(events) {}

  // The end may become ready only after an abort has stopped the kernels; until then they may
  // write.
  ~NcclOperation() override {
    const auto deadline = Clock::now() + std::chrono::seconds(5);
    while (!span_ && comm_->cuda().query(events_.end) == kCudaNotReady && Clock::now() < deadline) {
      std::this_thread::yield();
    }
    comm_->recycle(events_);
  }

  bool poll() override {
    // First: an abort lets the kernels end, and their event is then as good as completed.
    comm_->throw_if_aborted();
    const int code = comm_->cuda().query(events_.end);
    if (code == kCudaSuccess) {
      span_ = OperationSpan{time_of(events_.start), time_of(events_.end)};
      return true;
    }
    if (code != kCudaNotReady) comm_->check_cuda(code, "cudaEventQuery");
    comm_->throw_if_failed();
    return false;
  }
  void pause(Clock::time_point) override { std::this_thread::yield(); }
  Missing missing() const override {
    return {"the device; the rank that is late shows in the recorders of the others", -1};
  }
  bool order(StreamView stream) override {
    comm_->throw_if_aborted();
    comm_->check_cuda(comm_->cuda().stream_wait(stream.cuda_handle(), events_.end),
                      "cudaStreamWaitEvent");
    return true;
  }
  // On the communicator's stream: it starts when its inputs are there and the operations before it
  // are done, so that waiting for late peers is in it.
  std::optional<OperationSpan> span() const override { return span_; }

 private:
  int64_t time_of(void* event) {
    int64_t ns = 0;
    comm_->check_cuda(comm_->cuda().time_of(event, &ns), "cudaEventElapsedTime");
    return ns;
  }

  const std::shared_ptr<NcclComm> comm_;
  const NcclComm::Events events_;
  std::optional<OperationSpan> span_;  // once complete
};

class NcclBackend : public Backend {
 public:
  explicit NcclBackend(std::shared_ptr<NcclComm> comm) : comm_(std::move(comm)) {}

  int rank() const override { return comm_->host().rank(); }
  int size() const override { return comm_->host().size(); }
  const std::vector<int>& world_ranks() const override {
    return comm_->host().member_world_ranks();
  }

  std::string refusal(OpKind op, DType dtype, StreamView stream) const override {
    if (op == OpKind::kBarrier) return "";
    if (stream.is_host()) {
      return "expected device memory and a device stream, found the host; the host communicator "
             "(Mpi) moves host memory";
    }
    const bool reduces = op == OpKind::kAllReduce || op == OpKind::kReduceScatter;
    if (reduces && !nccl_reduces(dtype)) {
      return fmt::format("NCCL cannot reduce {}", name_of(dtype));
    }
    return "";
  }

  Pending all_reduce(const Call& call, Buffer inout, ReduceOp op) override {
    if (inout.count == 0) return nullptr;
    return started(call, [&] {
      check(nccl().all_reduce(inout.data, inout.count, inout.dtype, op, handle(), stream()),
            "ncclAllReduce");
    });
  }

  Pending all_gather(const Call& call, Buffer in, Buffer out,
                     std::span<const int64_t> counts) override {
    if (out.count == 0) return nullptr;
    if (even(counts)) {
      return started(call, [&] {
        check(nccl().all_gather(in.data, out.data, in.bytes(), handle(), stream()),
              "ncclAllGather");
      });
    }
    std::vector<Segment> sends, receives;
    int64_t offset = 0;
    for (int peer = 0; peer < size(); ++peer) {
      sends.push_back({peer, 0, counts[rank()]});
      receives.push_back({peer, offset, counts[peer]});
      offset += counts[peer];
    }
    return exchange(call, in, sends, out, receives);
  }

  Pending reduce_scatter(const Call& call, Buffer in, Buffer out,
                         std::span<const int64_t> counts) override {
    if (in.count == 0) return nullptr;
    return started(call, [&] {
      if (even(counts)) {
        check(nccl().reduce_scatter(in.data, out.data, out.count, in.dtype, handle(), stream()),
              "ncclReduceScatter");
        return;
      }
      int64_t offset = 0;
      for (int root = 0; root < size(); ++root) {
        if (counts[root] > 0) {
          check(nccl().reduce(at(in, offset), root == rank() ? out.data : nullptr, counts[root],
                              in.dtype, root, handle(), stream()),
                "ncclReduce", root);
        }
        offset += counts[root];
      }
    });
  }

  Pending all_to_all(const Call& call, Buffer in, Buffer out) override {
    const int64_t part = in.count / size();
    std::vector<Segment> segments;
    for (int peer = 0; peer < size(); ++peer) segments.push_back({peer, peer * part, part});
    return exchange(call, in, segments, out, segments);
  }

  Pending broadcast(const Call& call, Buffer inout, int root) override {
    if (inout.count == 0) return nullptr;
    return started(call, [&] {
      check(nccl().broadcast(inout.data, inout.bytes(), root, handle(), stream()), "ncclBroadcast",
            root);
    });
  }

  Pending exchange(const Call& call, Buffer send, std::span<const Segment> send_segments,
                   Buffer receive, std::span<const Segment> receive_segments) override {
    const auto empty = [](const Segment& segment) { return segment.count == 0; };
    if (std::all_of(send_segments.begin(), send_segments.end(), empty) &&
        std::all_of(receive_segments.begin(), receive_segments.end(), empty)) {
      return nullptr;
    }
    const void* own = nullptr;
    return started(call, [&] {
      for (const auto& [peer, offset, count] : send_segments) {
        if (count == 0) continue;
        if (peer == rank()) {
          own = at(send, offset);
        } else {
          check(
              nccl().send(at(send, offset), count * size_of(send.dtype), peer, handle(), stream()),
              "ncclSend", peer);
        }
      }
      for (const auto& [peer, offset, count] : receive_segments) {
        if (count == 0) continue;
        char* const to = at(receive, offset);
        const size_t bytes = count * size_of(receive.dtype);
        if (peer != rank()) {
          check(nccl().receive(to, bytes, peer, handle(), stream()), "ncclRecv", peer);
        } else if (to != own) {
          comm_->check_cuda(comm_->cuda().copy(to, own, bytes, stream()), "cudaMemcpyAsync");
        }
      }
    });
  }

  Pending barrier(const Call&) override {
    comm_->throw_if_failed();
    over_host([&] { comm_->host().barrier(); });
    return nullptr;
  }

  std::unique_ptr<Backend> split(const Call&, int colour, int key, const std::string& name,
                                 const Waiter&) override {
    comm_->throw_if_failed();
    std::shared_ptr<NcclComm> part;
    over_host([&] {
      part = std::make_shared<NcclComm>(
          comm_->libraries(), comm_->host().split(colour, key, name + ".host"), comm_->options());
    });
    return std::make_unique<NcclBackend>(std::move(part));
  }

  void check() override { comm_->throw_if_failed(); }
  void abort(const std::string& reason) noexcept override { comm_->abort(reason); }

 private:
  NcclApi& nccl() const { return comm_->nccl(); }
  NcclApi::Comm handle() const { return comm_->handle(); }
  void* stream() const { return comm_->stream(); }
  void check(int code, const char* call, int peer = -1) { comm_->check_enqueued(code, call, peer); }
  static char* at(const Buffer& buffer, int64_t offset) {
    return static_cast<char*>(buffer.data) + offset * static_cast<int64_t>(size_of(buffer.dtype));
  }
  static bool even(std::span<const int64_t> counts) {
    return std::all_of(counts.begin(), counts.end(), [&](int64_t c) { return c == counts[0]; });
  }

  template <class Enqueue>
  Pending started(const Call& call, Enqueue&& enqueue) {
    return std::make_unique<NcclOperation>(comm_, comm_->run(call.stream.cuda_handle(), enqueue));
  }
  template <class Run>
  static void over_host(Run&& run) {
    try {
      run();
    } catch (const CommError& error) {
      throw BackendError(error.what(), error.where().peer);
    }
  }

  const std::shared_ptr<NcclComm> comm_;
};

}  // namespace

std::unique_ptr<Backend> make_nccl_backend(NcclLibraries libraries,
                                           std::unique_ptr<Communicator> host,
                                           const NcclOptions& options) {
  CommError::Where where{host->name(), "start-up of NCCL", 0, host->rank(), host->size(), -1};
  try {
    return std::make_unique<NcclBackend>(
        std::make_shared<NcclComm>(std::move(libraries), std::move(host), options));
  } catch (const BackendError& error) {
    where.peer = error.peer();
    throw CommError(where, error.what());
  }
}

}  // namespace sprocket::comm
