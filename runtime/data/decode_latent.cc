#include "runtime/data/decode_latent.h"

#include "base/error.h"

namespace sprocket::data {

codec::HaarCodec codec_of(const CodecInfo& info) {
  if (info.name != "haar" || info.version != codec::kHaarVersion) {
    throw InputError(fmt::format("codec: expected \"haar\" version {}, found \"{}\" version {}",
                                 codec::kHaarVersion, info.name, info.version));
  }
  if (info.channels < 1 || info.channels > codec::kHaarCoefficients) {
    throw InputError(fmt::format("codec haar: expected 1..{} channels, found {}",
                                 codec::kHaarCoefficients, info.channels));
  }
  return codec::HaarCodec(info.channels);
}

media::Video decode_latent(const CodecInfo& codec, const codec::ChannelStatistics& statistics,
                           std::span<const float> latent, const LatentShape& shape, double fps) {
  const codec::HaarCodec haar = codec_of(codec);
  SPROCKET_CHECK_EQ(static_cast<int64_t>(latent.size()), shape.elements());
  std::vector<float> values(latent.begin(), latent.end());
  codec::denormalise(values, statistics);
  const int64_t frames = codec::video_frames(shape.t);
  const auto pixels = haar.decode(values, shape.t, shape.h, shape.w, frames);
  return media::from_floats(pixels, frames, static_cast<int>(shape.h * codec::kStrideH),
                            static_cast<int>(shape.w * codec::kStrideW), fps);
}

}  // namespace sprocket::data
