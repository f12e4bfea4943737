// The bodies of parity_test.cc over Open MPI.
#include <gtest/gtest.h>

#include "parallel/comm/mpi_backend.h"
#include "tests/parallel/attention_case.h"

namespace sprocket::parallel::testing {
namespace {

TEST(MpiParity, EveryStrategyEqualsTheWholeComputation) {
  const auto world = comm::make_mpi_world({});
  for (const auto& c : parity_cases(world->size())) {
    const AttentionTensors inputs = make_inputs(c);
    check_case(c, inputs, reference(c, inputs), *world, 1e-10);
  }
}

}  // namespace
}  // namespace sprocket::parallel::testing
