#include "tests/parallel/method_expectations.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "tests/comm/thread_ranks.h"

namespace sprocket::parallel::testing {
namespace {

// The references' tensors are small: threads would wait for each other more than they compute.
class SingleThreadedTensors : public ::testing::Environment {
 public:
  void SetUp() override { at::set_num_threads(1); }
};
[[maybe_unused]] const auto* const kEnvironment =
    ::testing::AddGlobalTestEnvironment(new SingleThreadedTensors);

}  // namespace

AttentionResult run_alone(const AttentionCase& c, const AttentionTensors& inputs) {
  AttentionSlot slot;
  return run_alone(c, inputs, slot);
}

AttentionResult run_alone(const AttentionCase& c, const AttentionTensors& inputs,
                          AttentionSlot& slot) {
  AttentionResult result;
  comm::testing::run_ranks(1, [&](comm::Communicator& world) {
    const Mesh mesh(world.split(0, 0, "world"), c.mesh);
    result = run_sharded(c, inputs, mesh, slot);
  });
  return result;
}

Reference expect_exact(const AttentionCase& c) {
  const AttentionTensors inputs = make_inputs(c);
  Reference reference = make_reference(c, inputs);
  try {
    comm::testing::run_ranks(c.mesh.world(), [&](comm::Communicator& world) {
      check_case(c, inputs, reference, world, 1e-10);
    });
  } catch (const std::exception& error) {
    ADD_FAILURE() << error.what();
  }
  return reference;
}

void expect_exact_shapes(AttentionCase c) {
  c.batch = 1;
  const auto on_grid = [](AttentionCase x, const Grid& grid, int heads, int batch = 1) {
    x.layout.grid = grid;
    x.heads = heads;
    x.batch = batch;
    return x;
  };
  expect_exact(on_grid(c, {5, 9, 6}, 2, 2));
  expect_exact(on_grid(c, {1, 7, 9}, 3));  // one frame
  expect_exact(on_grid(c, {9, 5, 1}, 1));
  expect_exact(on_grid(c, {1, 1, 17}, 4));
  expect_exact(on_grid(c, {3, 4, 2}, 5));  // one cube
  expect_exact(on_grid(c, {1, 1, 1}, 6));  // one token
  expect_exact(on_grid(c, {8, 4, 8}, 2));  // whole cubes
  for (int head_dim : {32, 64, 128}) {
    c.head_dim = head_dim;
    expect_exact(on_grid(c, {3, 7, 5}, 2));
  }
  c.head_dim = 32;
  c.inputs.q_factor = 16;
  expect_exact(on_grid(c, {5, 6, 7}, 2));
  c.head_dim = 8;
  c.inputs = {};
  c.inputs.constant = true;
  expect_exact(on_grid(c, {5, 9, 6}, 2, 2));
}

std::vector<AttentionCase> cases_of(MethodKind method) {
  std::vector<AttentionCase> cases;
  for (AttentionCase c : method_cases()) {
    if (c.spec.method != method) continue;
    c.heads = 2;
    cases.push_back(c);
  }
  return cases;
}

}  // namespace sprocket::parallel::testing
