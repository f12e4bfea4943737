// Who sends which KV blocks to whom, derived by every rank from the same need bitmaps.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/import_budget.h"
#include "kernels/segment_table.h"
#include "parallel/attention/outer_strategy.h"
#include "parallel/exchange_plan.h"

namespace sprocket::parallel {

// One bit for every (batch x head, block) of the whole sequence: does a rank's selection list it?
struct NeedBitmap {
  int64_t batch_heads = 0;
  int64_t blocks = 0;
  std::vector<uint8_t> bytes;  // bit (bh * blocks + block), least significant first

  NeedBitmap(int64_t batch_heads, int64_t blocks)
      : batch_heads(batch_heads), blocks(blocks), bytes((batch_heads * blocks + 7) / 8) {}
  bool get(int64_t batch_head, int64_t block) const {
    const int64_t bit = batch_head * blocks + block;
    return bytes[bit / 8] >> (bit % 8) & 1;
  }
  void set(int64_t batch_head, int64_t block) {
    const int64_t bit = batch_head * blocks + block;
    bytes[bit / 8] |= static_cast<uint8_t>(1u << (bit % 8));
  }
};

NeedBitmap needs_of(const kernels::SegmentTable& table);

// One KV block of one (batch, head) in a message.
struct SelectedEntry {
  int64_t batch_head = 0;
  int32_t block = 0;
  int32_t rows = 0;
  int64_t first_row = 0;  // among the K rows (and, separately, the V rows) of its message
  bool operator==(const SelectedEntry&) const = default;
};

// A message to or from a peer holds the K rows of its entries in (batch x head, block) order, then
// the V rows in the same order; head_dim elements a row.
struct SelectedPlan {
  std::vector<std::vector<SelectedEntry>> send, receive;  // by peer; the own rank's are empty
  std::vector<int64_t> send_rows, receive_rows;           // K rows of each message
  ExchangePlan exchange;
  bool operator==(const SelectedPlan&) const = default;
};

// The parts in which the blocks of a call are fetched, each by an exchange of its own: gradients of
// the first part travel home while those of the next are computed.
std::vector<kernels::HeadRange> fetch_groups(const StrategySpec& spec, int64_t batch_heads);

// The exchange of some heads. needs[r]: the bitmap of outer rank r.
SelectedPlan plan_selected_exchange(const OuterShards& shards, const std::vector<NeedBitmap>& needs,
                                    const kernels::HeadRange& heads, int64_t head_dim);

// Whether the ranks together need more than `share` of the rows that are remote to them: what a
// selected exchange saves is then not worth its packing by block. The same answer on every rank.
bool gathers_everything(const OuterShards& shards, const std::vector<NeedBitmap>& needs,
                        double share);

// By head, the needed remote (batch, block) pairs of a rank, and all its remote pairs: its
// coverage.
std::vector<kernels::Share> head_coverage(const OuterShards& shards, const NeedBitmap& need,
                                          int heads);

}  // namespace sprocket::parallel
