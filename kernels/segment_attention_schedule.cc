#include "kernels/segment_attention_schedule.h"

#include <algorithm>

namespace sprocket::kernels {
namespace {

constexpr int kGroupsPerWorker = 16;
constexpr int kKeyRangesPerWorker = 8;
constexpr int kMaxKeyRanges = 64;
constexpr int kLoadedTogether = 8;  // KV blocks
constexpr int64_t kPartBytes = int64_t{12} << 20;
// Each part packs the query tiles once more, which as many pairs have to pay for.
constexpr int64_t kPairsPerPart = 10;

}  // namespace

HeadSchedule::HeadSchedule(const ScheduleExtent& extent, WorkspaceArena& arena)
    : extent_(extent),
      heads_(arena.take<HeadWork*>(extent.heads_at_once())),
      slots_(arena.take<Slot>(extent.heads_at_once())),
      groups_(arena.take<Group>(extent.heads_at_once() * extent.query_tiles)),
      next_head_(extent.heads.first) {
  if (slots_ == nullptr) return;
  std::fill_n(slots_, extent.heads_at_once(), Slot{});
  std::fill_n(heads_, extent.heads_at_once(), nullptr);
}

void HeadSchedule::work(int worker) {
  Lock lock(mutex_);
  Slot* mine = nullptr;
  const auto run_something = [&] {
    if (mine != nullptr && run_in(lock, *mine, worker)) return true;
    if (Slot* const slot = free_slot(); next_head_ < extent_.heads.last && slot != nullptr) {
      mine = slot;
      start_head(lock, *slot);
      return true;
    }
    for (Slot* slot = slots_; slot != slots_ + extent_.heads_at_once(); ++slot) {
      if (run_in(lock, *slot, worker)) {
        mine = slot;
        return true;
      }
    }
    return false;
  };
  for (;;) {
    if (run_something()) continue;
    const bool needed = next_head_ < extent_.heads.last ||
                        std::any_of(slots_, slots_ + extent_.heads_at_once(),
                                    [this](const Slot& slot) { return may_need_help(slot); });
    if (!needed) return;
    changed_.wait(lock);
  }
}

HeadSchedule::Slot* HeadSchedule::free_slot() {
  Slot* const end = slots_ + extent_.heads_at_once();
  Slot* const found =
      std::find_if(slots_, end, [](const Slot& slot) { return slot.stage == Stage::kFree; });
  return found == end ? nullptr : found;
}

// Once false it stays false: groups that others are at work on remain theirs.
bool HeadSchedule::may_need_help(const Slot& slot) const {
  if (slot.stage == Stage::kFree) return false;
  if (slot.stage != Stage::kRunning) return true;
  return std::any_of(slot.groups + slot.first_open, slot.groups + slot.group_count,
                     [&](const Group& group) { return !group.busy && group.done < slot.ranges; });
}

void HeadSchedule::start_head(Lock& lock, Slot& slot) {
  const int64_t index = &slot - slots_;
  slot = {Stage::kStarting, heads_[index], groups_ + index * extent_.query_tiles, 0, 1, 1, 0, 0, 0};
  const int64_t batch_head = next_head_++;
  lock.unlock();
  slot.head->begin(batch_head);
  cut_groups(slot);
  if (extent_.ordered) cut_keys(slot);
  lock.lock();
  slot.stage = slot.group_count == 0    ? Stage::kFree
               : extent_.kv_blocks == 0 ? Stage::kRunning
                                        : Stage::kLoading;
  changed_.notify_all();
}

void HeadSchedule::cut_groups(Slot& slot) const {
  const auto tiles = slot.head->plan().query_tiles();
  int64_t total = 0;
  for (const QueryTile& tile : tiles) total += tile.weight;
  const int64_t sharing = (extent_.workers + extent_.heads.count() - 1) / extent_.heads.count();
  const int64_t most = extent_.workers == 1 ? total : total / (kGroupsPerWorker * sharing);
  int64_t weight = 0;
  for (int i = 0; i < static_cast<int>(tiles.size()); ++i) {
    Group* const last = slot.groups + slot.group_count - 1;
    const bool joins = slot.group_count > 0 && weight + tiles[i].weight <= most &&
                       i - last->first_tile < slot.head->group_tiles();
    if (joins) {
      last->last_tile = i + 1;
      weight += tiles[i].weight;
    } else {
      slot.groups[slot.group_count++] = {i, i + 1, 0, false};
      weight = tiles[i].weight;
    }
  }
}

void HeadSchedule::cut_keys(Slot& slot) const {
  int64_t weight = 0, columns = 1;
  for (const QueryTile& tile : slot.head->plan().query_tiles()) {
    weight += tile.weight;
    columns += tile.columns;
  }
  const int64_t pairs = weight / columns / kTileRows;  // of a query tile
  const int64_t wanted = slot.head->key_bytes() / kPartBytes + 1;
  const int parts = static_cast<int>(std::clamp<int64_t>(pairs / kPairsPerPart, 1, wanted));
  const int ranges = extent_.workers == 1 ? parts : kKeyRangesPerWorker * extent_.workers;
  const int most = std::clamp(extent_.kv_blocks, 1, kMaxKeyRanges);
  slot.together = std::max(1, std::min(ranges, most) / parts);
  slot.ranges = std::min(slot.together * parts, std::max(1, extent_.kv_blocks));
}

bool HeadSchedule::run_in(Lock& lock, Slot& slot, int worker) {
  switch (slot.stage) {
    case Stage::kFree:
    case Stage::kStarting:
      return false;
    case Stage::kLoading:
      if (slot.next_block == extent_.kv_blocks) return false;
      load(lock, slot, worker);
      return true;
    case Stage::kRunning: {
      int next = -1, next_part = slot.ranges;
      for (int i = slot.first_open; i < slot.group_count; ++i) {
        const int part = slot.groups[i].done / slot.together;
        if (part >= next_part || slot.groups[i].busy || !ready(slot, i)) continue;
        next = i;
        next_part = part;
      }
      if (next < 0) return false;
      run_group(lock, slot, next, worker);
      return true;
    }
  }
  return false;
}

void HeadSchedule::load(Lock& lock, Slot& slot, int worker) {
  const int first = slot.next_block;
  const int last = std::min(first + kLoadedTogether, extent_.kv_blocks);
  slot.next_block = last;
  lock.unlock();
  slot.head->load_keys(first, last, worker);
  lock.lock();
  slot.loaded += last - first;
  if (slot.loaded < extent_.kv_blocks) return;
  slot.stage = Stage::kRunning;
  changed_.notify_all();
}

bool HeadSchedule::ready(const Slot& slot, int index) const {
  const Group& group = slot.groups[index];
  if (group.done == slot.ranges) return false;
  return !extent_.ordered || index == 0 || slot.groups[index - 1].done > group.done;
}

// Through a part of the keys, as far as the group before allows.
void HeadSchedule::run_group(Lock& lock, Slot& slot, int index, int worker) {
  Group& group = slot.groups[index];
  group.busy = true;
  do {
    const Cell cell{group.first_tile, group.last_tile, cut(slot, group.done),
                    cut(slot, group.done + 1)};
    lock.unlock();
    slot.head->run(cell, worker);
    lock.lock();
    ++group.done;
    changed_.notify_all();
  } while (group.done % slot.together != 0 && ready(slot, index));
  group.busy = false;
  while (slot.first_open < slot.group_count && slot.groups[slot.first_open].done == slot.ranges) {
    ++slot.first_open;
  }
  if (slot.first_open == slot.group_count) slot.stage = Stage::kFree;
}

int HeadSchedule::cut(const Slot& slot, int range) const {
  return static_cast<int>(int64_t{extent_.kv_blocks} * range / slot.ranges);
}

}  // namespace sprocket::kernels
