#include "base/cuda_clock.h"

#include <cuda_runtime_api.h>

#include <cmath>
#include <map>
#include <memory>

#include "base/error.h"
#include "base/timeline.h"

namespace sprocket {
namespace {

constexpr int64_t kStartPatienceNs = 10'000'000'000;
constexpr int64_t kRenewalPatienceNs = 100'000;

cudaEvent_t native(void* event) { return static_cast<cudaEvent_t>(event); }

}  // namespace

CudaClock& CudaClock::of_device(int device) {
  // Never destroyed: CUDA may be gone before objects of static storage are.
  static auto* const mutex = new std::mutex;
  static auto* const clocks = new std::map<int, std::unique_ptr<CudaClock>>;
  const std::lock_guard lock(*mutex);
  std::unique_ptr<CudaClock>& clock = (*clocks)[device];
  if (!clock) clock.reset(new CudaClock);
  return *clock;
}

CudaClock::CudaClock() : stream_(StreamPriority::kHigh) {
  if (!measure(anchors_[current_], kStartPatienceNs)) {
    throw CudaError(fmt::format("the device has not reached an event on an idle stream after {} s",
                                kStartPatienceNs / 1'000'000'000));
  }
}

bool CudaClock::measure(Anchor& anchor, int64_t patience_ns) {
  const auto stream = static_cast<cudaStream_t>(stream_.view().cuda_handle());
  const int64_t before = monotonic_ns();
  check_cuda(cudaEventRecord(native(anchor.event.handle()), stream), "cudaEventRecord");
  int64_t now = before;
  bool reached = false;
  while (!reached && now - before < patience_ns) {
    reached = anchor.event.reached();
    now = monotonic_ns();
  }
  if (!reached) return false;
  anchor.host_ns = before + (now - before) / 2;
  anchor.uncertainty_ns = now - before;
  return true;
}

void CudaClock::renew() {
  const std::lock_guard lock(mutex_);
  size_t best = current_;
  for (size_t i = 0; i < anchors_.size(); ++i) {
    if (i == current_ || !measure(anchors_[i], kRenewalPatienceNs)) continue;
    const bool better = anchors_[i].uncertainty_ns < anchors_[best].uncertainty_ns;
    if (best == current_ || better) best = i;
  }
  current_ = best;
}

int64_t CudaClock::uncertainty_ns() {
  const std::lock_guard lock(mutex_);
  return anchors_[current_].uncertainty_ns;
}

int CudaClock::time_of(void* event, int64_t* ns) {
  const std::lock_guard lock(mutex_);
  const Anchor& anchor = anchors_[current_];
  float ms = 0;
  const cudaError_t code = cudaEventElapsedTime(&ms, native(anchor.event.handle()), native(event));
  if (code == cudaSuccess) *ns = anchor.host_ns + std::llround(1e6 * static_cast<double>(ms));
  return code;
}

}  // namespace sprocket
