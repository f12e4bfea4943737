#include "runtime/checkpoint/latent_description.h"

namespace sprocket::runtime {

namespace {

LatentDescription describe(const data::LatentShape& shape, int64_t frames, double fps,
                           const data::TextInfo& text) {
  LatentDescription latent;
  latent.set_channels(static_cast<int32_t>(shape.c));
  latent.set_t(static_cast<int32_t>(shape.t));
  latent.set_h(static_cast<int32_t>(shape.h));
  latent.set_w(static_cast<int32_t>(shape.w));
  latent.set_frames(frames);
  latent.set_fps(fps);
  latent.set_text(text.name);
  latent.set_text_version(text.version);
  latent.set_text_tokens(text.tokens);
  latent.set_text_dim(text.dim);
  return latent;
}

void set_coding(LatentDescription& latent, const data::CodecInfo& codec,
                const codec::ChannelStatistics& statistics) {
  latent.set_codec(codec.name);
  latent.set_codec_version(codec.version);
  latent.mutable_mean()->Assign(statistics.mean.begin(), statistics.mean.end());
  latent.mutable_std()->Assign(statistics.std.begin(), statistics.std.end());
}

}  // namespace

LatentDescription describe_latents(const data::Index& index) {
  const data::SampleInfo& sample = index.samples.front();
  LatentDescription latent = describe(sample.shape, sample.frames, sample.fps, index.text);
  set_coding(latent, index.codec, index.statistics);
  return latent;
}

LatentDescription describe_latents(const data::PromptIndex& index) {
  const data::VideoInfo& video = index.video;
  LatentDescription latent = describe(video.shape, video.frames, video.fps, index.text);
  if (video.coding) set_coding(latent, video.coding->codec, video.coding->statistics);
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
