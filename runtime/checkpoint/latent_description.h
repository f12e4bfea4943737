// Between the index of a data set or a prompt set and the description of latents in a checkpoint.
#pragma once

#include "models/codec/channel_moments.h"
#include "runtime/checkpoint/state.pb.h"
#include "runtime/data/index.h"
#include "runtime/data/prompt_index.h"

namespace sprocket::runtime {

// The latents of a data set; extents, frames and rate are those of its first sample.
LatentDescription describe_latents(const data::Index& index);

// The latents that prompts are to become. Without a coding there is no codec, no mean and no std:
// such videos cannot be decoded.
LatentDescription describe_latents(const data::PromptIndex& index);

data::LatentShape shape_of(const LatentDescription& latent);
data::CodecInfo codec_of(const LatentDescription& latent);
data::TextInfo text_of(const LatentDescription& latent);
codec::ChannelStatistics statistics_of(const LatentDescription& latent);

}  // namespace sprocket::runtime
