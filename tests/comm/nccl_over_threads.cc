#include "tests/comm/nccl_over_threads.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <mutex>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "base/error.h"
#include "base/timeline.h"
#include "parallel/comm/thread_backend.h"

namespace sprocket::comm::testing {

// Where the ranks of a communicator find one another.
class ThreadDevices::Meetings {
 public:
  using Bytes = std::vector<char>;

  // What the ranks of one communicator share.
  class World {
   public:
    explicit World(int size) : ranks_(make_thread_world(size, {})) {}

    // The collectives' way, one for each rank.
    std::unique_ptr<Communicator> take(int rank) {
      const std::lock_guard lock(mutex_);
      return std::move(ranks_[rank]);
    }
    void send(int from, int to, Bytes bytes) {
      const std::lock_guard lock(mutex_);
      mail_[{from, to}].push_back(std::move(bytes));
    }
    bool receive(int from, int to, void* data, size_t bytes) {
      const std::lock_guard lock(mutex_);
      auto& box = mail_[{from, to}];
      if (box.empty()) return false;
      EXPECT_EQ(box.front().size(), bytes) << "from rank " << from << " to rank " << to;
      std::memcpy(data, box.front().data(), std::min(bytes, box.front().size()));
      box.pop_front();
      return true;
    }

   private:
    std::mutex mutex_;
    std::vector<std::unique_ptr<Communicator>> ranks_;
    std::map<std::pair<int, int>, std::deque<Bytes>> mail_;
  };

  NcclUniqueId next_id() {
    const std::lock_guard lock(mutex_);
    NcclUniqueId id;
    const int number = ++ids_;
    std::memcpy(id.bytes.data(), &number, sizeof(number));
    return id;
  }
  std::shared_ptr<World> join(const NcclUniqueId& id, int size) {
    const std::lock_guard lock(mutex_);
    auto& world = worlds_[std::string(id.bytes.data(), id.bytes.size())];
    if (!world) world = std::make_shared<World>(size);
    return world;
  }

 private:
  std::mutex mutex_;
  int ids_ = 0;
  std::map<std::string, std::shared_ptr<World>> worlds_;
};

// The streams of one rank.
class ThreadDevices::Device {
 public:
  // True once done; called again while it is not.
  using Step = std::function<bool()>;
  struct Stream {
    std::deque<Step> steps;
  };
  // A record of an event; the event has the newest one.
  struct Record {
    bool reached = false;
    int64_t ns = 0;
  };
  struct Event {
    std::shared_ptr<Record> record;
  };

  Device() : caller_(make_stream()) {}

  Stream* make_stream() {
    streams_.push_back(std::make_unique<Stream>());
    return streams_.back().get();
  }
  void drop(const Stream* stream) {
    drain();
    std::erase_if(streams_, [&](const auto& other) { return other.get() == stream; });
  }
  Stream* caller() const { return caller_; }

  // Every stream goes as far as it can.
  void advance() {
    for (size_t i = 0; i < streams_.size(); ++i) {
      auto& steps = streams_[i]->steps;
      while (!steps.empty() && steps.front()()) steps.pop_front();
    }
  }

  // Until nothing is left to do on any stream, or on one.
  void drain(const Stream* only = nullptr) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    const auto busy = [&](const auto& stream) {
      return !stream->steps.empty() && (!only || only == stream.get());
    };
    while (std::any_of(streams_.begin(), streams_.end(), busy)) {
      advance();
      SPROCKET_CHECK(std::chrono::steady_clock::now() < deadline, "a stream hangs");
    }
  }

 private:
  std::vector<std::unique_ptr<Stream>> streams_;
  Stream* const caller_;
};

class ThreadDevices::Nccl : public NcclApi {
 public:
  Nccl(std::shared_ptr<Meetings> meetings, std::shared_ptr<Device> device)
      : meetings_(std::move(meetings)), device_(std::move(device)) {}

  int get_unique_id(NcclUniqueId* id) override {
    *id = meetings_->next_id();
    return kNcclSuccess;
  }
  int comm_init(Comm* comm, int size, const NcclUniqueId& id, int rank,
                const NcclCommConfig&) override {
    auto state = std::make_shared<State>();
    state->rank = rank;
    state->world = meetings_->join(id, size);
    state->collectives = state->world->take(rank);
    states_[state.get()] = state;
    *comm = state.get();
    return kNcclInProgress;
  }
  int comm_get_async_error(Comm comm, int* code) override {
    device_->advance();
    *code = kNcclSuccess;
    return states_.count(comm) ? kNcclSuccess : kInvalidArgument;
  }
  int comm_finalize(Comm comm) override {
    return states_.count(comm) ? kNcclSuccess : kInvalidArgument;
  }
  int comm_destroy(Comm comm) override {
    return states_.erase(comm) ? kNcclSuccess : kInvalidArgument;
  }
  int comm_abort(Comm comm) override {
    const auto found = states_.find(comm);
    if (found == states_.end()) return kInvalidArgument;
    found->second->aborted = true;
    found->second->collectives->abort("aborted");
    states_.erase(found);
    device_->advance();
    return kNcclSuccess;
  }

