#include "runtime/media/animated_png.h"

#include <algorithm>
#include <cmath>

#include "base/error.h"
#include "runtime/media/memory_muxer.h"
#include "runtime/media/picture.h"

namespace sprocket::media {
namespace {

Libav<AVCodecContext> open_encoder(const MemoryMuxer& muxer, int width, int height, double fps) {
  const AVCodec* codec = avcodec_find_encoder(AV_CODEC_ID_APNG);
  if (codec == nullptr) throw OutputError("the installed libavcodec does not encode animated PNGs");
  Libav<AVCodecContext> encoder(avcodec_alloc_context3(codec));
  encoder->width = width;
  encoder->height = height;
  encoder->pix_fmt = AV_PIX_FMT_RGB24;
  encoder->framerate = av_d2q(fps, 65535);
  encoder->time_base = av_inv_q(encoder->framerate);
  encoder->thread_count = 1;
  encoder->flags |= AV_CODEC_FLAG_BITEXACT;
  AVDictionary* options = nullptr;
  av_dict_set(&options, "pred", "paeth", 0);
  const int code = avcodec_open2(encoder.get(), codec, &options);
  av_dict_free(&options);
  muxer.check(code, codec->name);
  return encoder;
}

}  // namespace

AnimatedPng encode_animated_png(const Video& video, const AnimationLimits& limits) {
  SPROCKET_CHECK(video.frames > 0 && video.fps > 0 && limits.longest_side > 0 && limits.frames > 0,
                 "{} frames at {} fps, at most {} of {} pixels", video.frames, video.fps,
                 limits.frames, limits.longest_side);
  silence_libav();
  const int64_t stride = (video.frames + limits.frames - 1) / limits.frames;
  const double scale =
      std::min(1.0, static_cast<double>(limits.longest_side) / std::max(video.width, video.height));
  const auto scaled = [scale](int side) {
    return std::max(1, static_cast<int>(std::lround(scale * side)));
  };
  AnimatedPng png{scaled(video.width), scaled(video.height), {}};
  MemoryMuxer muxer("apng", "an animated PNG");
  const Libav<AVCodecContext> encoder =
      open_encoder(muxer, png.width, png.height, video.fps / static_cast<double>(stride));
  muxer.start(*encoder, {{"plays", "0"}});
  const Libav<SwsContext> scaler(sws_getContext(
      video.width, video.height, AV_PIX_FMT_RGB24, png.width, png.height, AV_PIX_FMT_RGB24,
      SWS_AREA | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INP | SWS_FULL_CHR_H_INT | SWS_BITEXACT, nullptr,
      nullptr, nullptr));
  const bool same_size = png.width == video.width && png.height == video.height;
  for (int64_t shown = 0; shown * stride < video.frames; ++shown) {
    // The encoder keeps pictures to find what changes between them: each is its own.
    Libav<AVFrame> picture = allocate_picture(muxer, AV_PIX_FMT_RGB24, video.width, video.height);
    copy_frame(video, shown * stride, *picture);
    if (!same_size) {
      Libav<AVFrame> small = allocate_picture(muxer, AV_PIX_FMT_RGB24, png.width, png.height);
      sws_scale(scaler.get(), picture->data, picture->linesize, 0, video.height, small->data,
                small->linesize);
      picture = std::move(small);
    }
    picture->pts = shown;
    muxer.send(*encoder, picture.get());
  }
  muxer.send(*encoder, nullptr);
  const auto bytes = muxer.finish();
  png.file.assign(bytes.begin(), bytes.end());
  return png;
}

}  // namespace sprocket::media
