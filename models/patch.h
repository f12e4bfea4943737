// Latent cells that make up a token.
#pragma once

namespace sprocket::models {

struct Patch {
  int t = 1, h = 2, w = 2;
  int cells() const { return t * h * w; }
  bool operator==(const Patch&) const = default;
};

}  // namespace sprocket::models
