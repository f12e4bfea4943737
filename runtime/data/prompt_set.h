// Reading prompts that were embedded beforehand.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/data/prompt_index.h"
#include "runtime/data/shard_files.h"

namespace sprocket::data {

struct Prompt {
  std::string text;
  std::vector<float> embedding;  // [tokens, dim] of PromptSet::text()
};

// Shards are opened, and their size and hash verified, when first used. Not thread-safe.
class PromptSet {
 public:
  // Reads the index and the negative prompt. Throws InputError for a folder that is no prompt set,
  // for a damaged index and as load() for the negative prompt.
  explicit PromptSet(const std::string& folder);

  const std::string& folder() const { return folder_; }
  const PromptIndex& index() const { return index_; }
  int64_t size() const { return static_cast<int64_t>(index_.prompts.size()); }
  const TextInfo& text() const { return index_.text; }
  const VideoInfo& video() const { return index_.video; }

  // 0 <= i < size(). Throws InputError naming the shard and the prompt's tensor: wrong size or
  // hash, missing tensor, wrong shape or type, a value that is not finite.
  Prompt load(int64_t i);

  // The embedding [tokens, dim] of the negative prompt; empty when there is none, which stands for
  // zeros.
  const std::vector<float>& negative() const { return negative_; }

 private:
  std::string folder_;
  PromptIndex index_;
  ShardFiles shards_;
  std::vector<float> negative_;
};

}  // namespace sprocket::data
