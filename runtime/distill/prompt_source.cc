#include "runtime/distill/prompt_source.h"

#include <numeric>

#include "runtime/checkpoint/latent_description.h"
#include "runtime/train/data_check.h"

namespace sprocket::runtime {

PromptSource::PromptSource(const config::Job& job) {
  const std::string& path = job.data().path();
  std::vector<std::vector<int64_t>> buckets;
  if (data::is_prompt_set(path)) {
    prompts_.emplace(path);
    check_prompts(job, *prompts_);
    std::vector<int64_t> all(prompts_->size());
    std::iota(all.begin(), all.end(), 0);
    buckets.push_back(std::move(all));
  } else {
    data_.emplace(path);
    check_data(job, *data_);
    buckets = data_->bucket_samples();
  }
  order_.emplace(std::move(buckets), job.training().global_batch(), job.data().seed());
}

PromptSample PromptSource::at(int64_t index) {
  const int64_t number = order_->at(index);
  if (prompts_) return {prompts_->load(number).embedding, prompts_->video().shape};
  data::Sample sample = data_->load_or_substitute(number);
  return {std::move(sample.text), data_->index().samples[sample.index].shape};
}

const std::vector<float>& PromptSource::negative() const {
  static const std::vector<float> kZeros;
  return prompts_ ? prompts_->negative() : kZeros;
}

const data::LatentShape& PromptSource::largest_shape() const {
  return prompts_ ? prompts_->video().shape : data_->largest_shape();
}

LatentDescription PromptSource::latent() const {
  return prompts_ ? describe_latents(prompts_->index()) : describe_latents(data_->index());
}

}  // namespace sprocket::runtime
