// The selection of an earlier output of `sprocket attention`, used again instead of choosing anew.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "models/safetensors/safetensors.h"
#include "runtime/attention/selection_record.h"

namespace sprocket::runtime {

// What the selection of an output was made for, kept in the file's metadata; the most telling
// first.
std::vector<std::pair<std::string, std::string>> selection_metadata(
    const std::string& method, const parallel::TokenLayout& layout);

class SelectionFile {
 public:
  // Throws InputError, saying what differs, unless the file holds the selection of this method for
  // `batch` x `heads` on exactly these blocks.
  static SelectionFile open(const std::string& path, const std::string& method,
                            const parallel::TokenLayout& layout, int64_t batch, int64_t heads);

  // A rank's part. Throws InputError for values that this method's selections do not have.
  parallel::Selection part(const SelectionPart& part, const parallel::TokenLayout& layout,
                           const parallel::AttentionSpec& spec) const;

 private:
  explicit SelectionFile(safetensors::File file) : file_(std::move(file)) {}
  kernels::SegmentTable table(const SelectionPart& part, const parallel::TokenLayout& layout,
                              const parallel::AttentionSpec& spec) const;
  kernels::QueryPruning pruning(const SelectionPart& part, const parallel::TokenLayout& layout,
                                kernels::PruningRecovery recovery) const;

  safetensors::File file_;
};

}  // namespace sprocket::runtime
