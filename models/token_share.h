// Which tokens of a sequence a rank has.
//
// A model that attends to text and video jointly has the text as the prefix of its sequence
// (parallel/token_layout.h); others have the video alone. The text stands before the video in
// the block order, as it does in the published model, and is sharded with it. The projection, the
// norms and the products of a text token are computed by the one rank that has it, so that the sum
// of the ranks' gradients counts the text once; keys and values of the text go to every rank inside
// SequenceAttention.
#pragma once

#include "parallel/token_layout.h"

namespace sprocket::models {

// Tokens first .. first + text - 1 of the text, then `video` tokens of the video, which are those
// from first_video() on in the block order.
struct TokenShare {
  int64_t first = 0;
  int64_t text = 0;
  int64_t video = 0;

  int64_t first_video() const { return first + text; }
  int64_t tokens() const { return text + video; }
};

TokenShare token_share(const parallel::TokenLayout& layout, const parallel::ShardPlan& plan,
                       int sequence_rank);

}  // namespace sprocket::models
