#include "runtime/media/video_reader.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>

extern "C" {
#include <libavutil/display.h>
}

#include "base/error.h"
#include "runtime/media/frame_scaler.h"
#include "runtime/media/libav.h"

namespace sprocket::media {
namespace {

constexpr const char* kContainers =
    "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,m4v,flv,ogg,gif,yuv4mpegpipe,asf,h264,hevc,"
    "ivf,"
    "nut,mxf,dv";

int quarter_turns_of(const AVStream* stream) {
  const auto* matrix = reinterpret_cast<const int32_t*>(
      av_stream_get_side_data(stream, AV_PKT_DATA_DISPLAYMATRIX, nullptr));
  if (matrix == nullptr) return 0;
  const double degrees = av_display_rotation_get(matrix);  // counter-clockwise
  if (!std::isfinite(degrees)) return 0;
  return (static_cast<int>(std::lround(degrees / 90)) % 4 + 4) % 4;
}

}  // namespace

class VideoReader::Impl {
 public:
  Impl(const std::string& path, const ReadOptions& options) : path_(path), options_(options) {
    SPROCKET_CHECK(options.stride >= 1 && options.start >= 0 && options.fps >= 0,
                   "start {}, stride {}, fps {}", options.start, options.stride, options.fps);
    silence_libav();
    open_container();
    open_decoder();
    const AVStream* stream = this->stream();
    AVRational rate = stream->avg_frame_rate;
    if (rate.num <= 0 || rate.den <= 0) rate = stream->r_frame_rate;
    info_.fps = rate.num > 0 && rate.den > 0 ? av_q2d(rate) : 25.0;
    info_.codec = avcodec_get_name(stream->codecpar->codec_id);
    const int turns = quarter_turns_of(stream);
    info_.width = turns % 2 == 0 ? decoder_->width : decoder_->height;
    info_.height = turns % 2 == 0 ? decoder_->height : decoder_->width;
    if (info_.width <= 0 || info_.height <= 0) {
      throw InputError(
          fmt::format("{}: the video stream has no picture size (is the file truncated?)", path_));
    }
    width_ = options.width > 0 ? options.width : info_.width;
    height_ = options.height > 0 ? options.height : info_.height;
    scaler_ = std::make_unique<FrameScaler>(width_, height_, turns);
  }

  bool next(std::vector<uint8_t>* frame) {
    if (options_.max_frames > 0 && returned_ == options_.max_frames) return false;
    for (;;) {
      if (pending_ == 0) {
        if (!decode()) return false;
        pending_ = repetitions();
      }
      for (; pending_ > 0; --pending_) {
        const int64_t position = selected_++ - options_.start;
        if (position < 0 || position % options_.stride != 0) continue;
        --pending_;
        frame->resize(static_cast<size_t>(width_) * height_ * 3);
        scaler_->convert(*picture_, frame->data());
        ++returned_;
        return true;
      }
    }
  }

  const VideoInfo& info() const { return info_; }
  int width() const { return width_; }
  int height() const { return height_; }
  double fps() const {
    return (options_.fps > 0 ? options_.fps : info_.fps) / static_cast<double>(options_.stride);
  }

 private:
  const AVStream* stream() const { return container_->streams[stream_]; }

  void open_container() {
    std::error_code error;
    if (!std::filesystem::is_regular_file(path_, error)) {
      throw InputError(fmt::format("{}: expected a video file, found {}", path_,
                                   std::filesystem::exists(path_, error) ? "something that is no "
                                                                           "regular file"
                                                                         : "no such file"));
    }
    AVDictionary* options = nullptr;
    av_dict_set(&options, "format_whitelist", kContainers, 0);
    av_dict_set(&options, "protocol_whitelist", "file", 0);
    AVFormatContext* context = nullptr;
    const int opened = avformat_open_input(&context, ("file:" + path_).c_str(), nullptr, &options);
    av_dict_free(&options);
    if (opened < 0) {
      throw InputError(fmt::format("{}: is not a video file of a known kind, or is truncated ({})",
                                   path_, libav_error(opened)));
    }
    container_.reset(context);
    const int probed = avformat_find_stream_info(context, nullptr);
    if (probed < 0) {
      throw InputError(
          fmt::format("{}: its streams cannot be read ({})", path_, libav_error(probed)));
    }
  }

