// Owning handles for libav's C objects; private to this folder.
#pragma once

extern "C" {
#include <libavcodec/avcodec.h>
#include <libavformat/avformat.h>
#include <libswscale/swscale.h>
}

#include <memory>
#include <string>

namespace sprocket::media {

struct LibavDelete {
  void operator()(AVFormatContext* context) const;  // an input's
  void operator()(AVCodecContext* context) const { avcodec_free_context(&context); }
  void operator()(AVFrame* frame) const { av_frame_free(&frame); }
  void operator()(AVPacket* packet) const { av_packet_free(&packet); }
  void operator()(SwsContext* context) const { sws_freeContext(context); }
};
template <class T>
using Libav = std::unique_ptr<T, LibavDelete>;

// libav's text for an error code.
std::string libav_error(int code);
// The library's own log goes to stderr by default and says little that the typed errors do not.
void silence_libav();

}  // namespace sprocket::media
