// Encoded packets to a finished file in memory; private to this folder. A sample is small, and a
// file made so appears at once.
#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>

#include "runtime/media/libav.h"

namespace sprocket::media {

class MemoryMuxer {
 public:
  // `format`: libav's name of it. `subject` begins the messages of errors.
  MemoryMuxer(const std::string& format, std::string subject);
  ~MemoryMuxer();
  MemoryMuxer(const MemoryMuxer&) = delete;
  MemoryMuxer& operator=(const MemoryMuxer&) = delete;

  // Adds the encoder's stream and writes the header; `options` are the format's. Throws
  // OutputError, like all below.
  void start(const AVCodecContext& encoder, const std::map<std::string, std::string>& options = {});
  // Encodes a picture of one frame's duration, or, without one, what the encoder still holds.
  void send(AVCodecContext& encoder, const AVFrame* picture);
  // The finished file; valid as long as this object.
  std::span<const std::byte> finish();

  // Throws OutputError for a negative code of libav.
  void check(int code, const char* what) const;

 private:
  std::string subject_;
  AVFormatContext* context_ = nullptr;
  AVStream* stream_ = nullptr;
};

}  // namespace sprocket::media
