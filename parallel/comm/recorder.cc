#include "parallel/comm/recorder.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>
#include <optional>
#include <type_traits>

#include "base/error.h"

namespace sprocket::comm {

const char* name_of(OpKind op) {
  switch (op) {
    case OpKind::kAllReduce:
      return "all_reduce";
    case OpKind::kAllGather:
      return "all_gather";
    case OpKind::kReduceScatter:
      return "reduce_scatter";
    case OpKind::kAllToAll:
      return "all_to_all";
    case OpKind::kBroadcast:
      return "broadcast";
    case OpKind::kExchange:
      return "exchange";
    case OpKind::kBarrier:
      return "barrier";
    case OpKind::kSplit:
      return "split";
  }
  return "?";
}

const char* name_of(OpState state) {
  switch (state) {
    case OpState::kEnqueued:
      return "enqueued";
    case OpState::kStarted:
      return "started";
    case OpState::kCompleted:
      return "completed";
    case OpState::kFailed:
      return "failed";
  }
  return "?";
}

namespace {

static_assert(std::is_trivially_copyable_v<OpRecord>);
constexpr size_t kWords = (sizeof(OpRecord) + 7) / 8;
using Words = std::array<uint64_t, kWords>;

// The words are atomic so that a torn read is no data race; the version tells that it was torn.
struct Slot {
  std::atomic<uint64_t> version{0};  // odd while being written
  std::atomic<uint64_t> ticket{UINT64_MAX};
  std::array<std::atomic<uint64_t>, kWords> words{};

  OpRecord load() const {
    Words copy;
    for (size_t i = 0; i < kWords; ++i) copy[i] = words[i].load(std::memory_order_acquire);
    OpRecord record;
    std::memcpy(static_cast<void*>(&record), copy.data(), sizeof(record));
    return record;
  }
  void store(uint64_t new_ticket, const OpRecord& record) {
    Words copy{};
    std::memcpy(copy.data(), &record, sizeof(record));
    const uint64_t before = version.load(std::memory_order_relaxed);
    version.store(before + 1, std::memory_order_relaxed);
    // Each release store keeps the odd version visible before any new word is.
    ticket.store(new_ticket, std::memory_order_release);
    for (size_t i = 0; i < kWords; ++i) words[i].store(copy[i], std::memory_order_release);
    version.store(before + 2, std::memory_order_release);
  }
};

}  // namespace

struct Recorder::Ring {
  Ring(size_t capacity, int ranks) : slots(capacity), sent_to(ranks) {}
  Slot& slot(uint64_t ticket) { return slots[ticket % slots.size()]; }

  // Null when the ring no longer holds the ticket.
  std::optional<OpRecord> read(uint64_t ticket) {
    const Slot& from = slot(ticket);
    for (;;) {
      const uint64_t before = from.version.load(std::memory_order_acquire);
      const uint64_t held = from.ticket.load(std::memory_order_acquire);
      const OpRecord record = from.load();
      const bool torn = before % 2 == 1 || from.version.load(std::memory_order_relaxed) != before;
      if (torn) continue;
      if (held != ticket) return std::nullopt;
      return record;
    }
  }

  std::vector<Slot> slots;
  std::atomic<uint64_t> next_ticket{0};
  std::atomic<int64_t> next_sequence{0};
  std::atomic<int64_t> bytes_sent{0}, bytes_received{0}, messages_sent{0};
  std::vector<std::atomic<int64_t>> sent_to;
};

namespace {

// Of a counter that this thread alone writes.
void add(std::atomic<int64_t>& counter, int64_t value) {
  counter.store(counter.load(std::memory_order_relaxed) + value, std::memory_order_relaxed);
}

}  // namespace

Recorder::Recorder(size_t capacity, int ranks) {
  SPROCKET_CHECK(capacity >= 1, "a recorder holds at least one operation, found {}", capacity);
  ring_ = std::make_unique<Ring>(capacity, ranks);
}

Recorder::~Recorder() = default;

uint64_t Recorder::begin(const OpRecord& record, std::span<const int64_t> sent_to) {
  SPROCKET_CHECK(sent_to.empty() || sent_to.size() == ring_->sent_to.size(),
                 "expected the bytes for {} ranks, found {}", ring_->sent_to.size(),
                 sent_to.size());
  const uint64_t ticket = ring_->next_ticket.load(std::memory_order_relaxed);
  ring_->slot(ticket).store(ticket, record);
  add(ring_->bytes_sent, record.bytes_sent);
  add(ring_->bytes_received, record.bytes_received);
  add(ring_->messages_sent, record.messages_sent);
  for (size_t peer = 0; peer < sent_to.size(); ++peer) add(ring_->sent_to[peer], sent_to[peer]);
  ring_->next_sequence.store(record.sequence + 1, std::memory_order_relaxed);
  ring_->next_ticket.store(ticket + 1, std::memory_order_release);
  return ticket;
}

void Recorder::start(uint64_t ticket, int64_t start_ns) {
  Slot& slot = ring_->slot(ticket);
  if (slot.ticket.load(std::memory_order_relaxed) != ticket) return;
  OpRecord record = slot.load();
  record.start_ns = start_ns;
  record.state = OpState::kStarted;
  slot.store(ticket, record);
}

void Recorder::complete(uint64_t ticket, int64_t end_ns, OpState state, const LastPeer& last) {
  Slot& slot = ring_->slot(ticket);
  if (slot.ticket.load(std::memory_order_relaxed) != ticket) return;
  OpRecord record = slot.load();
  record.end_ns = end_ns;
  record.state = state;
  record.last_peer = last.peer;
  record.last_alone_ns = std::min(last.alone_ns, end_ns - record.start_ns);
  slot.store(ticket, record);
}

void Recorder::complete(uint64_t ticket, const OperationSpan& span, int64_t observed_ns) {
  Slot& slot = ring_->slot(ticket);
  if (slot.ticket.load(std::memory_order_relaxed) != ticket) return;
  OpRecord record = slot.load();
  record.start_ns = std::clamp(span.start_ns, record.enqueue_ns, observed_ns);
  record.end_ns = std::clamp(span.end_ns, record.start_ns, observed_ns);
  record.state = OpState::kCompleted;
  slot.store(ticket, record);
}

std::vector<OpRecord> Recorder::since(int64_t first_sequence) const {
  const uint64_t last = ring_->next_ticket.load(std::memory_order_acquire);
  const uint64_t capacity = ring_->slots.size();
  const uint64_t oldest = last > capacity ? last - capacity : 0;
  // From the newest back: what the writer overwrites meanwhile are the oldest, so no gap comes
  // about.
  std::vector<OpRecord> records;
  for (uint64_t ticket = last; ticket-- > oldest;) {
    const auto record = ring_->read(ticket);
    if (!record || record->sequence < first_sequence) break;
    records.push_back(*record);
  }
  std::reverse(records.begin(), records.end());
  return records;
}

int64_t Recorder::next_sequence() const {
  return ring_->next_sequence.load(std::memory_order_relaxed);
}

Recorder::Totals Recorder::totals() const {
  return {ring_->bytes_sent.load(std::memory_order_relaxed),
          ring_->bytes_received.load(std::memory_order_relaxed),
          ring_->messages_sent.load(std::memory_order_relaxed),
          static_cast<int64_t>(ring_->next_ticket.load(std::memory_order_acquire))};
}

std::vector<int64_t> Recorder::sent_to() const {
  std::vector<int64_t> bytes;
  for (const auto& counter : ring_->sent_to) {
    bytes.push_back(counter.load(std::memory_order_relaxed));
  }
  return bytes;
}

}  // namespace sprocket::comm
