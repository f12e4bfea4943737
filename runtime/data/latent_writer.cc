#include "runtime/data/latent_writer.h"

#include "base/error.h"
#include "runtime/data/shard_files.h"
#include "runtime/media/output_file.h"

namespace sprocket::data {

LatentWriter::LatentWriter(const std::string& folder, CodecInfo codec, TextInfo text,
                           int64_t shard_bytes)
    : folder_(folder), shard_bytes_(shard_bytes), moments_(codec.channels) {
  index_.codec = std::move(codec);
  index_.text = std::move(text);
}

void LatentWriter::add(SampleInfo info, std::vector<float> latent, std::vector<float> text) {
  SPROCKET_CHECK_EQ(static_cast<int64_t>(latent.size()), info.shape.elements());
  SPROCKET_CHECK_EQ(info.shape.c, index_.codec.channels);
  SPROCKET_CHECK_EQ(static_cast<int64_t>(text.size()),
                    index_.text.name == "precomputed" ? index_.text.tokens * index_.text.dim : 0);
  info.id = fmt::format("{:06}", index_.samples.size() + pending_.size());
  info.shard = static_cast<int64_t>(index_.shards.size());
  moments_.add(latent);
  pending_bytes_ += static_cast<int64_t>((latent.size() + text.size()) * sizeof(float));
  pending_.push_back({std::move(info), std::move(latent), std::move(text)});
  if (pending_bytes_ >= shard_bytes_) write_shard();
}

void LatentWriter::write_shard() {
  std::vector<safetensors::TensorToWrite> tensors;
  for (const Pending& sample : pending_) {
    const LatentShape& shape = sample.info.shape;
    tensors.push_back({{latent_name(sample.info),
                        safetensors::ElementType::kF32,
                        {shape.c, shape.t, shape.h, shape.w}},
                       std::as_bytes(std::span(sample.latent))});
    if (!sample.text.empty()) {
      tensors.push_back({{text_name(sample.info),
                          safetensors::ElementType::kF32,
                          {index_.text.tokens, index_.text.dim}},
                         std::as_bytes(std::span(sample.text))});
    }
  }
  const std::string name = fmt::format("latents-{:05}.safetensors", index_.shards.size());
  index_.shards.push_back(write_shard_file(folder_, name, tensors));
  for (Pending& sample : pending_) index_.samples.push_back(std::move(sample.info));
  pending_.clear();
  pending_bytes_ = 0;
}

Index LatentWriter::finish() {
  if (!pending_.empty()) write_shard();
  SPROCKET_CHECK(!index_.samples.empty(), "a data set without samples");
  index_.statistics = moments_.statistics();
  const std::string text = index_text(index_);
  media::write_output_file(folder_.file("index.json"), std::as_bytes(std::span(text)));
  folder_.commit();
  return index_;
}

}  // namespace sprocket::data
