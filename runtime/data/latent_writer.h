// Writing a data set of encoded videos (index.h describes the folder).
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "models/codec/channel_moments.h"
#include "runtime/data/index.h"
#include "runtime/data/output_folder.h"

namespace sprocket::data {

// Samples are collected until a shard is full; the folder appears at finish(), complete.
class LatentWriter {
 public:
  // shard_bytes: a shard is closed when it holds at least so many. Throws OutputError as
  // OutputFolder does.
  LatentWriter(const std::string& folder, CodecInfo codec, TextInfo text, int64_t shard_bytes);

  // latent: [C,T,H,W] of `info.shape`, not normalised. text: [tokens, dim] for precomputed text,
  // else empty. info.id and info.shard are set here. Throws OutputError.
  void add(SampleInfo info, std::vector<float> latent, std::vector<float> text);

  // At least one sample must have been added. Returns the index written. Throws OutputError.
  Index finish();

 private:
  struct Pending {
    SampleInfo info;
    std::vector<float> latent;
    std::vector<float> text;
  };
  void write_shard();

  OutputFolder folder_;
  int64_t shard_bytes_;
  Index index_;
  codec::ChannelMoments moments_;
  std::vector<Pending> pending_;
  int64_t pending_bytes_ = 0;
};

}  // namespace sprocket::data
