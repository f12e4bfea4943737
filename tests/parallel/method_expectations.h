// Cases of attention as expectations of tests whose ranks are threads.
#pragma once

#include "tests/parallel/method_reference.h"

namespace sprocket::parallel::testing {

// run_sharded on a world of one rank; c.mesh must be that.
AttentionResult run_alone(const AttentionCase& c, const AttentionTensors& inputs);
AttentionResult run_alone(const AttentionCase& c, const AttentionTensors& inputs,
                          AttentionSlot& slot);

// fp64: the selection exactly, everything else to 1e-10, on the c.mesh.world() ranks. Returns the
// reference.
Reference expect_exact(const AttentionCase& c);

// expect_exact for the case on grids of many kinds, every number of heads, all head dimensions,
// logits of scale 16 and scores that are all equal.
void expect_exact_shapes(AttentionCase c);

// The cases of a method among method_cases(), with two heads.
std::vector<AttentionCase> cases_of(MethodKind method);

}  // namespace sprocket::parallel::testing
