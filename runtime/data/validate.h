// `sprocket data validate`: whether a data set is intact.
#pragma once

#include <string>
#include <vector>

namespace sprocket::data {

// All problems, each a sentence naming file and sample; empty when the data set is intact. Checked:
// every shard's size and hash, its format, every sample's tensors (presence, type, shape, finite
// values), tensors that belong to no sample, files in the folder that the index does not know.
// A damaged index is one problem; throws InputError only when the folder cannot be read.
std::vector<std::string> validate_dataset(const std::string& folder);

}  // namespace sprocket::data
