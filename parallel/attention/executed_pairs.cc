#include "parallel/attention/executed_pairs.h"

#include "kernels/pyramid.h"
#include "parallel/attention/global_branch.h"

namespace sprocket::parallel {
namespace {

// Adds to every head the query rows of its table's rows times the key rows that they list.
void add_pairs(const kernels::SegmentTable& table, const std::vector<int64_t>& key_rows,
               const kernels::QueryPruning* pruning, const TokenLayout& layout, int first_block,
               std::vector<int64_t>& pairs) {
  for (int64_t row = 0; row < table.rows(); ++row) {
    int64_t keys = 0;
    for (int64_t i = table.row_offsets[row]; i < table.row_offsets[row + 1]; ++i) {
      keys += key_rows[table.kv_block[i]];
    }
    const int64_t block = first_block + row % table.query_blocks;
    const int64_t queries = pruning ? pruning->rows[row]
                                    : layout.block_offsets[block + 1] - layout.block_offsets[block];
    pairs[row / table.query_blocks % table.heads] += queries * keys;
  }
}

}  // namespace

std::vector<int64_t> executed_pairs(const Selection& selection, const TokenLayout& layout,
                                    const AttentionSpec& spec, int first_block) {
  std::vector<int64_t> pairs(selection.table->heads);
  const kernels::PyramidLayout pyramid =
      kernels::make_pyramid_layout(layout.block_offsets, spec.widths());
  std::vector<int64_t> key_rows;
  for (int id = 0; id < pyramid.segments(); ++id) {
    key_rows.push_back(pyramid.segment_rows_offsets[id + 1] - pyramid.segment_rows_offsets[id]);
  }
  add_pairs(*selection.table, key_rows, selection.pruning.get(), layout, first_block, pairs);
  if (selection.global_table) {
    std::vector<int64_t> groups;
    const kernels::GlobalTokens tokens =
        make_global_tokens(layout, spec.asa.global_width, spec.asa.exclude_selected);
    for (const kernels::GlobalSegment& segment : tokens.segments) groups.push_back(segment.groups);
    add_pairs(*selection.global_table, groups, selection.pruning.get(), layout, first_block, pairs);
  }
  return pairs;
}

}  // namespace sprocket::parallel
