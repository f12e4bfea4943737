#include "runtime/attention/selection_record.h"

#include <algorithm>

#include "base/error.h"
#include "kernels/pyramid.h"
#include "parallel/head_balance.h"

namespace sprocket::runtime {

SelectionPart selection_part(const parallel::ShardPlan& plan, int rank, int64_t batch,
                             int64_t heads, std::span<const int> head_order) {
  const int outer = rank / plan.mesh.ulysses;
  SelectionPart part;
  part.batch = batch;
  part.heads = heads;
  part.own = parallel::heads_of_rank(head_order, rank % plan.mesh.ulysses, plan.mesh.ulysses,
                                     static_cast<int>(heads));
  part.first_block = plan.outer_blocks[outer];
  part.own_blocks = plan.outer_blocks[outer + 1] - part.first_block;
  part.first_token = plan.outer_tokens[outer];
  part.own_tokens = plan.outer_tokens[outer + 1] - part.first_token;
  return part;
}

std::vector<uint8_t> selection_bytes(const parallel::Selection& selection,
                                     const parallel::TokenLayout& layout,
                                     const parallel::AttentionSpec& spec) {
  const kernels::SegmentTable& table = *selection.table;
  const kernels::PyramidLayout pyramid =
      kernels::make_pyramid_layout(layout.block_offsets, spec.widths());
  std::vector<int32_t> block_of(pyramid.segments());
  for (int block = 0; block < pyramid.blocks(); ++block) {
    for (int id = pyramid.first_segment[block]; id < pyramid.first_segment[block + 1]; ++id) {
      block_of[id] = block;
    }
  }
  std::vector<uint8_t> bytes(table.rows() * layout.blocks());
  for (int64_t row = 0; row < table.rows(); ++row) {
    for (int64_t i = table.row_offsets[row]; i < table.row_offsets[row + 1]; ++i) {
      const int32_t id = table.kv_block[i];
      bytes[row * layout.blocks() + block_of[id]] = pyramid.level[id];
    }
  }
  return bytes;
}

std::vector<uint8_t> kept_bytes(const parallel::Selection& selection) {
  if (!selection.pruning) return {};
  const kernels::QueryPruning& pruning = *selection.pruning;
  const int64_t batch_heads = static_cast<int64_t>(pruning.batch) * pruning.heads;
  std::vector<uint8_t> bytes(batch_heads * pruning.tokens());
  for (int64_t bh = 0; bh < batch_heads; ++bh) {
    for (int64_t row = 0; row < pruning.kept_rows(); ++row) {
      const int32_t token = pruning.kept[bh * pruning.kept_rows() + row];
      if (token >= 0) bytes[bh * pruning.tokens() + token] = 1;
    }
  }
  return bytes;
}

SelectionRecord join_parts(const parallel::TokenLayout& layout,
                           std::span<const SelectionPart> parts,
                           std::span<const uint8_t> selections, std::span<const uint8_t> kept) {
  const int64_t batch = parts.front().batch, heads = parts.front().heads;
  const int64_t blocks = layout.blocks(), tokens = layout.tokens();
  SelectionRecord record{batch, heads, blocks, {}, {}};
  record.selection.resize(batch * heads * blocks * blocks);
  if (!kept.empty()) record.kept.resize(batch * heads * tokens);
  auto from = selections.begin();
  auto kept_from = kept.begin();
  for (const SelectionPart& part : parts) {
    for (int64_t b = 0; b < batch; ++b) {
      for (const int h : part.own) {
        const int64_t head = b * heads + h, count = part.own_blocks * blocks;
        std::copy_n(from, count,
                    record.selection.begin() + (head * blocks + part.first_block) * blocks);
        from += count;
        if (kept.empty()) continue;
        for (int64_t i = 0; i < part.own_tokens; ++i) {
          record.kept[head * tokens + layout.raster_index[part.first_token + i]] = *kept_from++;
        }
      }
    }
  }
  return record;
}

std::vector<int32_t> token_blocks(const parallel::TokenLayout& layout) {
  std::vector<int32_t> blocks(layout.tokens());
  for (int32_t block = 0; block < layout.blocks(); ++block) {
    for (int64_t i = layout.block_offsets[block]; i < layout.block_offsets[block + 1]; ++i) {
      blocks[layout.raster_index[i]] = block;
    }
  }
  return blocks;
}

std::vector<int32_t> block_sizes(const parallel::TokenLayout& layout) {
  std::vector<int32_t> sizes;
  for (int block = 0; block < layout.blocks(); ++block) {
    sizes.push_back(
        static_cast<int32_t>(layout.block_offsets[block + 1] - layout.block_offsets[block]));
  }
  return sizes;
}

}  // namespace sprocket::runtime
