// What `sprocket data encode` is asked to do, checked before any work.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "runtime/data/index.h"

namespace sprocket::data {

struct EncodeOptions {
  // Either videos, all with `caption`, or a manifest: one JSON object a line,
  //   {"video": "a.mp4", "caption": "…", "text": "a.safetensors", "width": 832, "height": 480,
  //    "frames": 81}
  // of which only "video" must be there; paths are relative to the manifest's folder; width, height
  // and frames replace those below, so that one data set may hold several shapes.
  std::vector<std::string> videos;
  std::string caption;
  std::string manifest;

  int width = 256;  // pixels; multiples of 16
  int height = 144;
  int64_t frames = 33;       // of a clip; 4k+1
  int64_t clip_stride = 0;   // frames from the start of one clip to the next; 0: `frames`
  int64_t max_clips = 0;     // of a video; 0: as many as fit
  double fps = 0;            // frames are dropped or repeated to this rate; 0: the video's own
  int64_t frame_stride = 1;  // then every n-th frame is used
  int64_t start_frame = 0;   // and the first n of each video are left out

  int channels = 16;  // of the haar codec

  // "hashed", or "precomputed": the manifest names for each video a safetensors file with a tensor
  // "embedding" [tokens, dim].
  std::string text = "hashed";
  int64_t tokens = 64;  // hashed alone
  int64_t dim = 256;    // hashed alone

  std::string output;
  int64_t shard_bytes = int64_t{256} << 20;
};

struct EncodeItem {
  std::string video;
  std::string caption;
  std::string text_file;  // precomputed alone
  int width = 0;
  int height = 0;
  int64_t frames = 0;
};

// Throws ConfigError listing all problems of the options, InputError (file and line) for a manifest
// that is missing or damaged.
std::vector<EncodeItem> plan_encoding(const EncodeOptions& options);

}  // namespace sprocket::data
