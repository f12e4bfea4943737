// The 64 bits of an mbarrier in shared memory. Their meaning is the simulator's own, as PTX keeps
// it opaque: a mark that it was initialised, the phase, arrivals that are still missing in this
// phase and in each phase, and bytes that are still to come.
#pragma once

#include <cstddef>
#include <cstdint>

namespace sprocket::cuda_simulator {

class Mbarrier {
 public:
  explicit Mbarrier(std::byte* at) : at_(at) {}

  void initialise(uint32_t count);
  void invalidate();
  // Each throws DeviceError when the barrier was not initialised, or more arrive than were
  // expected.
  void arrive(uint32_t count);
  void drop(uint32_t count);  // arrives, and is not expected in later phases
  void expect_arrivals(uint32_t count);
  void expect_bytes(uint32_t bytes);
  void complete_bytes(uint32_t bytes);
  // The state token.
  uint64_t state() const;
  // Whether the phase of a token, or of a parity, is complete.
  bool passed(uint64_t token) const;
  bool passed_parity(uint32_t parity) const;

 private:
  struct State {
    uint32_t pending, expected, phase;
    int32_t bytes;
  };
  State load() const;
  void store(State state);
  std::byte* at_;
};

}  // namespace sprocket::cuda_simulator
