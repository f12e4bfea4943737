#include "runtime/parity/selection_gather.h"

#include <algorithm>
#include <cstring>
#include <span>

#include "base/error.h"
#include "runtime/attention/rank_tokens.h"

namespace sprocket::runtime {
namespace {

using kernels::QueryPruning;
using kernels::SegmentTable;
using parallel::Selection;

// Numbers of a selection behind one another; lists with their length before them.
class Packed {
 public:
  Packed() = default;
  explicit Packed(std::span<const uint8_t> bytes) : words_(bytes.size() / sizeof(int32_t)) {
    std::memcpy(words_.data(), bytes.data(), bytes.size());
  }
  std::span<const uint8_t> bytes() const {
    return {reinterpret_cast<const uint8_t*>(words_.data()), words_.size() * sizeof(int32_t)};
  }

  template <class T>
  void put(const std::vector<T>& list) {
    words_.push_back(static_cast<int32_t>(list.size()));
    for (const T value : list) words_.push_back(static_cast<int32_t>(value));
  }
  template <class T>
  void take(std::vector<T>& list) {
    list.resize(words_.at(next_++));
    for (T& value : list) value = words_.at(next_++);
  }

 private:
  std::vector<int32_t> words_;
  size_t next_ = 0;
};

void put(Packed& packed, const SegmentTable& table) {
  std::vector<int64_t> counts;
  for (int64_t row = 0; row < table.rows(); ++row) {
    counts.push_back(table.row_offsets[row + 1] - table.row_offsets[row]);
  }
  packed.put(std::vector<int>{table.batch, table.heads, table.query_blocks, table.kv_blocks});
  packed.put(counts);
  packed.put(table.kv_block);
}

SegmentTable take_table(Packed& packed) {
  std::vector<int> extents;
  std::vector<int64_t> counts;
  SegmentTable table;
  packed.take(extents);
  packed.take(counts);
  packed.take(table.kv_block);
  table.batch = extents.at(0);
  table.heads = extents.at(1);
  table.query_blocks = extents.at(2);
  table.kv_blocks = extents.at(3);
  table.row_offsets = {0};
  for (const int64_t count : counts) table.row_offsets.push_back(table.row_offsets.back() + count);
  return table;
}

void put(Packed& packed, const QueryPruning& pruning) {
  packed.put(std::vector<int>{pruning.batch, pruning.heads});
  packed.put(pruning.token_offsets);
  packed.put(pruning.offsets);
  packed.put(pruning.rows);
  packed.put(pruning.kept);
  packed.put(pruning.source);
}

QueryPruning take_pruning(Packed& packed) {
  std::vector<int> extents;
  QueryPruning pruning;
  packed.take(extents);
  pruning.batch = extents.at(0);
  pruning.heads = extents.at(1);
  packed.take(pruning.token_offsets);
  packed.take(pruning.offsets);
  packed.take(pruning.rows);
  packed.take(pruning.kept);
  packed.take(pruning.source);
  return pruning;
}

void put(Packed& packed, const Selection& selection) {
  packed.put(std::vector<bool>{selection.pruning != nullptr, selection.global_table != nullptr});
  packed.put(selection.head_order);
  put(packed, *selection.table);
  if (selection.pruning) put(packed, *selection.pruning);
  if (selection.global_table) put(packed, *selection.global_table);
}

Selection take_selection(Packed& packed) {
  std::vector<int> has;
  packed.take(has);
  Selection selection;
  packed.take(selection.head_order);
  selection.table = std::make_shared<SegmentTable>(take_table(packed));
  if (has.at(0)) selection.pruning = std::make_shared<QueryPruning>(take_pruning(packed));
  if (has.at(1)) selection.global_table = std::make_shared<SegmentTable>(take_table(packed));
  return selection;
}

// One replica's parts of one layer: part(outer, ulysses).
class Parts {
 public:
  Parts(std::span<const LayerSelections> ranks, const parallel::MeshShape& mesh, size_t layer)
      : ranks_(ranks), mesh_(mesh), layer_(layer) {}

  Selection whole() const {
    Selection selection;
    selection.table = std::make_shared<SegmentTable>(table(&Selection::table));
    if (part(0, 0).global_table) {
      selection.global_table = std::make_shared<SegmentTable>(table(&Selection::global_table));
    }
    if (part(0, 0).pruning) selection.pruning = std::make_shared<QueryPruning>(pruning());
    return selection;
  }

 private:
  const Selection& part(int outer, int ulysses) const {
    return ranks_[outer * mesh_.ulysses + ulysses][layer_];
  }
  // Of every head, its place in Selection::head_order.
  std::vector<int> places(int heads) const {
    const std::vector<int>& order = part(0, 0).head_order;
    std::vector<int> places(heads);
    for (int place = 0; place < heads; ++place) {
      places[order.empty() ? place : order[place]] = place;
    }
    return places;
  }
  // visit(outer, ulysses, row of batch and head there), in the order of the whole.
  template <class Visit>
  void for_each_batch_head(int batch, int own_heads, Visit&& visit) const {
    for (int b = 0; b < batch; ++b) {
      for (const int place : places(own_heads * mesh_.ulysses)) {
        for (int outer = 0; outer < mesh_.outer; ++outer) {
          visit(outer, place / own_heads, int64_t{b} * own_heads + place % own_heads);
        }
      }
    }
  }

