// What an attention job needs of a model.
#pragma once

#include "configs/job.pb.h"

namespace sprocket::config {

// Whether every block has a gate of the coarse branch, and of the fine one.
bool has_coarse_gate(const Attention& attention);
bool has_fine_gate(const Attention& attention);

}  // namespace sprocket::config
