// Frozen weights that are on their device only while they are used.
#pragma once

#include <cstdint>
#include <memory>

#include <ATen/core/Tensor.h>

#include "base/timeline.h"
#include "models/parameter_store.h"

namespace sprocket::runtime {

// Keeps the values of a frozen store in the host's memory (pinned for a device) and gives the
// store's own memory back to its allocator. Nobody else may use the store; its copies are made anew
// by refresh_copies() in every visit.
class OffloadedWeights {
 public:
  OffloadedWeights(std::shared_ptr<const models::ParameterStore> store, Timeline* timeline);

  // While it lives, the store has its values. Copies are enqueued on the current stream; the memory
  // is given back to that stream's work. One at a time.
  class Visit {
   public:
    // `weights` may be null: then nothing happens.
    explicit Visit(OffloadedWeights* weights);
    ~Visit();
    Visit(const Visit&) = delete;
    Visit& operator=(const Visit&) = delete;

   private:
    OffloadedWeights* weights_;
  };

  // What a visit brings.
  int64_t bytes() const;

 private:
  std::shared_ptr<const models::ParameterStore> store_;
  Timeline* timeline_;
  at::Tensor kept_;  // the parameters, in the host's memory
};

}  // namespace sprocket::runtime
