#include "parallel/comm/mpi_backend.h"

#include <algorithm>
#include <cstdlib>
#include <exception>
#include <thread>
#include <utility>

#include "base/error.h"
#include "base/exit_code.h"
#include "parallel/comm/exchange_backend.h"
#include "parallel/comm/missing_peers.h"
#include "parallel/comm/mpi_group.h"

namespace sprocket::comm {
namespace {

class MpiTransfer : public Operation {
 public:
  MpiTransfer(std::shared_ptr<MpiGroup> group, int64_t channel, size_t max_bytes,
              const std::vector<Message>& sends, const std::vector<Message>& receives)
      : group_(std::move(group)) {
    group_->throw_if_aborted();
    const int tag = group_->tag_of(channel);
    try {
      // Sends first: a receive whose message was announced already copies all of it from the peer's
      // memory inside MPI_Irecv, and the peer would wait so long to hear of the own send.
      for (const auto& message : sends) post(message, max_bytes, tag, true);
      for (const auto& message : receives) post(message, max_bytes, tag, false);
    } catch (const BackendError&) {
      withdraw();
      throw;
    }
    missing_.begin();
    completed_.resize(requests_.size());
    statuses_.resize(requests_.size());
  }

  ~MpiTransfer() override { withdraw(); }

  bool poll() override {
    int count = 0;
    const int code = MPI_Testsome(static_cast<int>(requests_.size()), requests_.data(), &count,
                                  completed_.data(), statuses_.data());
    if (code != MPI_SUCCESS && code != MPI_ERR_IN_STATUS) check_mpi(code, "MPI_Testsome");
    if (count == MPI_UNDEFINED) return true;
    for (int i = 0; i < count; ++i) {
      const Piece& piece = pieces_[completed_[i]];
      check_completed(piece, statuses_[i], code == MPI_ERR_IN_STATUS);
      missing_.remove(piece.peer);
    }
    if (count > 0) missing_.look();
    unfinished_ -= count;
    if (unfinished_ == 0) return true;
    waited_ = true;
    group_->throw_if_aborted();
    return false;
  }

  // Messages arrive only while MPI is called, so there is nothing to block on; where ranks share
  // cores, the others get theirs.
  void pause(Clock::time_point) override { std::this_thread::yield(); }

  Missing missing() const override {
    std::vector<int> peers;
    for (size_t i = 0; i < requests_.size(); ++i) {
      if (requests_[i] != MPI_REQUEST_NULL) peers.push_back(pieces_[i].peer);
    }
    return missing_ranks(std::move(peers));
  }

  LastPeer last_peer() const override { return waited_ ? missing_.last() : LastPeer{}; }

 private:
  struct Piece {
    int peer;
    int bytes;
    bool sends;
  };

  void post(const Message& message, size_t max_bytes, int tag, bool sends) {
    for (size_t done = 0; done < message.bytes; done += max_bytes) {
      const int bytes = static_cast<int>(std::min(max_bytes, message.bytes - done));
      char* const data = message.data + done;
      MPI_Request request = MPI_REQUEST_NULL;
      if (sends) {
        check_mpi(MPI_Isend(data, bytes, MPI_BYTE, message.peer, tag, group_->comm(), &request),
                  "MPI_Isend", message.peer);
      } else {
        check_mpi(MPI_Irecv(data, bytes, MPI_BYTE, message.peer, tag, group_->comm(), &request),
                  "MPI_Irecv", message.peer);
      }
      requests_.push_back(request);
      pieces_.push_back({message.peer, bytes, sends});
      missing_.add(message.peer);
      ++unfinished_;
    }
  }

  static void check_completed(const Piece& piece, const MPI_Status& status, bool errors_in_status) {
    if (errors_in_status && status.MPI_ERROR != MPI_SUCCESS) {
      int error_class = 0;
      MPI_Error_class(status.MPI_ERROR, &error_class);
      if (error_class == MPI_ERR_TRUNCATE) {
        throw BackendError(
            fmt::format("peer {} sent more than the expected {} bytes", piece.peer, piece.bytes),
            piece.peer);
      }
      check_mpi(status.MPI_ERROR, piece.sends ? "MPI_Isend" : "MPI_Irecv", piece.peer);
    }
    if (piece.sends) return;
    int bytes = 0;
    MPI_Get_count(&status, MPI_BYTE, &bytes);
    if (bytes != piece.bytes) {
      throw BackendError(
          fmt::format("peer {} sent {} bytes, expected {}", piece.peer, bytes, piece.bytes),
          piece.peer);
    }
  }

  // Only failed operations come here with open requests, and their group is aborted. Receives must
  // let go of the memory; one that does not ends the job, for its memory is about to be used
  // otherwise. Sends cannot be called back; their peers, told of the abort, take no more.
  void withdraw() noexcept {
    const auto deadline = Clock::now() + std::chrono::seconds(10);
    for (size_t i = 0; i < requests_.size(); ++i) {
      if (requests_[i] == MPI_REQUEST_NULL) continue;
      if (pieces_[i].sends) {
        MPI_Request_free(&requests_[i]);
        continue;
      }
      MPI_Cancel(&requests_[i]);
      for (int done = 0; !done;) {
        MPI_Test(&requests_[i], &done, MPI_STATUS_IGNORE);
        if (!done && Clock::now() >= deadline) {
          MPI_Abort(MPI_COMM_WORLD, static_cast<int>(ExitCode::kComm));
        }
      }
    }
  }

