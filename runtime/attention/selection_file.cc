#include "runtime/attention/selection_file.h"

#include <algorithm>
#include <cstring>
#include <limits>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "base/error.h"
#include "kernels/pyramid.h"

namespace sprocket::runtime {
namespace {

using safetensors::ElementType;

const safetensors::TensorInfo& tensor_of(const safetensors::File& file, const std::string& name,
                                         ElementType type, std::vector<int64_t> shape) {
  const safetensors::TensorInfo* tensor = file.find(name);
  if (tensor == nullptr) {
    throw InputError(fmt::format(
        "{}: expected a tensor \"{}\", which an output has that was made with --dump-selection",
        file.path(), name));
  }
  if (tensor->type != type || tensor->shape != shape) {
    throw InputError(fmt::format("{}: {}: expected {} [{}], found {} [{}]", file.path(), name,
                                 name_of(type), fmt::join(shape, ", "), name_of(tensor->type),
                                 fmt::join(tensor->shape, ", ")));
  }
  return *tensor;
}

void expect_same(const safetensors::File& file, const std::string& name,
                 const std::vector<int32_t>& expected, const char* unit) {
  const auto data =
      file.data(tensor_of(file, name, ElementType::kI32, {static_cast<int64_t>(expected.size())}));
  for (size_t i = 0; i < expected.size(); ++i) {
    int32_t found;
    std::memcpy(&found, data.data() + i * sizeof found, sizeof found);
    if (found == expected[i]) continue;
    throw InputError(fmt::format(
        "{}: {}: the selection is of other blocks: {} {} has {} there and {} in this job",
        file.path(), name, unit, i, found, expected[i]));
  }
}

uint8_t value_at(std::span<const std::byte> data, int64_t index) {
  return std::to_integer<uint8_t>(data[index]);
}

int64_t squared_distance(const std::array<int32_t, 3>& a, const std::array<int32_t, 3>& b) {
  int64_t sum = 0;
  for (int axis = 0; axis < 3; ++axis) {
    const int64_t way = a[axis] - b[axis];
    sum += way * way;
  }
  return sum;
}

}  // namespace

std::vector<std::pair<std::string, std::string>> selection_metadata(
    const std::string& method, const parallel::TokenLayout& layout) {
  const parallel::TokenLayoutSpec& spec = layout.spec;
  return {{"method", method},
          {"grid", fmt::format("{} x {} x {}", spec.grid.t, spec.grid.h, spec.grid.w)},
          {"prefix", fmt::format("[{}]", fmt::join(spec.prefix, ", "))},
          {"blocks", std::to_string(layout.blocks())}};
}

SelectionFile SelectionFile::open(const std::string& path, const std::string& method,
                                  const parallel::TokenLayout& layout, int64_t batch,
                                  int64_t heads) {
  SelectionFile selection(safetensors::File::open(path));
  const safetensors::File& file = selection.file_;
  for (const auto& [key, expected] : selection_metadata(method, layout)) {
    const auto found = file.metadata().find(key);
    if (found == file.metadata().end() || found->second == expected) continue;
    throw InputError(fmt::format("{}: the selection is of another {}: {}, expected {}", path, key,
                                 found->second, expected));
  }
  const int64_t blocks = layout.blocks();
  tensor_of(file, "selection", method == "PSA" ? ElementType::kI8 : ElementType::kBool,
            {batch, heads, blocks, blocks});
  if (method == "BSA") {
    tensor_of(file, "kept", ElementType::kBool, {batch, heads, layout.tokens()});
  }
  expect_same(file, "block_size", block_sizes(layout), "block");
  expect_same(file, "token_block", token_blocks(layout), "token");
  return selection;
}

parallel::Selection SelectionFile::part(const SelectionPart& part,
                                        const parallel::TokenLayout& layout,
                                        const parallel::AttentionSpec& spec) const {
  parallel::Selection selection;
  selection.table = std::make_shared<kernels::SegmentTable>(table(part, layout, spec));
  if (spec.method == parallel::MethodKind::kBsa) {
    selection.pruning =
        std::make_shared<kernels::QueryPruning>(pruning(part, layout, spec.bsa.pruning.recovery));
  }
  return selection;
}

kernels::SegmentTable SelectionFile::table(const SelectionPart& part,
                                           const parallel::TokenLayout& layout,
                                           const parallel::AttentionSpec& spec) const {
  const int64_t blocks = layout.blocks();
  const auto data = file_.data(file_.at("selection"));
  const kernels::PyramidLayout pyramid =
      kernels::make_pyramid_layout(layout.block_offsets, spec.widths());
  kernels::SegmentTable table{static_cast<int>(part.batch),
                              static_cast<int>(part.own_heads()),
                              static_cast<int>(part.own_blocks),
                              pyramid.segments(),
                              {0},
                              {}};
  for (int64_t b = 0; b < part.batch; ++b) {
    for (const int h : part.own) {
      for (int64_t i = part.first_block; i < part.first_block + part.own_blocks; ++i) {
        for (int64_t j = 0; j < blocks; ++j) {
          const int level = value_at(data, ((b * part.heads + h) * blocks + i) * blocks + j);
          if (level > pyramid.levels()) {
            throw InputError(fmt::format("{}: selection[{}, {}, {}, {}] = {}; legal: 0 to {}",
                                         file_.path(), b, h, i, j, level, pyramid.levels()));
          }
          if (i < layout.prefix_blocks() && level != 1) {
            throw InputError(
                fmt::format("{}: selection[{}, {}, {}, {}] = {}; legal: 1, block {} is one of the "
                            "prefix, whose "
                            "queries attend to everything",
                            file_.path(), b, h, i, j, level, i));
          }
          if (level == 0) continue;
          const kernels::SegmentRange range = pyramid.segments_of(static_cast<int>(j), level);
          for (int32_t id = 0; id < range.count; ++id) table.kv_block.push_back(range.first + id);
        }
        table.row_offsets.push_back(static_cast<int64_t>(table.kv_block.size()));
      }
    }
  }
  return table;
}

// The tokens that are kept are given; whose output the others copy follows from `recovery`.
kernels::QueryPruning SelectionFile::pruning(const SelectionPart& part,
                                             const parallel::TokenLayout& layout,
                                             kernels::PruningRecovery recovery) const {
  const auto data = file_.data(file_.at("kept"));
  const int64_t tokens = part.own_tokens, batch_heads = part.batch * part.own_heads();
  kernels::QueryPruning pruning;
  pruning.batch = static_cast<int>(part.batch);
  pruning.heads = static_cast<int>(part.own_heads());
  for (int64_t i = 0; i <= part.own_blocks; ++i) {
    pruning.token_offsets.push_back(layout.block_offsets[part.first_block + i] - part.first_token);
  }
  const auto is_kept = [&](int64_t bh, int64_t token) {
    const int64_t b = bh / part.own_heads(), h = part.own[bh % part.own_heads()];
    return value_at(data, (b * part.heads + h) * layout.tokens() +
                              layout.raster_index[part.first_token + token]) != 0;
  };
  std::vector<int64_t> capacity(part.own_blocks);
  for (int64_t bh = 0; bh < batch_heads; ++bh) {
    for (int64_t i = 0; i < part.own_blocks; ++i) {
      int32_t rows = 0;
      for (int64_t t = pruning.token_offsets[i]; t < pruning.token_offsets[i + 1]; ++t) {
        rows += is_kept(bh, t);
      }
      if (rows == 0) {
        throw InputError(fmt::format("{}: kept: no query of block {} is kept for (b {}, h {})",
                                     file_.path(), part.first_block + i, bh / part.own_heads(),
                                     part.own[bh % part.own_heads()]));
      }
      const int64_t block = part.first_block + i,
                    all = pruning.token_offsets[i + 1] - pruning.token_offsets[i];
      if (block < layout.prefix_blocks() && rows < all) {
        throw InputError(
            fmt::format("{}: kept: {} of the {} queries of block {} are kept for (b {}, h {}); "
                        "legal: all, it is "
                        "one of the prefix",
                        file_.path(), rows, all, block, bh / part.own_heads(),
                        part.own[bh % part.own_heads()]));
      }
      pruning.rows.push_back(rows);
      capacity[i] = std::max<int64_t>(capacity[i], rows);
    }
  }
  pruning.offsets.push_back(0);
  for (const int64_t rows : capacity) pruning.offsets.push_back(pruning.offsets.back() + rows);
  pruning.kept.assign(batch_heads * pruning.kept_rows(), -1);
  pruning.source.resize(batch_heads * tokens);

  // Prefix tokens have no position; all of them are kept by this program.
  const auto distance = [&](int64_t a, int64_t b) {
    const int64_t first = part.first_token;
    return recovery == kernels::PruningRecovery::kNearestIndex || layout.is_prefix(first + a)
               ? (a - b) * (a - b)
               : squared_distance(layout.position(first + a), layout.position(first + b));
  };
  for (int64_t bh = 0; bh < batch_heads; ++bh) {
    int32_t* kept = pruning.kept.data() + bh * pruning.kept_rows();
    int32_t* source = pruning.source.data() + bh * tokens;
    for (int64_t i = 0; i < part.own_blocks; ++i) {
      const int64_t first = pruning.token_offsets[i], last = pruning.token_offsets[i + 1];
      const auto begin = static_cast<int32_t>(pruning.offsets[i]);
      int32_t end = begin;
      for (int64_t t = first; t < last; ++t) {
        if (!is_kept(bh, t)) continue;
        source[t] = end;
        kept[end++] = static_cast<int32_t>(t);
      }
      for (int64_t t = first; t < last; ++t) {
        if (is_kept(bh, t)) continue;
        source[t] = begin;
        for (int32_t row = begin + 1; row < end; ++row) {
          if (distance(kept[row], t) < distance(kept[source[t]], t)) source[t] = row;
        }
      }
    }
  }
  return pruning;
}

}  // namespace sprocket::runtime
