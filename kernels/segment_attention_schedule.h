// Hands out the work of one call to a team of threads, by listed pairs.
//
// A head is cut into groups of query tiles with about equally many listed pairs. Each thread takes
// a head for itself while there are heads left; then threads join heads at work. The forward's
// groups are independent. In the backward, ranges of KV blocks pass from group to group: a group
// stays behind the one before it, so that dK and dV are summed over ascending query tiles; a thread
// that would have to wait goes on with another group. Where the keys and their gradients exceed a
// share of the last-level cache, all groups go over one part of the keys before the next part.
// Which thread does what, and in which parts, never changes a sum.
#pragma once

#include <algorithm>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <span>

#include "kernels/segment_attention_heads.h"

namespace sprocket::kernels {

struct ScheduleExtent {
  HeadRange heads;
  int kv_blocks = 0;
  int64_t query_tiles = 0;  // of one head, at most
  int workers = 1;
  bool ordered = false;  // groups follow each other (backward)

  int heads_at_once() const { return static_cast<int>(std::min<int64_t>(heads.count(), workers)); }
};

class HeadSchedule {
 public:
  HeadSchedule(const ScheduleExtent& extent, WorkspaceArena& arena);

  // The heads that may be at work at once; filled by the caller before work.
  std::span<HeadWork*> heads() { return {heads_, static_cast<size_t>(extent_.heads_at_once())}; }

  // By every thread of a team; returns when nothing is left to hand out.
  void work(int worker);

 private:
  struct Group {
    int first_tile, last_tile;
    int done;  // ranges of KV blocks
    bool busy;
  };
  enum class Stage { kFree, kStarting, kLoading, kRunning };
  struct Slot {
    Stage stage;
    HeadWork* head;
    Group* groups;
    int group_count;
    int ranges;      // of KV blocks
    int together;    // ranges of one part
    int first_open;  // groups before are finished
    int next_block;  // to be loaded
    int loaded;
  };
  using Lock = std::unique_lock<std::mutex>;

  void start_head(Lock& lock, Slot& slot);
  void cut_groups(Slot& slot) const;
  void cut_keys(Slot& slot) const;
  bool run_in(Lock& lock, Slot& slot, int worker);
  void load(Lock& lock, Slot& slot, int worker);
  void run_group(Lock& lock, Slot& slot, int index, int worker);
  bool ready(const Slot& slot, int index) const;
  Slot* free_slot();
  bool may_need_help(const Slot& slot) const;
  int cut(const Slot& slot, int range) const;

  ScheduleExtent extent_;
  HeadWork** heads_;
  Slot* slots_;
  Group* groups_;  // [heads_at_once][query_tiles]
  int64_t next_head_;
  std::mutex mutex_;
  std::condition_variable changed_;
};

}  // namespace sprocket::kernels
