// Text embeddings made by other programs.
#pragma once

#include <string>
#include <vector>

#include "runtime/data/index.h"

namespace sprocket::data {

// The tensor "embedding" [tokens, dim] of a safetensors file. `text` takes its extents from the
// first file (where its tokens are 0); all others must agree. Throws InputError, also for values
// that are not finite.
std::vector<float> read_embedding(const std::string& path, TextInfo* text);

}  // namespace sprocket::data