  int group_start() override {
    EXPECT_TRUE(sends_.empty() && receives_.empty() && rest_.empty()) << "a group within a group";
    open_ = true;
    return kNcclSuccess;
  }
  // A group is one kernel: all its messages are under way at once.
  int group_end() override {
    open_ = false;
    if (!sends_.empty() || !receives_.empty()) {
      Device::Stream* const stream = p2p_stream_;
      auto sends = std::exchange(sends_, {});
      auto receives = std::exchange(receives_, {});
      stream->steps.push_back([sends = std::move(sends), receives = std::move(receives)]() mutable {
        for (auto& send : sends) send();
        sends.clear();
        std::erase_if(receives, [](const auto& receive) { return receive(); });
        return receives.empty();
      });
    }
    for (auto& [stream, step] : std::exchange(rest_, {})) stream->steps.push_back(std::move(step));
    return kNcclInProgress;
  }
  int send(const void* data, size_t bytes, int peer, Comm comm, void* stream) override {
    return enqueue(comm, [&](const std::shared_ptr<State>& state) {
      p2p_stream_ = static_cast<Device::Stream*>(stream);
      sends_.push_back([=] {
        if (state->aborted) return;
        const auto* from = static_cast<const char*>(data);
        state->world->send(state->rank, peer, {from, from + bytes});
      });
    });
  }
  int receive(void* data, size_t bytes, int peer, Comm comm, void* stream) override {
    return enqueue(comm, [&](const std::shared_ptr<State>& state) {
      p2p_stream_ = static_cast<Device::Stream*>(stream);
      receives_.push_back(
          [=] { return state->aborted || state->world->receive(peer, state->rank, data, bytes); });
    });
  }
  int broadcast(void* data, size_t bytes, int root, Comm comm, void* stream) override {
    return collective(comm, stream, [=](Communicator& group) {
      return group.broadcast({data, static_cast<int64_t>(bytes), DType::kU8}, root);
    });
  }
  int all_gather(const void* in, void* out, size_t bytes, Comm comm, void* stream) override {
    return collective(comm, stream, [=](Communicator& group) {
      const auto count = static_cast<int64_t>(bytes);
      const std::vector<int64_t> counts(group.size(), count);
      return group.all_gather({const_cast<void*>(in), count, DType::kU8},
                              {out, count * group.size(), DType::kU8}, counts);
    });
  }
  int all_reduce(void* data, size_t count, DType dtype, ReduceOp op, Comm comm,
                 void* stream) override {
    return collective(comm, stream, [=](Communicator& group) {
      return group.all_reduce({data, static_cast<int64_t>(count), dtype}, op);
    });
  }
  int reduce_scatter(const void* in, void* out, size_t count, DType dtype, Comm comm,
                     void* stream) override {
    return collective(comm, stream, [=](Communicator& group) {
      const std::vector<int64_t> counts(group.size(), static_cast<int64_t>(count));
      return group.reduce_scatter(
          {const_cast<void*>(in), static_cast<int64_t>(count) * group.size(), dtype},
          {out, static_cast<int64_t>(count), dtype}, counts);
    });
  }
  int reduce(const void* in, void* out, size_t count, DType dtype, int root, Comm comm,
             void* stream) override {
    return collective(comm, stream, [=](Communicator& group) {
      std::vector<int64_t> counts(group.size(), 0);
      counts[root] = static_cast<int64_t>(count);
      return group.reduce_scatter({const_cast<void*>(in), counts[root], dtype},
                                  {out, counts[group.rank()], dtype}, counts);
    });
  }
  std::string error_text(int code, Comm) override { return "code " + std::to_string(code); }

 private:
  static constexpr int kInvalidArgument = 4;

  struct State {
    int rank = 0;
    bool aborted = false;
    std::shared_ptr<Meetings::World> world;
    std::unique_ptr<Communicator> collectives;
  };

  template <class Add>
  int enqueue(Comm comm, Add&& add) {
    EXPECT_TRUE(open_) << "outside of a group";
    const auto found = states_.find(comm);
    if (found == states_.end()) return kInvalidArgument;
    add(found->second);
    return kNcclInProgress;
  }

