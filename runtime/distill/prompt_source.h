// What a distillation learns from: texts, and the shapes of the videos to make of them. No video.
#pragma once

#include <optional>
#include <vector>

#include "configs/job.pb.h"
#include "runtime/checkpoint/state.pb.h"
#include "runtime/data/latent_dataset.h"
#include "runtime/data/prompt_set.h"
#include "runtime/data/sample_order.h"

namespace sprocket::runtime {

struct PromptSample {
  std::vector<float> embedding;  // [tokens, dim]
  data::LatentShape shape;
};

// data.path: a prompt set, or a data set, whose captions serve. Not thread-safe.
class PromptSource {
 public:
  // Throws as check_prompts and check_data.
  explicit PromptSource(const config::Job& job);

  // Number `index` of the job's order of samples, over all steps and ranks.
  PromptSample at(int64_t index);
  // The embedding of guidance's other half; empty: zeros.
  const std::vector<float>& negative() const;
  // Of the videos with most latent cells.
  const data::LatentShape& largest_shape() const;
  // Of the latents that are to be made; without codec where a prompt set does not know it.
  LatentDescription latent() const;

  // One of them is null.
  data::LatentDataset* data() { return data_ ? &*data_ : nullptr; }
  data::PromptSet* prompts() { return prompts_ ? &*prompts_ : nullptr; }

 private:
  std::optional<data::LatentDataset> data_;
  std::optional<data::PromptSet> prompts_;
  std::optional<data::SampleOrder> order_;
};

}  // namespace sprocket::runtime
