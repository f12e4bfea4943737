#include "configs/attention_rules.h"

namespace sprocket::config {

bool has_coarse_gate(const Attention& attention) {
  return attention.method() == Attention::VSA && attention.vsa().coarse() == Vsa::GATED;
}

bool has_fine_gate(const Attention& attention) {
  return attention.method() == Attention::VSA && attention.vsa().fine_gate();
}

}  // namespace sprocket::config
