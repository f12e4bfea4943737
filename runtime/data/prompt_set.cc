#include "runtime/data/prompt_set.h"

#include "base/error.h"

namespace sprocket::data {

PromptSet::PromptSet(const std::string& folder)
    : folder_(folder), index_(read_prompt_index(folder)), shards_(folder, index_.shards) {
  if (!index_.negative) return;
  negative_ = shards_.read(0, kNegativeTensor, {index_.text.tokens, index_.text.dim});
}

Prompt PromptSet::load(int64_t i) {
  SPROCKET_CHECK(i >= 0 && i < size(), "prompt {} of {}", i, size());
  const PromptInfo& prompt = index_.prompts[i];
  return {prompt.text, shards_.read(prompt.shard, prompt_tensor_name(prompt),
                                    {index_.text.tokens, index_.text.dim})};
}

}  // namespace sprocket::data