  void open_decoder() {
    const int found = av_find_best_stream(container_.get(), AVMEDIA_TYPE_VIDEO, -1, -1, nullptr, 0);
    if (found < 0 || (container_->streams[found]->disposition & AV_DISPOSITION_ATTACHED_PIC) != 0) {
      throw InputError(fmt::format(
          "{}: expected a video stream, found {} other streams and none (is the file truncated?)",
          path_, container_->nb_streams));
    }
    stream_ = found;
    for (unsigned i = 0; i < container_->nb_streams; ++i) {
      if (static_cast<int>(i) != stream_) container_->streams[i]->discard = AVDISCARD_ALL;
    }
    const AVCodecParameters* parameters = stream()->codecpar;
    const AVCodec* codec = avcodec_find_decoder(parameters->codec_id);
    if (codec == nullptr) {
      throw InputError(
          parameters->codec_id == AV_CODEC_ID_NONE
              ? fmt::format("{}: its video stream names no codec (is the file truncated?)", path_)
              : fmt::format("{}: the installed libavcodec cannot decode its codec {}", path_,
                            avcodec_get_name(parameters->codec_id)));
    }
    decoder_.reset(avcodec_alloc_context3(codec));
    int code = avcodec_parameters_to_context(decoder_.get(), parameters);
    decoder_->thread_count = 1;
    decoder_->err_recognition = AV_EF_EXPLODE | AV_EF_CRCCHECK | AV_EF_BITSTREAM;
    if (code >= 0) code = avcodec_open2(decoder_.get(), codec, nullptr);
    if (code < 0) {
      throw InputError(fmt::format("{}: the decoder for {} cannot be started ({})", path_,
                                   codec->name, libav_error(code)));
    }
    picture_.reset(av_frame_alloc());
    packet_.reset(av_packet_alloc());
  }

  [[noreturn]] void damaged(const std::string& reason) const {
    throw InputError(
        fmt::format("{}: is damaged or truncated at frame {}: {}", path_, decoded_, reason));
  }

  // Puts the next picture into picture_; false at the end of a complete file.
  bool decode() {
    for (;;) {
      const int received = avcodec_receive_frame(decoder_.get(), picture_.get());
      if (received >= 0) {
        if (picture_->decode_error_flags != 0 || (picture_->flags & AV_FRAME_FLAG_CORRUPT) != 0) {
          damaged("the decoder reports missing parts of the picture");
        }
        ++decoded_;
        return true;
      }
      if (received == AVERROR_EOF) {
        check_complete();
        return false;
      }
      if (received != AVERROR(EAGAIN)) damaged(libav_error(received));
      feed();
    }
  }

  void feed() {
    for (;;) {
      const int read = av_read_frame(container_.get(), packet_.get());
      if (read == AVERROR_EOF) {
        const int code = avcodec_send_packet(decoder_.get(), nullptr);
        if (code < 0) damaged(libav_error(code));
        return;
      }
      if (read < 0) damaged(libav_error(read));
      const bool ours = packet_->stream_index == stream_;
      const bool corrupt = ours && (packet_->flags & AV_PKT_FLAG_CORRUPT) != 0;
      int code = 0;
      if (ours && !corrupt) {
        ++packets_;
        if (packet_->pts != AV_NOPTS_VALUE) {
          end_ = std::max(end_, packet_->pts + std::max<int64_t>(packet_->duration, 0));
        }
        code = avcodec_send_packet(decoder_.get(), packet_.get());
      }
      av_packet_unref(packet_.get());
      if (corrupt) damaged("a packet of data is incomplete");
      if (code < 0) damaged(libav_error(code));
      if (ours) return;
    }
  }

  // Containers of the mov family list every packet in advance; others at most say how long they
  // are.
  void check_complete() const {
    const std::string_view name = container_->iformat->name;
    const int listed = avformat_index_get_entries_count(stream());
    if (name.find("mp4") != std::string_view::npos) {
      if (packets_ < listed) {
        damaged(fmt::format("the file announces {} packets and holds {}", listed, packets_));
      }
      return;
    }
    const AVStream* stream = this->stream();
    const double announced = announced_seconds();
    const int64_t begin = stream->start_time == AV_NOPTS_VALUE ? 0 : stream->start_time;
    const double read =
        end_ < 0 ? 0 : static_cast<double>(end_ - begin) * av_q2d(stream->time_base);
    const double missing = announced - read;
    if (missing > 0.5 && missing * info_.fps > 2) {
      damaged(fmt::format("the last {:.1f} s that the file announces are missing", missing));
    }
  }

