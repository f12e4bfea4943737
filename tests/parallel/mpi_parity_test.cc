// The bodies of parity_test.cc over Open MPI.
#include <gtest/gtest.h>

#include "parallel/comm/mpi_backend.h"
#include "tests/parallel/method_reference.h"

namespace sprocket::parallel::testing {
namespace {

TEST(MpiParity, EveryStrategyEqualsTheWholeComputation) {
  const auto world = comm::make_mpi_world({});
  References references;
  for (const auto& c : parity_cases(world->size())) {
    const AttentionTensors inputs = make_inputs(c);
    check_case(c, inputs, references.of(c, inputs), *world, 1e-10);
  }
}

}  // namespace
}  // namespace sprocket::parallel::testing
