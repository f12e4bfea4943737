// Decoding video files with libav.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "runtime/media/video.h"

namespace sprocket::media {

struct ReadOptions {
  // The frame is cropped to the largest centred rectangle of this aspect ratio and scaled to this
  // size (area filter down, bicubic up). 0, 0: the video's own size.
  int width = 0;
  int height = 0;
  // Target frames per second: frame k shows the moment k / fps; frames are dropped or repeated.
  // 0: every frame of the file.
  double fps = 0;
  // Of the frames so chosen, the first `start` are skipped, then every stride-th is returned, at
  // most `max_frames` (0: all).
  int64_t start = 0;
  int64_t stride = 1;
  int64_t max_frames = 0;
};

struct VideoInfo {
  int width = 0;  // as displayed: a rotation in the file is applied
  int height = 0;
  double fps = 0;  // average rate of the file
  std::string codec;
};

// Reads frames one after another. Only local files of known video containers are opened: no
// playlists, images or text. One thread; the same file gives the same bytes.
class VideoReader {
 public:
  // Throws InputError when the file is missing, is no video (or too damaged to tell), has no video
  // stream, or its codec is not supported; names the path and libav's reason.
  VideoReader(const std::string& path, const ReadOptions& options);
  ~VideoReader();
  VideoReader(const VideoReader&) = delete;
  VideoReader& operator=(const VideoReader&) = delete;

  const VideoInfo& info() const;
  // Size and rate of the frames that next() returns.
  int width() const;
  int height() const;
  double fps() const;

  // Overwrites `frame` ([height, width, 3]) with the next one; false at the end. Throws InputError
  // naming the frame when the file is damaged or ends before all announced frames were read.
  bool next(std::vector<uint8_t>* frame);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

// The whole selection at once. Throws InputError also when it is empty (a zero-length clip).
Video read_video(const std::string& path, const ReadOptions& options = {});

}  // namespace sprocket::media
