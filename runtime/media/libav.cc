#include "runtime/media/libav.h"

extern "C" {
#include <libavutil/log.h>
}

namespace sprocket::media {

void LibavDelete::operator()(AVFormatContext* context) const { avformat_close_input(&context); }

std::string libav_error(int code) {
  char text[AV_ERROR_MAX_STRING_SIZE] = {};
  av_strerror(code, text, sizeof(text));
  return text;
}

void silence_libav() { av_log_set_level(AV_LOG_QUIET); }

}  // namespace sprocket::media
