#include "configs/attention_rules.h"

#include "base/error.h"

namespace sprocket::config {

bool has_coarse_gate(const Attention& attention) {
  return attention.method() == Attention::VSA && attention.vsa().coarse() == Vsa::GATED;
}

bool has_fine_gate(const Attention& attention) {
  return attention.method() == Attention::VSA && attention.vsa().fine_gate();
}

int32_t text_prefix(const Model& model) {
  switch (model.family()) {
    case Model::WAN:
      return 0;
    case Model::COGVIDEOX:
      return model.text_tokens();
  }
  throw InternalError("model.family has no counterpart");
}

}  // namespace sprocket::config
