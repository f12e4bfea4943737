// What a prompt set consists of: prompts.json beside its shards. It is what a job needs that learns
// from prompts alone: their embeddings, and which videos to make of them.
//
//   prompts.json               this index, written last
//   prompts-00000.safetensors  per prompt "<id>.text" f32 [tokens, dim], and in the first one
//   prompts-00001.safetensors  "negative.text" when there is a negative prompt
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "models/codec/channel_moments.h"
#include "runtime/data/index.h"

namespace sprocket::data {

inline constexpr char kPromptIndexFile[] = "prompts.json";
// Rises when a reader of the former version would misread the prompts.
inline constexpr int kPromptSchemaVersion = 1;

// How latents become pixels.
struct LatentCoding {
  CodecInfo codec;
  codec::ChannelStatistics statistics;  // normalised latents are (x - mean) / std
};

// The videos that prompts are to become.
struct VideoInfo {
  LatentShape shape;
  int64_t frames = 0;  // pixel frames
  double fps = 0;
  int width = 0;  // pixels
  int height = 0;
  std::optional<double> shift;  // of the noise schedule they are meant for; nullopt: any
  // Unknown where the extents alone were given: whoever shows videos has it from a checkpoint.
  std::optional<LatentCoding> coding;
};

struct PromptInfo {
  std::string id;     // prefix of its tensor; unique, not "negative"
  int64_t shard = 0;  // position in PromptIndex::shards
  std::string text;
};

struct PromptIndex {
  int schema_version = kPromptSchemaVersion;
  TextInfo text;  // the embedder, which had these tokens and width
  VideoInfo video;
  std::optional<std::string> negative;  // its text
  std::vector<ShardInfo> shards;
  std::vector<PromptInfo> prompts;
};

// Checks every field. `file` names the text in messages. Throws InputError naming the field, what
// was expected and what was found; for a newer schema both versions.
PromptIndex parse_prompt_index(const std::string& text, const std::string& file);

// Reads `folder`/prompts.json. Throws InputError as parse_prompt_index, and when there is none.
PromptIndex read_prompt_index(const std::string& folder);

// Whether `folder` holds a prompt set, intact or not (and so no data set).
bool is_prompt_set(const std::string& folder);

// Equal indexes give equal text.
std::string prompt_index_text(const PromptIndex& index);

std::string prompt_tensor_name(const PromptInfo& prompt);  // "<id>.text"
inline constexpr char kNegativeTensor[] = "negative.text";

}  // namespace sprocket::data
