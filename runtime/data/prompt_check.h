// `sprocket data inspect` and `sprocket data validate` of a prompt set.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace sprocket::data {

// What is in a prompt set: embedder, videos, negative prompt, shards (damaged ones marked), and the
// first `max_prompts` prompts. Reads everything. Throws InputError for a damaged index.
std::string inspect_prompts(const std::string& folder, int64_t max_prompts = 20);

// All problems, each a sentence naming the file; empty when the prompt set is intact. Checked:
// every shard's size and hash, its format, every prompt's tensor (presence, type, shape, finite
// values), tensors that belong to no prompt, files in the folder that the index does not know. A
// damaged index is one problem; throws InputError only when the folder cannot be read.
std::vector<std::string> validate_prompts(const std::string& folder);

}  // namespace sprocket::data
