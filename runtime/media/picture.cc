#include "runtime/media/picture.h"

#include <cstring>

namespace sprocket::media {

Libav<AVFrame> allocate_picture(const MemoryMuxer& muxer, AVPixelFormat format, int width,
                                int height) {
  Libav<AVFrame> picture(av_frame_alloc());
  picture->format = format;
  picture->width = width;
  picture->height = height;
  muxer.check(av_frame_get_buffer(picture.get(), 0), "memory for a picture");
  return picture;
}

void copy_frame(const Video& video, int64_t index, AVFrame& picture) {
  const size_t row = static_cast<size_t>(video.width) * 3;
  for (int y = 0; y < video.height; ++y) {
    std::memcpy(picture.data[0] + static_cast<ptrdiff_t>(y) * picture.linesize[0],
                video.frame(index).data() + y * row, row);
  }
}

}  // namespace sprocket::media
