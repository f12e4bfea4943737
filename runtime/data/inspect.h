// `sprocket data inspect`: what a data set holds.
#pragma once

#include <cstdint>
#include <string>

namespace sprocket::data {

// Readable text: codec, text, buckets, statistics of the stored latents per channel, shards with
// their hashes, samples (the first `max_samples`). Reads every shard; a shard that does not match
// the index is said to be damaged in the text. Throws InputError when the index cannot be read.
std::string inspect_dataset(const std::string& folder, int64_t max_samples = 20);

}  // namespace sprocket::data
