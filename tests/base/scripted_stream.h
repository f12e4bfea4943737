// A device's stream whose work takes as long as the test says, in nanoseconds of no real clock.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/error.h"
#include "base/moment_source.h"

namespace sprocket::testing {

class ScriptedStream {
 public:
  // What a timeline measures by; the stream outlives it.
  std::unique_ptr<MomentSource> moments() { return std::make_unique<Moments>(*this); }

  void work(int64_t ns) { now_ += ns; }

  std::function<void()> finish = [] {};  // what is done when the host waits for the stream
  bool traced = false;
  bool fails = false;  // to note
  int64_t noted = 0, settled = 0, forgotten_before = 0;
  std::vector<std::string> ranges;  // pushed names; "." for a pop

 private:
  class Moments : public MomentSource {
   public:
    explicit Moments(ScriptedStream& stream) : stream_(stream) {}

    int64_t note() noexcept override {
      if (stream_.fails) return kNone;
      ++stream_.noted;
      times_.push_back(stream_.now_);
      return static_cast<int64_t>(times_.size()) - 1;
    }
    void settle() override {
      stream_.finish();
      ++stream_.settled;
      settled_ = static_cast<int64_t>(times_.size());
      if (stream_.fails) throw CudaError("the stream is broken", 719);
    }
    int64_t time_of(int64_t moment) const override {
      EXPECT_GE(moment, stream_.forgotten_before);
      EXPECT_LT(moment, settled_);
      return times_.at(moment);
    }
    void forget_before(int64_t first) noexcept override {
      stream_.forgotten_before = std::min(first, settled_);
    }
    bool traced() const noexcept override { return stream_.traced; }
    void push_range(const char* name) noexcept override { stream_.ranges.emplace_back(name); }
    void pop_range() noexcept override { stream_.ranges.emplace_back("."); }

   private:
    ScriptedStream& stream_;
    std::vector<int64_t> times_;
    int64_t settled_ = 0;
  };

  int64_t now_ = 1000;
};

}  // namespace sprocket::testing
