#include <fmt/format.h>

#include "configs/findings.h"

namespace sprocket::config {

void check_lora(const std::string& at, const Lora& lora, Findings& findings) {
  constexpr int64_t kLargestRank = 65536;
  if (!findings.in_range(at + ".rank", lora.rank(), 0, kLargestRank)) return;
  findings.number(at + ".alpha", lora.alpha(), lora.alpha() >= 0, "alpha >= 0");
  if (lora.rank() == 0 && (lora.alpha() > 0 || lora.target_size() > 0 || !lora.weights().empty())) {
    findings.add({at + ".rank"},
                 fmt::format("0 (no adapters) beside other fields of {}; legal: 1 to {}, or no {}",
                             at, kLargestRank, at));
  }
  for (const std::string& target : lora.target()) {
    if (target.empty()) {
      findings.add({at + ".target"}, "\"\" is no layer; expected a name such as blocks.*.ffn.0");
    }
  }
}

}  // namespace sprocket::config
