// How blocks in front of the video take part in a selection (VSA-H3).
//
// Prefix blocks (tiles of text, condition and audio) have the ids [0, prefix_blocks), video blocks
// the following ones. A count k of selected blocks is always a count of video blocks.
#pragma once

namespace sprocket::kernels {

// What a video query block selects. A prefix query block selects every block under both rules.
enum class PrefixRule {
  kExempt,   // all prefix blocks, and its k best video blocks
  kCompete,  // the k + prefix_blocks best of all blocks
};

}  // namespace sprocket::kernels
