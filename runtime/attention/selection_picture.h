// What a head selected, as a picture: left the blocks that every query block attends to, right the
// video with the blocks of one query block.
#pragma once

#include <cstdint>
#include <span>
#include <string>

#include "parallel/token_layout.h"
#include "runtime/media/video.h"

namespace sprocket::runtime {

struct PictureSubject {
  const parallel::TokenLayout& layout;
  std::span<const uint8_t> selection;  // [N, N] of one head: 0 skipped, else the level from 1 on
  std::span<const uint8_t> kept;       // [L] of that head, in the input's order, or empty
  bool levels = false;                 // levels above 1 occur
  std::string title;                   // of one line
  int query_block = 0;
};

media::Image draw_selection(const PictureSubject& subject);

}  // namespace sprocket::runtime