  // Length of the video stream by the container's word; 0 when it says nothing.
  double announced_seconds() const {
    const AVStream* stream = this->stream();
    if (container_->duration_estimation_method == AVFMT_DURATION_FROM_BITRATE) return 0;  // a guess
    if (stream->duration != AV_NOPTS_VALUE) {
      return static_cast<double>(stream->duration) * av_q2d(stream->time_base);
    }
    const AVDictionaryEntry* tag = av_dict_get(stream->metadata, "DURATION", nullptr, 0);
    int hours = 0, minutes = 0;
    double seconds = 0;
    if (tag != nullptr && std::sscanf(tag->value, "%d:%d:%lf", &hours, &minutes, &seconds) == 3) {
      return 3600.0 * hours + 60.0 * minutes + seconds;
    }
    // The whole file's length is the video's when nothing else is in it.
    if (container_->nb_streams == 1 && container_->duration != AV_NOPTS_VALUE) {
      return static_cast<double>(container_->duration) / AV_TIME_BASE;
    }
    return 0;
  }

  // How often the frame just decoded appears at the target rate: once for each moment k / fps that
  // lies less than half a source frame after it (a hair less, so that rounding of exact halves does
  // not decide) and was not yet served.
  int64_t repetitions() {
    if (options_.fps == 0) return 1;
    const double period = 1 / info_.fps;
    double time = static_cast<double>(decoded_ - 1) * period;
    if (picture_->best_effort_timestamp != AV_NOPTS_VALUE) {
      time = static_cast<double>(picture_->best_effort_timestamp) * av_q2d(stream()->time_base);
      if (decoded_ == 1) origin_ = time;
      time -= origin_;
    }
    int64_t count = 0;
    while (static_cast<double>(moments_) / options_.fps < time + period * 0.499999) {
      ++moments_;
      ++count;
    }
    return count;
  }

  const std::string path_;
  const ReadOptions options_;
  VideoInfo info_;
  int width_ = 0;
  int height_ = 0;
  Libav<AVFormatContext> container_;
  Libav<AVCodecContext> decoder_;
  Libav<AVFrame> picture_;
  Libav<AVPacket> packet_;
  std::unique_ptr<FrameScaler> scaler_;
  int stream_ = -1;
  int64_t packets_ = 0;   // read from the container
  int64_t end_ = -1;      // latest end of a packet, in the stream's time base
  int64_t decoded_ = 0;   // pictures out of the decoder
  double origin_ = 0;     // time of the first picture, seconds
  int64_t moments_ = 0;   // k of the next moment k / fps to serve
  int64_t pending_ = 0;   // repetitions of picture_ still to go through the selection
  int64_t selected_ = 0;  // frames that went through the selection
  int64_t returned_ = 0;
};

VideoReader::VideoReader(const std::string& path, const ReadOptions& options)
    : impl_(std::make_unique<Impl>(path, options)) {}
VideoReader::~VideoReader() = default;

const VideoInfo& VideoReader::info() const { return impl_->info(); }
int VideoReader::width() const { return impl_->width(); }
int VideoReader::height() const { return impl_->height(); }
double VideoReader::fps() const { return impl_->fps(); }
bool VideoReader::next(std::vector<uint8_t>* frame) { return impl_->next(frame); }

Video read_video(const std::string& path, const ReadOptions& options) {
  VideoReader reader(path, options);
  Video video{0, reader.width(), reader.height(), reader.fps(), {}};
  std::vector<uint8_t> frame;
  while (reader.next(&frame)) {
    video.rgb.insert(video.rgb.end(), frame.begin(), frame.end());
    ++video.frames;
  }
  if (video.frames == 0) {
    throw InputError(
        fmt::format("{}: expected at least one frame{}, found none", path,
                    options.start > 0 ? fmt::format(" from frame {}", options.start) : ""));
  }
  return video;
}

}  // namespace sprocket::media
