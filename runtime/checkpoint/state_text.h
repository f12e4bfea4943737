// state.txtpb of a checkpoint: its text.
#pragma once

#include <string>

#include "runtime/checkpoint/state.pb.h"

namespace sprocket::runtime {

inline constexpr int kCheckpointSchema = 1;

// Throws InputError naming `where`, with the place of what is no state; for another schema both
// versions.
CheckpointState parse_state(const std::string& text, const std::string& where);

}  // namespace sprocket::runtime
