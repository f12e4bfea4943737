// The syntactic half of the parser: declarations and statements.
#pragma once

#include "tests/cuda_simulator/cursor.h"
#include "tests/cuda_simulator/module.h"

namespace sprocket::cuda_simulator {

// A declaration after its state space: `.align 4 .b8 name[24] = {…}`.
Variable parse_variable(Cursor& cursor, Space space);

// From ".entry" or ".func" to the end of the body.
Function parse_function(Cursor& cursor);

// Past a function, and its name.
std::string_view skip_function(Cursor& cursor);

}  // namespace sprocket::cuda_simulator
