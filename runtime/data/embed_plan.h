// What `sprocket data embed-prompts` is asked to do, checked before any work.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "runtime/data/prompt_index.h"
#include "runtime/data/prompt_list.h"

namespace sprocket::data {

struct EmbedOptions {
  // Either prompts, one a line, whose embeddings are computed, or a manifest that names the
  // embedding of each (prompt_list.h).
  std::string prompts;
  std::string manifest;
  std::optional<std::string> negative;  // of `prompts`; a manifest has its own

  // The embedder of `prompts`: hashed, by default that of `like`, else of 64 x 256.
  std::optional<int64_t> tokens;
  std::optional<int64_t> dim;

  // Which videos the prompts are to become: those of a data set (of its first sample, where there
  // are several shapes), with its codec, statistics and shift; or extents alone.
  std::string like;
  std::optional<int64_t> width;  // pixels; a multiple of 16
  std::optional<int64_t> height;
  std::optional<int64_t> frames;    // 4k+1
  std::optional<int64_t> channels;  // latent; 16
  std::optional<double> fps;        // 16
  std::optional<double> shift;      // of the noise schedule; none

  std::string output;
  int64_t shard_bytes = int64_t{256} << 20;
};

struct EmbedPlan {
  TextInfo text;  // tokens 0: as the first embedding of the manifest
  VideoInfo video;
  PromptList list;
};

// Throws ConfigError listing all problems of the options, or saying how they contradict the data
// set; InputError for prompts and a data set that are missing or damaged.
EmbedPlan plan_embedding(const EmbedOptions& options);

}  // namespace sprocket::data
