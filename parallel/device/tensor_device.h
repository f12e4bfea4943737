// Where the tensors of this rank live, and the stream that their operations are ordered by.
//
// A CUDA device is taken for as long as the TensorDevice lives, by the thread that makes it, the
// rank's one issuing thread. Meanwhile, on that thread:
//  - the device is the current one, of the CUDA runtime and of LibTorch;
//  - a stream made by base is LibTorch's current stream of the device, so that LibTorch's
//  operations,
//    its allocator and the project's kernels are ordered by the same stream;
//  - a backward runs on the thread that calls it.
// It must outlive every tensor on the device and every communicator of such tensors.
#pragma once

#include <memory>

#include <c10/core/Device.h>

#include "base/moment_source.h"
#include "base/stream.h"

namespace sprocket::parallel {

class TensorDevice {
 public:
  // The processor: nothing is taken.
  TensorDevice() = default;
  // The CUDA device `ordinal`. Loads LibTorch's CUDA half: nothing may have asked LibTorch about
  // CUDA before. Products of fp32 are made in fp32 (no TF32) and bf16 ones sum in fp32 from then
  // on. Throws ConfigError in builds without CUDA, and CudaError when a library or the device is
  // missing.
  static TensorDevice cuda(int ordinal);
  // The same where LibTorch has its operators on CUDA tensors already: nothing is loaded.
  static TensorDevice hold(int ordinal);

  at::Device device() const { return device_; }

  // What is held, and given back when it goes.
  class Hold {
   public:
    virtual ~Hold() = default;
  };

 private:
  at::Device device_ = at::kCPU;
  std::unique_ptr<Hold> hold_;
};

// The stream that orders operations on tensors of `device` on this thread: the host's, or
// LibTorch's current one.
StreamView current_stream(const at::Device& device);

// What a timeline measures such operations by (base/timeline.h): null for the processor. It must
// not outlive that stream. Throws CudaError.
std::unique_ptr<MomentSource> moments_on(const at::Device& device);

}  // namespace sprocket::parallel
