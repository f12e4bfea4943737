// What an attention job needs of a model.
#pragma once

#include "configs/job.pb.h"

namespace sprocket::config {

// Whether every block has a gate of the coarse branch, and of the fine one.
bool has_coarse_gate(const Attention& attention);
bool has_fine_gate(const Attention& attention);

// Tokens of the text that stand in one sequence with the video's, before them.
int32_t text_prefix(const Model& model);

}  // namespace sprocket::config
