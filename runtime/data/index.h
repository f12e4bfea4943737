// What a data set of encoded videos consists of: index.json beside its shards.
//
//   index.json                 this index, written last
//   latents-00000.safetensors  per sample "<id>.latent" f32 [C,T,H,W] as the codec gives it, not
//   latents-00001.safetensors  normalised, and for precomputed text "<id>.text" f32 [tokens, dim]
//
// Latents are stored as they are and normalised when read, so that statistics can be recomputed;
// data of other origin may be stored normalised, which the index then says.
#pragma once

#include <compare>
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "models/codec/channel_moments.h"

namespace sprocket::data {

// Rises when a reader of the former version would misread the data.
inline constexpr int kSchemaVersion = 1;

struct LatentShape {
  int64_t c = 0, t = 0, h = 0, w = 0;
  int64_t elements() const { return c * t * h * w; }
  auto operator<=>(const LatentShape&) const = default;
};

struct CodecInfo {
  std::string name;  // "haar"
  int version = 0;   // of the codec's transform and channel order
  int channels = 0;
  bool operator==(const CodecInfo&) const = default;
};

struct TextInfo {
  std::string name;  // "hashed" (computed from the caption) or "precomputed" (in the shards)
  int version = 0;
  int64_t tokens = 0;
  int64_t dim = 0;
  bool operator==(const TextInfo&) const = default;
};

struct ShardInfo {
  std::string file;  // in the index's folder
  uint64_t bytes = 0;
  uint64_t xxh3 = 0;
};

struct SampleInfo {
  std::string id;     // prefix of its tensors; unique
  int64_t shard = 0;  // position in Index::shards
  LatentShape shape;
  std::string caption;
  std::string source;       // the video file, as it was given
  int64_t first_frame = 0;  // of the source, counted after the choice of frame rate
  int64_t frames = 0;       // pixels frames of the clip
  double fps = 0;
  int width = 0;  // pixels
  int height = 0;
};

struct Index {
  int schema_version = kSchemaVersion;
  CodecInfo codec;
  bool normalised = false;  // whether the stored latents are
  codec::ChannelStatistics statistics;
  std::optional<double> shift;  // of the noise schedule the data were made for; most are for none
  TextInfo text;
  std::vector<ShardInfo> shards;
  std::vector<SampleInfo> samples;
};

// Checks every field. `file` names the text in messages. Throws InputError naming the field, what
// was expected and what was found; for a newer schema both versions.
Index parse_index(const std::string& text, const std::string& file);

// Reads `folder`/index.json. Throws InputError as parse_index, and when there is none.
Index read_index(const std::string& folder);

// Equal indexes give equal text.
std::string index_text(const Index& index);

std::string latent_name(const SampleInfo& sample);  // "<id>.latent"
std::string text_name(const SampleInfo& sample);    // "<id>.text"
std::string to_string(const LatentShape& shape);    // "[16, 21, 60, 104]"

}  // namespace sprocket::data
