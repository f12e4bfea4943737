#include "tests/runtime/cuda/staged_backend.h"

#include <cuda_runtime_api.h>

#include <vector>

#include "base/cuda_stream.h"
#include "parallel/comm/nccl_backend.h"

namespace sprocket::testing {
namespace {

using comm::Buffer;
using comm::Call;
using comm::Pending;
using comm::Segment;

// A device buffer's bytes in host memory; what was there before stays where nothing arrives.
class Staged {
 public:
  Staged(const Buffer& device, StreamView stream) : device_(device), memory_(device.bytes()) {
    check_cuda(cudaStreamSynchronize(static_cast<cudaStream_t>(stream.cuda_handle())),
               "cudaStreamSynchronize");
    copy(memory_.data(), device.data, cudaMemcpyDeviceToHost);
  }
  Buffer host() { return {memory_.data(), device_.count, device_.dtype}; }
  void write_back() const { copy(device_.data, memory_.data(), cudaMemcpyHostToDevice); }

 private:
  void copy(void* to, const void* from, cudaMemcpyKind kind) const {
    if (!memory_.empty()) check_cuda(cudaMemcpy(to, from, memory_.size(), kind), "cudaMemcpy");
  }

  const Buffer device_;
  std::vector<std::byte> memory_;
};

class StagedBackend : public comm::Backend {
 public:
  explicit StagedBackend(std::unique_ptr<comm::Communicator> host) : host_(std::move(host)) {}

  int rank() const override { return host_->rank(); }
  int size() const override { return host_->size(); }
  const std::vector<int>& world_ranks() const override { return host_->member_world_ranks(); }
  std::string refusal(comm::OpKind op, DType, StreamView stream) const override {
    const bool touches_memory = op != comm::OpKind::kBarrier && op != comm::OpKind::kSplit;
    return touches_memory && stream.is_host() ? "expected a device stream, found the host's" : "";
  }
  Pending all_reduce(const Call& call, Buffer inout, comm::ReduceOp op) override {
    Staged values(inout, call.stream);
    host_->all_reduce(values.host(), op).wait_host();
    values.write_back();
    return nullptr;
  }
  Pending all_gather(const Call& call, Buffer in, Buffer out,
                     std::span<const int64_t> counts) override {
    Staged sent(in, call.stream), received(out, call.stream);
    host_->all_gather(sent.host(), received.host(), counts).wait_host();
    received.write_back();
    return nullptr;
  }
  Pending reduce_scatter(const Call& call, Buffer in, Buffer out,
                         std::span<const int64_t> counts) override {
    Staged sent(in, call.stream), received(out, call.stream);
    host_->reduce_scatter(sent.host(), received.host(), counts).wait_host();
    received.write_back();
    return nullptr;
  }
  Pending all_to_all(const Call& call, Buffer in, Buffer out) override {
    Staged sent(in, call.stream), received(out, call.stream);
    host_->all_to_all(sent.host(), received.host()).wait_host();
    received.write_back();
    return nullptr;
  }
  Pending broadcast(const Call& call, Buffer inout, int root) override {
    Staged values(inout, call.stream);
    host_->broadcast(values.host(), root).wait_host();
    values.write_back();
    return nullptr;
  }
  Pending exchange(const Call& call, Buffer send, std::span<const Segment> send_segments,
                   Buffer receive, std::span<const Segment> receive_segments) override {
    Staged sent(send, call.stream), received(receive, call.stream);
    host_->exchange(sent.host(), send_segments, received.host(), receive_segments).wait_host();
    received.write_back();
    return nullptr;
  }
  Pending barrier(const Call&) override {
    host_->barrier();
    return nullptr;
  }
  std::unique_ptr<comm::Backend> split(const Call&, int colour, int key, const std::string& name,
                                       const comm::Waiter&) override {
    return make_staged_backend(host_->split(colour, key, name));
  }
  void check() override { host_->check(); }
  void abort(const std::string& reason) noexcept override { host_->abort(reason); }

 private:
  const std::unique_ptr<comm::Communicator> host_;
};

}  // namespace

std::unique_ptr<comm::Backend> make_staged_backend(std::unique_ptr<comm::Communicator> host) {
  return std::make_unique<StagedBackend>(std::move(host));
}

}  // namespace sprocket::testing

namespace sprocket::comm {

std::unique_ptr<Communicator> make_nccl_communicator(std::unique_ptr<Communicator> host,
                                                     const NcclOptions&,
                                                     const CommunicatorOptions& options) {
  const std::string name = host->name();
  return std::make_unique<Communicator>(testing::make_staged_backend(std::move(host)), name,
                                        options);
}

}  // namespace sprocket::comm
