#pragma once

#include <span>

#include "models/codec/haar.h"
#include "runtime/data/index.h"
#include "runtime/media/video.h"

namespace sprocket::data {

// The codec that made a data set. Throws InputError when this program has no such codec or version.
codec::HaarCodec codec_of(const CodecInfo& info);

// Pixels of a normalised latent [C,T,H,W]: denormalises, decodes the largest number of frames that
// T latent frames hold (4(T-1)+1), clamps. Throws InputError as codec_of.
media::Video decode_latent(const CodecInfo& codec, const codec::ChannelStatistics& statistics,
                           std::span<const float> latent, const LatentShape& shape, double fps);

}  // namespace sprocket::data