  template <class Start>
  int collective(Comm comm, void* stream, Start start) {
    return enqueue(comm, [&](const std::shared_ptr<State>& state) {
      auto work = std::make_shared<Work>();
      rest_.push_back({static_cast<Device::Stream*>(stream), [=, begun = false]() mutable {
                         if (state->aborted) return true;
                         try {
                           if (!std::exchange(begun, true)) *work = start(*state->collectives);
                           if (!work->done()) return false;
                           work->wait_host();
                           return true;
                         } catch (const CommError&) {
                           return state->aborted;
                         }
                       }});
    });
  }

  const std::shared_ptr<Meetings> meetings_;
  const std::shared_ptr<Device> device_;
  std::map<Comm, std::shared_ptr<State>> states_;
  bool open_ = false;
  Device::Stream* p2p_stream_ = nullptr;
  std::vector<std::function<void()>> sends_;
  std::vector<std::function<bool()>> receives_;
  std::vector<std::pair<Device::Stream*, Device::Step>> rest_;
};

class ThreadDevices::Cuda : public CudaApi {
 public:
  explicit Cuda(std::shared_ptr<Device> device) : device_(std::move(device)) {}

  int set_device(int) override { return kCudaSuccess; }
  int create_stream(void** stream, StreamPriority) override {
    *stream = device_->make_stream();
    return kCudaSuccess;
  }
  int destroy_stream(void* stream) override {
    device_->drop(native(stream));
    return kCudaSuccess;
  }
  int create_event(void** event) override {
    *event = new Device::Event;
    return kCudaSuccess;
  }
  int destroy_event(void* event) override {
    delete static_cast<Device::Event*>(event);
    return kCudaSuccess;
  }
  int record(void* event, void* stream) override {
    const auto record = std::make_shared<Device::Record>();
    static_cast<Device::Event*>(event)->record = record;
    native(stream)->steps.push_back([=] {
      *record = {true, monotonic_ns()};
      return true;
    });
    return kCudaSuccess;
  }
  int stream_wait(void* stream, void* event) override {
    native(stream)->steps.push_back(
        [record = static_cast<Device::Event*>(event)->record] { return record->reached; });
    return kCudaSuccess;
  }
  int query(void* event) override {
    device_->advance();
    return static_cast<Device::Event*>(event)->record->reached ? kCudaSuccess : kCudaNotReady;
  }
  int time_of(void* event, int64_t* ns) override {
    const Device::Record& record = *static_cast<Device::Event*>(event)->record;
    EXPECT_TRUE(record.reached);
    *ns = record.ns;
    return kCudaSuccess;
  }
  int copy(void* to, const void* from, size_t bytes, void* stream) override {
    native(stream)->steps.push_back([=] {
      std::memcpy(to, from, bytes);
      return true;
    });
    return kCudaSuccess;
  }
  int allocate(void** memory, size_t bytes) override {
    *memory = ::operator new(bytes);
    return kCudaSuccess;
  }
  int release(void* memory) override {
    ::operator delete(memory);
    return kCudaSuccess;
  }
  std::string error_text(int code) override { return "code " + std::to_string(code); }

 private:
  static Device::Stream* native(void* stream) { return static_cast<Device::Stream*>(stream); }
  const std::shared_ptr<Device> device_;
};

class ThreadDevices::Memory : public TestMemory {
 public:
  explicit Memory(std::shared_ptr<Device> device) : device_(std::move(device)) {}

  StreamView stream() const override { return StreamView::cuda(device_->caller()); }
  void* allocate(size_t bytes) override {
    void* const memory = ::operator new(bytes);
    std::memset(memory, kPoison, bytes);
    return memory;
  }
  void release(void* memory) noexcept override {
    device_->drain();
    ::operator delete(memory);
  }
  void write(void* memory, const void* from, size_t bytes) override {
    const auto* begin = static_cast<const char*>(from);
    Meetings::Bytes staged(begin, begin + bytes);
    device_->caller()->steps.push_back([=, late = kLate]() mutable {
      if (late-- > 0) return false;
      std::memcpy(memory, staged.data(), bytes);
      return true;
    });
  }
  void read(void* to, const void* memory, size_t bytes) override {
    device_->drain(device_->caller());
    std::memcpy(to, memory, bytes);
  }
  bool reduces(DType dtype) const override { return nccl_reduces(dtype); }
  bool reduces_in_rank_order() const override { return false; }
  bool knows_its_peers() const override { return false; }

 private:
  static constexpr int kLate = 5;  // looks at the stream before what was written is there
  static constexpr int kPoison = 0xCD;
  const std::shared_ptr<Device> device_;
};

ThreadDevices::ThreadDevices() : meetings_(std::make_shared<Meetings>()) {}
ThreadDevices::~ThreadDevices() = default;

ThreadDevices::Rank ThreadDevices::make_rank() {
  auto device = std::make_shared<Device>();
  return {{std::make_shared<Nccl>(meetings_, device), std::make_shared<Cuda>(device)},
          std::make_unique<Memory>(device)};
}

}  // namespace sprocket::comm::testing
