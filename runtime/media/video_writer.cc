#include "runtime/media/video_writer.h"

#include <cstring>

#include "base/error.h"
#include "runtime/media/libav.h"
#include "runtime/media/output_file.h"

namespace sprocket::media {
namespace {

// Encodes and muxes into memory: a sample is small, and the file then appears at once.
class Mp4Encoder {
 public:
  Mp4Encoder(const std::string& path, const Video& video) : path_(path), video_(video) {}
  ~Mp4Encoder() {
    if (muxer_ != nullptr) release_buffer();
    av_freep(&buffer_);
    avformat_free_context(muxer_);
  }
  Mp4Encoder(const Mp4Encoder&) = delete;
  Mp4Encoder& operator=(const Mp4Encoder&) = delete;

  // The finished file; valid as long as this object.
  std::span<const std::byte> encode() {
    open_muxer();
    Libav<SwsContext> converter(sws_getContext(
        video_.width, video_.height, AV_PIX_FMT_RGB24, video_.width, video_.height,
        AV_PIX_FMT_YUV420P, SWS_AREA | SWS_ACCURATE_RND | SWS_FULL_CHR_H_INP | SWS_BITEXACT,
        nullptr, nullptr, nullptr));
    constexpr int kUnity = 1 << 16;
    sws_setColorspaceDetails(converter.get(), sws_getCoefficients(SWS_CS_DEFAULT), 1,
                             sws_getCoefficients(SWS_CS_ITU709), 0, 0, kUnity, kUnity);
    const Libav<AVFrame> rgb = allocate_picture(AV_PIX_FMT_RGB24);
    const Libav<AVFrame> picture = allocate_picture(AV_PIX_FMT_YUV420P);
    picture->colorspace = encoder_->colorspace;
    picture->color_range = encoder_->color_range;
    const size_t row = static_cast<size_t>(video_.width) * 3;
    for (int64_t i = 0; i < video_.frames; ++i) {
      // The scaler reads past the end of rows: it gets a padded copy.
      for (int y = 0; y < video_.height; ++y) {
        std::memcpy(rgb->data[0] + y * rgb->linesize[0], video_.frame(i).data() + y * row, row);
      }
      check(av_frame_make_writable(picture.get()), "memory for a picture");
      sws_scale(converter.get(), rgb->data, rgb->linesize, 0, video_.height, picture->data,
                picture->linesize);
      picture->pts = i;
      send(picture.get());
    }
    send(nullptr);
    check(av_write_trailer(muxer_), "the trailer");
    const int size = release_buffer();
    return {reinterpret_cast<const std::byte*>(buffer_), static_cast<size_t>(size)};
  }

 private:
  void check(int code, const char* what) const {
    if (code >= 0) return;
    throw OutputError(fmt::format("{}: cannot be encoded: {}: {}", path_, what, libav_error(code)));
  }

  void open_muxer() {
    check(avformat_alloc_output_context2(&muxer_, nullptr, "mp4", nullptr), "the mp4 muxer");
    check(avio_open_dyn_buf(&muxer_->pb), "memory for the file");
    muxer_->flags |= AVFMT_FLAG_BITEXACT;
    open_encoder();
    stream_ = avformat_new_stream(muxer_, nullptr);
    check(avcodec_parameters_from_context(stream_->codecpar, encoder_.get()), "the stream");
    stream_->time_base = encoder_->time_base;
    stream_->avg_frame_rate = encoder_->framerate;
    check(avformat_write_header(muxer_, nullptr), "the header");
  }

  // Of the video's size.
  Libav<AVFrame> allocate_picture(AVPixelFormat format) const {
    Libav<AVFrame> picture(av_frame_alloc());
    picture->format = format;
    picture->width = video_.width;
    picture->height = video_.height;
    check(av_frame_get_buffer(picture.get(), 0), "memory for a picture");
    return picture;
  }

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
    check(code, codec->name);
  }

  void send(const AVFrame* picture) {
    check(avcodec_send_frame(encoder_.get(), picture), "a picture");
    Libav<AVPacket> packet(av_packet_alloc());
    for (;;) {
      const int code = avcodec_receive_packet(encoder_.get(), packet.get());
      if (code == AVERROR(EAGAIN) || code == AVERROR_EOF) return;
      check(code, "a picture");
      packet->duration = 1;
      av_packet_rescale_ts(packet.get(), encoder_->time_base, stream_->time_base);
      packet->stream_index = stream_->index;
      check(av_interleaved_write_frame(muxer_, packet.get()), "a packet");
    }
  }

  // Moves the bytes out of the muxer's growing buffer into buffer_.
  int release_buffer() {
    if (muxer_->pb == nullptr) return 0;
    const int size = avio_close_dyn_buf(muxer_->pb, &buffer_);
    muxer_->pb = nullptr;
    return size;
  }

  const std::string& path_;
  const Video& video_;
  AVFormatContext* muxer_ = nullptr;
  Libav<AVCodecContext> encoder_;
  AVStream* stream_ = nullptr;
  uint8_t* buffer_ = nullptr;
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
