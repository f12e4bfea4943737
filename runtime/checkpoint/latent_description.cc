#include "runtime/checkpoint/latent_description.h"

namespace sprocket::runtime {

LatentDescription describe_latents(const data::Index& index) {
  const data::SampleInfo& sample = index.samples.front();
  LatentDescription latent;
  latent.set_channels(static_cast<int32_t>(sample.shape.c));
  latent.set_t(static_cast<int32_t>(sample.shape.t));
  latent.set_h(static_cast<int32_t>(sample.shape.h));
  latent.set_w(static_cast<int32_t>(sample.shape.w));
  latent.set_codec(index.codec.name);
  latent.set_codec_version(index.codec.version);
  latent.set_frames(sample.frames);
  latent.set_fps(sample.fps);
  latent.mutable_mean()->Assign(index.statistics.mean.begin(), index.statistics.mean.end());
  latent.mutable_std()->Assign(index.statistics.std.begin(), index.statistics.std.end());
  latent.set_text(index.text.name);
  latent.set_text_version(index.text.version);
  latent.set_text_tokens(index.text.tokens);
  latent.set_text_dim(index.text.dim);
  return latent;
}

data::LatentShape shape_of(const LatentDescription& latent) {
  return {latent.channels(), latent.t(), latent.h(), latent.w()};
}

data::CodecInfo codec_of(const LatentDescription& latent) {
  return {latent.codec(), latent.codec_version(), latent.channels()};
}

data::TextInfo text_of(const LatentDescription& latent) {
  return {latent.text(), latent.text_version(), latent.text_tokens(), latent.text_dim()};
}

codec::ChannelStatistics statistics_of(const LatentDescription& latent) {
  return {{latent.mean().begin(), latent.mean().end()}, {latent.std().begin(), latent.std().end()}};
}

}  // namespace sprocket::runtime
