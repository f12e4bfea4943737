#include "parallel/comm/mpi_group.h"

#include <algorithm>
#include <array>
#include <new>
#include <numeric>
#include <utility>

#include <fmt/format.h>

namespace sprocket::comm {
namespace {

constexpr int kAbortTag = 0;  // operations have tags from 1
constexpr size_t kReasonBytes = 1024;

}  // namespace

void check_mpi(int code, const char* call, int peer) {
  if (code == MPI_SUCCESS) return;
  std::array<char, MPI_MAX_ERROR_STRING> text{};
  int length = 0;
  MPI_Error_string(code, text.data(), &length);
  throw BackendError(fmt::format("{} failed: {}", call, std::string(text.data(), length)), peer);
}

MpiGroup::MpiGroup(MPI_Comm comm, std::shared_ptr<MpiGroup> parent, std::string name)
    : comm_(comm), parent_(std::move(parent)), name_(std::move(name)) {
  check_mpi(MPI_Comm_set_errhandler(comm_, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  int size = 0, found = 0;
  int* greatest = nullptr;
  check_mpi(MPI_Comm_rank(comm_, &rank_), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(comm_, &size), "MPI_Comm_size");
  check_mpi(MPI_Comm_get_attr(comm_, MPI_TAG_UB, &greatest, &found), "MPI_Comm_get_attr");
  greatest_tag_ = found ? *greatest : 32767;  // what the standard guarantees

  MPI_Group own = MPI_GROUP_NULL, world = MPI_GROUP_NULL;
  check_mpi(MPI_Comm_group(comm_, &own), "MPI_Comm_group");
  check_mpi(MPI_Comm_group(MPI_COMM_WORLD, &world), "MPI_Comm_group");
  std::vector<int> ranks(size);
  std::iota(ranks.begin(), ranks.end(), 0);
  world_ranks_.resize(size);
  const int code = MPI_Group_translate_ranks(own, size, ranks.data(), world, world_ranks_.data());
  MPI_Group_free(&own);
  MPI_Group_free(&world);
  check_mpi(code, "MPI_Group_translate_ranks");
}

MpiGroup::~MpiGroup() {
  int finalized = 0;
  MPI_Finalized(&finalized);
  // The peers of an aborted group may be gone: nothing collective, and its context is not used
  // again.
  const bool aborted = [&] {
    for (const MpiGroup* group = this; group; group = group->parent_.get()) {
      if (group->aborted_) return true;
    }
    return false;
  }();
  if (!finalized && !aborted) MPI_Comm_free(&comm_);
}

int MpiGroup::tag_of(int64_t channel) const {
  return static_cast<int>(1 + channel % greatest_tag_);
}

void MpiGroup::abort(const std::string& reason) noexcept {
  if (aborted_) return;
  aborted_ = Abort{reason, world_ranks_[rank_]};
  // Short enough to be sent without a handshake; the buffer stays for as long as the process, in
  // case a transport does wait.
  char* message = new (std::nothrow) char[kReasonBytes];
  if (message == nullptr) return;
  const size_t bytes = std::min(reason.size(), kReasonBytes);
  std::copy_n(reason.data(), bytes, message);
  for (int peer = 0; peer < size(); ++peer) {
    if (peer == rank_) continue;
    MPI_Request request = MPI_REQUEST_NULL;
    const int code =
        MPI_Isend(message, static_cast<int>(bytes), MPI_CHAR, peer, kAbortTag, comm_, &request);
    if (code == MPI_SUCCESS) MPI_Request_free(&request);
  }
}

void MpiGroup::look_for_abort() {
  int found = 0;
  MPI_Status status;
  check_mpi(MPI_Iprobe(MPI_ANY_SOURCE, kAbortTag, comm_, &found, &status), "MPI_Iprobe");
  if (!found) return;
  std::string reason(kReasonBytes, '\0');
  check_mpi(
      MPI_Recv(reason.data(), kReasonBytes, MPI_CHAR, status.MPI_SOURCE, kAbortTag, comm_, &status),
      "MPI_Recv", status.MPI_SOURCE);
  int bytes = 0;
  MPI_Get_count(&status, MPI_CHAR, &bytes);
  reason.resize(bytes);
  aborted_ = Abort{reason, world_ranks_[status.MPI_SOURCE]};
}

void MpiGroup::throw_if_aborted() {
  for (MpiGroup* group = this; group; group = group->parent_.get()) {
    if (!group->aborted_) group->look_for_abort();
    if (!group->aborted_) continue;
    const Abort& abort = *group->aborted_;
    const auto member = std::find(world_ranks_.begin(), world_ranks_.end(), abort.world_rank);
    throw BackendError(
        fmt::format("aborted by world rank {} through {}: {}", abort.world_rank, group->name_,
                    abort.reason),
        member == world_ranks_.end() ? -1 : static_cast<int>(member - world_ranks_.begin()));
  }
}

}  // namespace sprocket::comm