  const std::shared_ptr<MpiGroup> group_;
  std::vector<MPI_Request> requests_;
  std::vector<Piece> pieces_;
  std::vector<int> completed_;
  std::vector<MPI_Status> statuses_;
  int unfinished_ = 0;
  MissingPeers missing_;
  bool waited_ = false;  // not all was there at the first look
};

class MpiBackend : public ExchangeBackend {
 public:
  MpiBackend(std::shared_ptr<MpiGroup> group, const MpiOptions& options)
      : group_(std::move(group)), options_(options) {}

  int rank() const override { return group_->rank(); }
  int size() const override { return group_->size(); }
  const std::vector<int>& world_ranks() const override { return group_->world_ranks(); }

  Pending transfer(int64_t channel, std::vector<Message> sends,
                   std::vector<Message> receives) override {
    return std::make_unique<MpiTransfer>(group_, channel, options_.max_message_bytes, sends,
                                         receives);
  }

  void check() override { group_->throw_if_aborted(); }
  void abort(const std::string& reason) noexcept override { group_->abort(reason); }

 protected:
  std::unique_ptr<Backend> subgroup(const Call&, int colour, const Part& own,
                                    const std::string& name) override {
    MPI_Comm part = MPI_COMM_NULL;
    check_mpi(MPI_Comm_split(group_->comm(), colour, own.rank, &part), "MPI_Comm_split");
    return std::make_unique<MpiBackend>(std::make_shared<MpiGroup>(part, group_, name), options_);
  }

 private:
  const std::shared_ptr<MpiGroup> group_;
  const MpiOptions options_;
};

// Open MPI's TCP with its `put` protocol queues a long message as one piece, and the reply that the
// peer needs before it may send its own waits behind it: two ranks that exchange take turns, at
// half of the link's rate (bench/comm.py). In pieces of 128 KiB they do not. A setting of the
// user's stays.
void send_both_ways_over_tcp() {
  constexpr int kKeep = 0;
  setenv("OMPI_MCA_btl_tcp_flags", "send,inplace,need-ack,need-csum,hetero-rdma", kKeep);
}

}  // namespace

MpiSession::MpiSession(int* argc, char*** argv) : uncaught_at_birth_(std::uncaught_exceptions()) {
  send_both_ways_over_tcp();
  int provided = 0;
  MPI_Init_thread(argc, argv, MPI_THREAD_SERIALIZED, &provided);
  MPI_Comm_rank(MPI_COMM_WORLD, &rank_);
  MPI_Comm_size(MPI_COMM_WORLD, &size_);
  if (provided < MPI_THREAD_SERIALIZED) {
    MPI_Finalize();
    throw ConfigError(
        "MPI: expected a library built for MPI_THREAD_SERIALIZED, found one that "
        "allows one thread only");
  }
}

MpiSession::~MpiSession() {
  if (std::uncaught_exceptions() > uncaught_at_birth_)
    MPI_Abort(MPI_COMM_WORLD, static_cast<int>(ExitCode::kInternal));
  MPI_Finalize();
}

void MpiSession::abort_job(int exit_code) const {
  MPI_Abort(MPI_COMM_WORLD, exit_code);
  std::abort();
}

std::string mpi_library_version() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING];
  int length = 0;
  check_mpi(MPI_Get_library_version(text, &length), "MPI_Get_library_version");
  const std::string words(text, length);
  return words.substr(0, words.find_first_of(",\n"));
}

std::unique_ptr<Backend> make_mpi_backend(const MpiOptions& mpi) {
  int initialized = 0, finalized = 0;
  MPI_Initialized(&initialized);
  MPI_Finalized(&finalized);
  SPROCKET_CHECK(initialized && !finalized, "make_mpi_backend needs a living MpiSession");
  SPROCKET_CHECK(mpi.max_message_bytes >= 1 && mpi.max_message_bytes <= INT32_MAX,
                 "max_message_bytes: expected 1 to {}, found {}", INT32_MAX, mpi.max_message_bytes);
  MPI_Comm comm = MPI_COMM_NULL;
  check_mpi(MPI_Comm_dup(MPI_COMM_WORLD, &comm), "MPI_Comm_dup");
  return std::make_unique<MpiBackend>(std::make_shared<MpiGroup>(comm, nullptr, "world"), mpi);
}

std::unique_ptr<Communicator> make_mpi_world(const CommunicatorOptions& options,
                                             const MpiOptions& mpi) {
  try {
    return std::make_unique<Communicator>(make_mpi_backend(mpi), "world", options);
  } catch (const BackendError& error) {
    throw CommError({"world", "start-up"}, error.what());
  }
}

}  // namespace sprocket::comm
