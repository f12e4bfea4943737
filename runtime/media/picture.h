// A frame of a video in a picture of libav's; private to this folder.
#pragma once

#include "runtime/media/libav.h"
#include "runtime/media/memory_muxer.h"
#include "runtime/media/video.h"

namespace sprocket::media {

// Its pixels are not set. Throws OutputError, as `muxer` words it.
Libav<AVFrame> allocate_picture(const MemoryMuxer& muxer, AVPixelFormat format, int width,
                                int height);

// Copies a frame into a picture of RGB24. libav reads past the end of rows: a picture is padded, a
// video is not.
void copy_frame(const Video& video, int64_t index, AVFrame& picture);

}  // namespace sprocket::media
