#include "runtime/media/video_writer.h"

#include "base/error.h"
#include "runtime/media/memory_muxer.h"
#include "runtime/media/output_file.h"
#include "runtime/media/picture.h"

namespace sprocket::media {
namespace {

class Mp4Encoder {
 public:
  Mp4Encoder(const std::string& path, const Video& video)
      : path_(path), video_(video), muxer_("mp4", path) {}

  // The finished file; valid as long as this object.
  std::span<const std::byte> encode() {
    open_encoder();
    muxer_.start(*encoder_);
    Libav<SwsContext> converter(sws_getContext(
        video_.width, video_.height, AV_PIX_FMT_RGB24, video_.width, video_.height,
        AV_PIX_FMT_YUV420P, SWS_AREA | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INP | SWS_BITEXACT,
        nullptr, nullptr, nullptr));
    constexpr int kUnity = 1 << 16;
    sws_setColorspaceDetails(converter.get(), sws_getCoefficients(SWS_CS_DEFAULT), 1,
                             sws_getCoefficients(SWS_CS_ITU709), 0, 0, kUnity, kUnity);
    const Libav<AVFrame> rgb =
        allocate_picture(muxer_, AV_PIX_FMT_RGB24, video_.width, video_.height);
    const Libav<AVFrame> picture =
        allocate_picture(muxer_, AV_PIX_FMT_YUV420P, video_.width, video_.height);
    picture->colorspace = encoder_->colorspace;
    picture->color_range = encoder_->color_range;
    for (int64_t i = 0; i < video_.frames; ++i) {
      copy_frame(video_, i, *rgb);
      muxer_.check(av_frame_make_writable(picture.get()), "memory for a picture");
      sws_scale(converter.get(), rgb->data, rgb->linesize, 0, video_.height, picture->data,
                picture->linesize);
      picture->pts = i;
      muxer_.send(*encoder_, picture.get());
    }
    muxer_.send(*encoder_, nullptr);
    return muxer_.finish();
  }

 private:
  void open_encoder() {
    const AVCodec* codec = avcodec_find_encoder_by_name("libx264");
    const bool h264 = codec != nullptr;
    if (!h264) codec = avcodec_find_encoder(AV_CODEC_ID_MPEG4);
    if (codec == nullptr) {
      throw OutputError(fmt::format(
          "{}: the installed libavcodec encodes neither H.264 (libx264) nor MPEG-4", path_));
    }
    encoder_.reset(avcodec_alloc_context3(codec));
    encoder_->width = video_.width;
    encoder_->height = video_.height;
    encoder_->pix_fmt = AV_PIX_FMT_YUV420P;
    encoder_->framerate = av_d2q(video_.fps, 65535);
    encoder_->time_base = av_inv_q(encoder_->framerate);
    encoder_->color_range = AVCOL_RANGE_MPEG;
    encoder_->colorspace = AVCOL_SPC_BT709;
    encoder_->color_primaries = AVCOL_PRI_BT709;
    encoder_->color_trc = AVCOL_TRC_BT709;
    encoder_->thread_count = 1;
    encoder_->flags |= AV_CODEC_FLAG_BITEXACT | AV_CODEC_FLAG_GLOBAL_HEADER;
    AVDictionary* options = nullptr;
    if (h264) {
      av_dict_set(&options, "crf", "12", 0);
      // x264's macroblock tree reads memory that it never wrote (seen with its AVX-512 code), so
      // that equal videos would now and then give different files.
      av_dict_set(&options, "x264-params", "mbtree=0", 0);
      av_dict_set(&options, "preset", "medium", 0);
    } else {
      encoder_->flags |= AV_CODEC_FLAG_QSCALE;
      encoder_->global_quality = 2 * FF_QP2LAMBDA;
    }
    const int code = avcodec_open2(encoder_.get(), codec, &options);
    av_dict_free(&options);
    muxer_.check(code, codec->name);
  }

  const std::string& path_;
  const Video& video_;
  MemoryMuxer muxer_;
  Libav<AVCodecContext> encoder_;
};

}  // namespace

void write_mp4(const std::string& path, const Video& video) {
  SPROCKET_CHECK(video.frames > 0 && video.width % 2 == 0 && video.height % 2 == 0 && video.fps > 0,
                 "{} frames of {}x{} at {} fps", video.frames, video.width, video.height,
                 video.fps);
  silence_libav();
  Mp4Encoder encoder(path, video);
  write_output_file(path, encoder.encode());
}

}  // namespace sprocket::media
