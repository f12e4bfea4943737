#include "models/token_share.h"

#include <algorithm>

namespace sprocket::models {

TokenShare token_share(const parallel::TokenLayout& layout, const parallel::ShardPlan& plan,
                       int sequence_rank) {
  const int64_t first = plan.rank_tokens[sequence_rank], all = plan.tokens_of(sequence_rank);
  const int64_t text = std::clamp<int64_t>(layout.prefix_tokens() - first, 0, all);
  return {first, text, all - text};
}

}  // namespace sprocket::models
