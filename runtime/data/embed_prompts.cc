#include "runtime/data/embed_prompts.h"

#include <span>
#include <vector>

#include "base/error.h"
#include "runtime/data/embedding_file.h"
#include "runtime/data/latent_dataset.h"
#include "runtime/data/output_folder.h"
#include "runtime/data/shard_files.h"
#include "runtime/media/output_file.h"

namespace sprocket::data {
namespace {

class Embedder {
 public:
  Embedder(const EmbedOptions& options, const EmbedPlan& plan)
      : folder_(options.output), shard_bytes_(options.shard_bytes) {
    index_.text = plan.text;
    index_.video = plan.video;
  }

  PromptIndex run(const PromptList& list) {
    if (list.negative) {
      index_.negative = list.negative->text;
      add(kNegativeTensor, *list.negative);
    }
    for (const PromptItem& item : list.prompts) {
      PromptInfo info{fmt::format("{:06}", index_.prompts.size()),
                      static_cast<int64_t>(index_.shards.size()), item.text};
      add(prompt_tensor_name(info), item);
      index_.prompts.push_back(std::move(info));
      if (pending_bytes_ >= shard_bytes_) write_shard();
    }
    if (!pending_.empty()) write_shard();
    const std::string text = prompt_index_text(index_);
    media::write_output_file(folder_.file(kPromptIndexFile), std::as_bytes(std::span(text)));
    folder_.commit();
    return index_;
  }

 private:
  struct Pending {
    std::string name;
    std::vector<float> embedding;
  };

  void add(std::string name, const PromptItem& item) {
    pending_.push_back({std::move(name), item.embedding.empty()
                                             ? embed_text(index_.text, item.text)
                                             : read_embedding(item.embedding, &index_.text)});
    pending_bytes_ += std::ssize(pending_.back().embedding) * static_cast<int64_t>(sizeof(float));
  }

  void write_shard() {
    std::vector<safetensors::TensorToWrite> tensors;
    for (const Pending& prompt : pending_) {
      tensors.push_back(
          {{prompt.name, safetensors::ElementType::kF32, {index_.text.tokens, index_.text.dim}},
           std::as_bytes(std::span(prompt.embedding))});
    }
    const std::string name = fmt::format("prompts-{:05}.safetensors", index_.shards.size());
    index_.shards.push_back(write_shard_file(folder_, name, tensors));
    pending_.clear();
    pending_bytes_ = 0;
  }

  OutputFolder folder_;
  const int64_t shard_bytes_;
  PromptIndex index_;
  std::vector<Pending> pending_;
  int64_t pending_bytes_ = 0;
};

}  // namespace

PromptIndex embed_prompts(const EmbedOptions& options) {
  const EmbedPlan plan = plan_embedding(options);
  return Embedder(options, plan).run(plan.list);
}

}  // namespace sprocket::data
