#include "runtime/media/memory_muxer.h"

#include <utility>

#include "base/error.h"

namespace sprocket::media {

MemoryMuxer::MemoryMuxer(const std::string& format, std::string subject)
    : subject_(std::move(subject)) {
  try {
    check(avformat_alloc_output_context2(&context_, nullptr, format.c_str(), nullptr),
          format.c_str());
    check(avio_open_dyn_buf(&context_->pb), "memory for the file");
  } catch (...) {
    avformat_free_context(context_);
    throw;
  }
  context_->flags |= AVFMT_FLAG_BITEXACT;
}

MemoryMuxer::~MemoryMuxer() {
  uint8_t* buffer = nullptr;
  avio_close_dyn_buf(context_->pb, &buffer);
  av_free(buffer);
  avformat_free_context(context_);
}

void MemoryMuxer::check(int code, const char* what) const {
  if (code >= 0) return;
  throw OutputError(
      fmt::format("{}: cannot be encoded: {}: {}", subject_, what, libav_error(code)));
}

void MemoryMuxer::start(const AVCodecContext& encoder,
                        const std::map<std::string, std::string>& options) {
  stream_ = avformat_new_stream(context_, nullptr);
  check(stream_ == nullptr ? AVERROR(ENOMEM) : 0, "the stream");
  check(avcodec_parameters_from_context(stream_->codecpar, &encoder), "the stream");
  stream_->time_base = encoder.time_base;
  stream_->avg_frame_rate = encoder.framerate;
  AVDictionary* dictionary = nullptr;
  for (const auto& [key, value] : options) av_dict_set(&dictionary, key.c_str(), value.c_str(), 0);
  const int code = avformat_write_header(context_, &dictionary);
  av_dict_free(&dictionary);
  check(code, "the header");
}

void MemoryMuxer::send(AVCodecContext& encoder, const AVFrame* picture) {
  check(avcodec_send_frame(&encoder, picture), "a picture");
  const Libav<AVPacket> packet(av_packet_alloc());
  for (;;) {
    const int code = avcodec_receive_packet(&encoder, packet.get());
    if (code == AVERROR(EAGAIN) || code == AVERROR_EOF) return;
    check(code, "a picture");
    packet->duration = 1;
    av_packet_rescale_ts(packet.get(), encoder.time_base, stream_->time_base);
    packet->stream_index = stream_->index;
    check(av_interleaved_write_frame(context_, packet.get()), "a packet");
  }
}

std::span<const std::byte> MemoryMuxer::finish() {
  check(av_write_trailer(context_), "the trailer");
  // Closing the buffer here would write its padding where the muxer wrote last, which need not be
  // the end.
  uint8_t* bytes = nullptr;
  const int size = avio_get_dyn_buf(context_->pb, &bytes);
  return {reinterpret_cast<const std::byte*>(bytes), static_cast<size_t>(size)};
}

}  // namespace sprocket::media
