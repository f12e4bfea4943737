// The shape of the videos that a job works on, for plans.
#pragma once

#include <string>

#include "configs/load.h"
#include "configs/validate.h"

namespace sprocket::launcher {

struct KnownShape {
  config::LatentShape shape;
  std::string source;  // where it comes from: the index of the data or prompt set, or data.latent
};

// The largest shape in the data set at data.path, or that of a prompt set, else data.latent. Throws
// ConfigError when there is neither, InputError when the index is damaged.
KnownShape find_latent_shape(const config::LoadedJob& loaded);

}  // namespace sprocket::launcher
