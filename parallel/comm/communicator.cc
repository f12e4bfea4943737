#include "parallel/comm/communicator.h"

#include <algorithm>
#include <exception>
#include <utility>

#include "base/error.h"
#include "parallel/comm/argument_checks.h"
#include "parallel/comm/group.h"
#include "parallel/comm/operation_traffic.h"

namespace sprocket::comm {
namespace {

// Numbers, records and starts an operation; `run` calls the backend. Whatever `run` throws from the
// backend becomes the CommError of this operation.
template <class Run>
auto numbered(Group& group, OpRecord record, const OperationTraffic& traffic, StreamView stream,
              Run&& run) {
  group.sweep_handed_over();
  record.bytes_sent = traffic.bytes_sent;
  record.bytes_received = traffic.bytes_received;
  record.messages_sent = traffic.messages_sent;
  record.volume_bytes = traffic.volume_bytes;
  const uint64_t ticket = traffic.bytes_sent > 0 ? group.recorder_.begin(record, group.sent_to_)
                                                 : group.recorder_.begin(record);
  const Call call{record.op, group.next_sequence_++, stream};
  const Timeline::Range range(group.options_.timeline, [&] {
    return fmt::format("{} {} #{}", group.name_, name_of(call.op), call.sequence);
  });
  try {
    return run(call, ticket);
  } catch (const BackendError& error) {
    group.recorder_.complete(ticket, monotonic_ns(), OpState::kFailed);
    throw group.failure(call, error.what(), error.peer());
  }
}

template <class Start>
Work start(const std::shared_ptr<Group>& group, OpKind op, DType dtype,
           const OperationTraffic& traffic, StreamView stream, Start&& run) {
  const std::string refusal = group->backend_->refusal(op, dtype, stream);
  SPROCKET_CHECK(refusal.empty(), "{} on communicator {}: {}", name_of(op), group->name_, refusal);
  return numbered(
      *group, group->new_record(op, dtype), traffic, stream,
      [&](const Call& call, uint64_t ticket) {
        group->recorder_.start(ticket, monotonic_ns());
        Pending pending = [&] {
          // A transport of the host may move all of it here; a device's only takes note.
          const Timeline::Scope scope(stream.is_host() ? group->options_.timeline : nullptr,
                                      Activity::kCommunicationWait, name_of(op));
          return run(call);
        }();
        if (!pending) {
          group->recorder_.complete(ticket, monotonic_ns(), OpState::kCompleted);
          return Work();
        }
        return Work(std::make_unique<Work::Impl>(group, call, ticket, std::move(pending)));
      });
}

CallSite site(const Group& group, OpKind op) {
  return {group.name_, group.rank(), group.size(), op};
}

int64_t element_bytes(const Buffer& buffer) { return static_cast<int64_t>(size_of(buffer.dtype)); }

}  // namespace

Communicator::Communicator(std::unique_ptr<Backend> backend, std::string name,
                           CommunicatorOptions options)
    : Communicator(std::make_shared<Group>(std::move(backend), std::move(name), options,
                                           std::make_shared<Unfinished>())) {}

Communicator::Communicator(std::shared_ptr<Group> group)
    : group_(std::move(group)), uncaught_at_birth_(std::uncaught_exceptions()) {}

Communicator::~Communicator() {
  if (std::uncaught_exceptions() > uncaught_at_birth_) {
    group_->backend_->abort("its communicator was destroyed while an exception unwound");
  }
}

int Communicator::rank() const { return group_->rank(); }
int Communicator::size() const { return group_->size(); }
const std::string& Communicator::name() const { return group_->name_; }
const CommunicatorOptions& Communicator::options() const { return group_->options_; }
const Recorder& Communicator::recorder() const { return group_->recorder_; }
const std::vector<int>& Communicator::member_world_ranks() const {
  return group_->backend_->world_ranks();
}

Work Communicator::all_reduce(Buffer inout, ReduceOp op, StreamView stream) {
  check_buffer(site(*group_, OpKind::kAllReduce), "the buffer", inout);
  return start(
      group_, OpKind::kAllReduce, inout.dtype,
      all_reduce_traffic(rank(), size(), inout.count, element_bytes(inout), group_->next_sent_to()),
      stream, [&](const Call& call) { return group_->backend_->all_reduce(call, inout, op); });
}

Work Communicator::all_gather(Buffer in, Buffer out, std::span<const int64_t> counts,
                              StreamView stream) {
  check_counts(site(*group_, OpKind::kAllGather), in, out, counts);
  return start(
      group_, OpKind::kAllGather, in.dtype,
      all_gather_traffic(rank(), counts, element_bytes(in), group_->next_sent_to()), stream,
      [&](const Call& call) { return group_->backend_->all_gather(call, in, out, counts); });
}

Work Communicator::reduce_scatter(Buffer in, Buffer out, std::span<const int64_t> counts,
                                  StreamView stream) {
  check_counts(site(*group_, OpKind::kReduceScatter), out, in, counts);
  return start(
      group_, OpKind::kReduceScatter, in.dtype,
      reduce_scatter_traffic(rank(), counts, element_bytes(in), group_->next_sent_to()), stream,
      [&](const Call& call) { return group_->backend_->reduce_scatter(call, in, out, counts); });
}

Work Communicator::all_to_all(Buffer in, Buffer out, StreamView stream) {
  check_all_to_all(site(*group_, OpKind::kAllToAll), in, out);
  return start(group_, OpKind::kAllToAll, in.dtype,
               all_to_all_traffic(rank(), size(), in.count / size(), element_bytes(in),
                                  group_->next_sent_to()),
               stream,
               [&](const Call& call) { return group_->backend_->all_to_all(call, in, out); });
}

Work Communicator::broadcast(Buffer inout, int root, StreamView stream) {
  const CallSite here = site(*group_, OpKind::kBroadcast);
  check_buffer(here, "the buffer", inout);
  check_root(here, root);
  return start(group_, OpKind::kBroadcast, inout.dtype,
               broadcast_traffic(rank(), size(), root, inout.count, element_bytes(inout),
                                 group_->next_sent_to()),
               stream,
               [&](const Call& call) { return group_->backend_->broadcast(call, inout, root); });
}

Work Communicator::exchange(Buffer send, std::span<const Segment> send_segments, Buffer receive,
                            std::span<const Segment> receive_segments, StreamView stream) {
  check_exchange(site(*group_, OpKind::kExchange), send, send_segments, receive, receive_segments);
  const bool sends = std::any_of(send_segments.begin(), send_segments.end(),
                                 [](const Segment& segment) { return segment.count > 0; });
  const DType dtype = sends ? send.dtype : receive.dtype;
  const auto element = static_cast<int64_t>(size_of(dtype));
  return start(
      group_, OpKind::kExchange, dtype,
      exchange_traffic(rank(), send_segments, receive_segments, element, group_->next_sent_to()),
      stream, [&](const Call& call) {
        return group_->backend_->exchange(call, send, send_segments, receive, receive_segments);
      });
}

void Communicator::barrier() {
  start(group_, OpKind::kBarrier, DType::kU8, {}, StreamView::host(), [&](const Call& call) {
    return group_->backend_->barrier(call);
  }).wait_host();
}

std::unique_ptr<Communicator> Communicator::split(int colour, int key, std::string name) {
  SPROCKET_CHECK(colour >= 0, "[rank {}/{} {}] split into {}: expected a colour >= 0, found {}",
                 rank(), size(), this->name(), name, colour);
  Group& parent = *group_;
  auto backend = numbered(parent, parent.new_record(OpKind::kSplit, DType::kU8), {},
                          StreamView::host(), [&](const Call& call, uint64_t ticket) {
                            parent.recorder_.start(ticket, monotonic_ns());
                            auto part = parent.backend_->split(
                                call, colour, key, name, [&](Operation& operation) {
                                  parent.await(operation, OpKind::kSplit, nullptr);
                                });
                            parent.recorder_.complete(ticket, monotonic_ns(), OpState::kCompleted);
                            return part;
                          });
  return std::unique_ptr<Communicator>(new Communicator(std::make_shared<Group>(
      std::move(backend), std::move(name), parent.options_, parent.unfinished_)));
}

void Communicator::progress() noexcept { group_->unfinished_->advance(nullptr); }

void Communicator::check() {
  progress();
  group_->sweep_handed_over();
  try {
    group_->backend_->check();
  } catch (const BackendError& error) {
    throw CommError({name(), "check", recorder().next_sequence(), rank(), size(), error.peer()},
                    error.what());
  }
}

void Communicator::abort(const std::string& reason) noexcept { group_->backend_->abort(reason); }

}  // namespace sprocket::comm
