#include "runtime/attention/selection_record.h"

#include <algorithm>

#include "base/error.h"
#include "kernels/pyramid.h"
#include "parallel/attention/global_branch.h"

namespace sprocket::runtime {

SelectionPart selection_part(const parallel::ShardPlan& plan, int rank, int64_t batch,
                             int64_t heads) {
  const int outer = rank / plan.mesh.ulysses;
  SelectionPart part;
  part.batch = batch;
  part.heads = heads;
  part.own_heads = heads / plan.mesh.ulysses;
  part.first_head = part.own_heads * (rank % plan.mesh.ulysses);
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

SelectionRecord join_parts(const parallel::TokenLayout& layout, const parallel::ShardPlan& plan,
                           int64_t batch, int64_t heads, std::span<const uint8_t> selections,
                           std::span<const uint8_t> kept) {
  const int64_t blocks = layout.blocks(), tokens = layout.tokens();
  SelectionRecord record{batch, heads, blocks, {}, {}};
  record.selection.resize(batch * heads * blocks * blocks);
  if (!kept.empty()) record.kept.resize(batch * heads * tokens);
  auto from = selections.begin();
  auto kept_from = kept.begin();
  for (int rank = 0; rank < plan.mesh.sequence(); ++rank) {
    const SelectionPart part = selection_part(plan, rank, batch, heads);
    for (int64_t b = 0; b < batch; ++b) {
      for (int64_t h = part.first_head; h < part.first_head + part.own_heads; ++h) {
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

double executed_pairs(const parallel::Selection& selection, const parallel::TokenLayout& layout,
                      const parallel::AttentionSpec& spec, int64_t first_block) {
  const kernels::PyramidLayout pyramid =
      kernels::make_pyramid_layout(layout.block_offsets, spec.widths());
  const std::vector<int32_t> sizes = block_sizes(layout);
  // Sum over the rows of a table of its query rows times the key rows it lists.
  const auto pairs = [&](const kernels::SegmentTable& table, auto&& rows_of_segment) {
    double sum = 0;
    for (int64_t row = 0; row < table.rows(); ++row) {
      const double queries = selection.pruning ? selection.pruning->rows[row]
                                               : sizes[first_block + row % table.query_blocks];
      int64_t keys = 0;
      for (int64_t i = table.row_offsets[row]; i < table.row_offsets[row + 1]; ++i) {
        keys += rows_of_segment(table.kv_block[i]);
      }
      sum += queries * static_cast<double>(keys);
    }
    return sum;
  };
  double sum = pairs(*selection.table, [&](int32_t id) {
    return pyramid.segment_rows_offsets[id + 1] - pyramid.segment_rows_offsets[id];
  });
  if (selection.global_table) {
    const kernels::GlobalTokens global =
        parallel::make_global_tokens(layout, spec.asa.global_width, spec.asa.exclude_selected);
    sum += pairs(*selection.global_table,
                 [&](int32_t id) { return int64_t{global.segments[id].groups}; });
  }
  return sum;
}

}  // namespace sprocket::runtime
