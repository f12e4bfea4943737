#include "base/event_moments.h"

#include <cuda_runtime_api.h>
#include <nvtx3/nvToolsExt.h>

#include <exception>
#include <utility>

#include "base/error.h"

namespace sprocket {
namespace {

int current_device() {
  int device = 0;
  check_cuda(cudaGetDevice(&device), "cudaGetDevice");
  return device;
}

// Null where no profiler was there when the process started: a push and a pop are then a look at a
// null pointer each.
nvtxDomainHandle_t domain() {
  static const nvtxDomainHandle_t domain = nvtxDomainCreateA("sprocket");
  return domain;
}

}  // namespace

EventMoments::EventMoments(StreamView stream)
    : stream_(stream), clock_(CudaClock::of_device(current_device())) {
  clock_.renew();
}

int64_t EventMoments::note() noexcept {
  try {
    while (pending_.size() >= kMostPending && pending_.front().reached()) settle_first();
    if (spare_.empty()) {
      spare_.emplace_back(EventTiming::kOn);
      ++events_;
    }
    check_cuda(cudaEventRecord(static_cast<cudaEvent_t>(spare_.back().handle()),
                               static_cast<cudaStream_t>(stream_.cuda_handle())),
               "cudaEventRecord");
    pending_.push_back(std::move(spare_.back()));
    spare_.pop_back();
  } catch (...) {
    if (!failure_) failure_ = std::current_exception();
    return kNone;
  }
  return first_ + static_cast<int64_t>(times_.size() + pending_.size()) - 1;
}

void EventMoments::settle_first() {
  int64_t ns = 0;
  check_cuda(clock_.time_of(pending_.front().handle(), &ns), "cudaEventElapsedTime");
  times_.push_back(ns);
  spare_.push_back(std::move(pending_.front()));
  pending_.pop_front();
}

void EventMoments::settle() {
  if (failure_) std::rethrow_exception(std::exchange(failure_, nullptr));
  if (!pending_.empty()) {
    check_cuda(cudaEventSynchronize(static_cast<cudaEvent_t>(pending_.back().handle())),
               "cudaEventSynchronize");
  }
  while (!pending_.empty()) settle_first();
  clock_.renew();
}

int64_t EventMoments::time_of(int64_t moment) const {
  const int64_t kept = moment - first_;
  SPROCKET_CHECK(0 <= kept && kept < std::ssize(times_), "moment {}: settled are [{}, {})", moment,
                 first_, first_ + std::ssize(times_));
  return times_[static_cast<size_t>(kept)];
}

void EventMoments::forget_before(int64_t first) noexcept {
  while (first_ < first && !times_.empty()) {
    times_.pop_front();
    ++first_;
  }
}

bool EventMoments::traced() const noexcept { return domain() != nullptr; }

void EventMoments::push_range(const char* name) noexcept {
  nvtxEventAttributes_t attributes{};
  attributes.version = NVTX_VERSION;
  attributes.size = NVTX_EVENT_ATTRIB_STRUCT_SIZE;
  attributes.messageType = NVTX_MESSAGE_TYPE_ASCII;
  attributes.message.ascii = name;
  nvtxDomainRangePushEx(domain(), &attributes);
}

void EventMoments::pop_range() noexcept { nvtxDomainRangePop(domain()); }

}  // namespace sprocket