  SegmentTable table(std::shared_ptr<const SegmentTable> Selection::*which) const {
    const SegmentTable& first = *(part(0, 0).*which);
    SegmentTable whole{first.batch, first.heads * mesh_.ulysses, 0, first.kv_blocks, {0}, {}};
    for (int outer = 0; outer < mesh_.outer; ++outer) {
      whole.query_blocks += (part(outer, 0).*which)->query_blocks;
    }
    for_each_batch_head(first.batch, first.heads, [&](int outer, int ulysses, int64_t batch_head) {
      const SegmentTable& from = *(part(outer, ulysses).*which);
      for (int64_t row = batch_head * from.query_blocks; row < (batch_head + 1) * from.query_blocks;
           ++row) {
        whole.kv_block.insert(whole.kv_block.end(), from.kv_block.begin() + from.row_offsets[row],
                              from.kv_block.begin() + from.row_offsets[row + 1]);
        whole.row_offsets.push_back(std::ssize(whole.kv_block));
      }
    });
    return whole;
  }

  QueryPruning pruning() const {
    const QueryPruning& first = *part(0, 0).pruning;
    QueryPruning whole;
    whole.batch = first.batch;
    whole.heads = first.heads * mesh_.ulysses;
    whole.token_offsets = whole.offsets = {0};
    std::vector<int64_t> first_token, first_row;  // of each outer rank's shard
    for (int outer = 0; outer < mesh_.outer; ++outer) {
      const QueryPruning& from = *part(outer, 0).pruning;
      first_token.push_back(whole.token_offsets.back());
      first_row.push_back(whole.offsets.back());
      for (int64_t block = 1; block <= from.query_blocks(); ++block) {
        whole.token_offsets.push_back(first_token.back() + from.token_offsets[block]);
        whole.offsets.push_back(first_row.back() + from.offsets[block]);
      }
    }
    const auto append = [](std::vector<int32_t>& to, const std::vector<int32_t>& from,
                           int64_t batch_head, int64_t count, int64_t shift) {
      for (int64_t i = batch_head * count; i < (batch_head + 1) * count; ++i) {
        to.push_back(from[i] < 0 ? from[i] : static_cast<int32_t>(from[i] + shift));
      }
    };
    for_each_batch_head(first.batch, first.heads, [&](int outer, int ulysses, int64_t batch_head) {
      const QueryPruning& from = *part(outer, ulysses).pruning;
      append(whole.rows, from.rows, batch_head, from.query_blocks(), 0);
      append(whole.kept, from.kept, batch_head, from.kept_rows(), first_token[outer]);
      append(whole.source, from.source, batch_head, from.tokens(), first_row[outer]);
    });
    return whole;
  }

  std::span<const LayerSelections> ranks_;
  parallel::MeshShape mesh_;
  size_t layer_;
};

}  // namespace

std::vector<LayerSelections> gather_selections(const parallel::Mesh& mesh,
                                               const LayerSelections& own) {
  comm::Communicator& world = mesh.world();
  Packed packed;
  for (const Selection& selection : own) put(packed, selection);
  const std::span<const uint8_t> bytes = packed.bytes();
  int64_t count = std::ssize(bytes);
  std::vector<int64_t> counts(world.size());
  world
      .all_gather(comm::Buffer::of(std::span(&count, 1)), comm::Buffer::of(std::span(counts)),
                  std::vector<int64_t>(world.size(), 1))
      .wait_host();
  const std::vector<uint8_t> all = gather_bytes(world, bytes, counts);
  if (world.rank() != 0) return {};

  std::vector<LayerSelections> ranks;
  int64_t offset = 0;
  for (const int64_t length : counts) {
    Packed part{std::span<const uint8_t>(all).subspan(offset, length)};
    offset += length;
    LayerSelections& layers = ranks.emplace_back();
    for (size_t layer = 0; layer < own.size(); ++layer) layers.push_back(take_selection(part));
  }
  std::vector<LayerSelections> whole;
  const int degree = mesh.shape().sequence();
  for (int replica = 0; replica < mesh.shape().data; ++replica) {
    LayerSelections& layers = whole.emplace_back();
    for (size_t layer = 0; layer < own.size(); ++layer) {
      layers.push_back(
          Parts(std::span(ranks).subspan(replica * degree, degree), mesh.shape(), layer).whole());
    }
  }
  return whole;
}

int64_t differing_rows(const SegmentTable& a, const SegmentTable& b) {
  SPROCKET_CHECK(a.rows() == b.rows(), "{} rows against {}", a.rows(), b.rows());
  int64_t count = 0;
  for (int64_t row = 0; row < a.rows(); ++row) {
    const auto of = [row](const SegmentTable& table) {
      return std::span(table.kv_block)
          .subspan(table.row_offsets[row], table.row_offsets[row + 1] - table.row_offsets[row]);
    };
    count += !std::ranges::equal(of(a), of(b));
  }
  return count;
}

}  // namespace sprocket::runtime
