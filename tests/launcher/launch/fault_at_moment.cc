// Linked into a second `sprocket`, in the way of a few of its functions (the linker's --wrap): at a
// moment of a step that no signal from outside can meet, something happens to this rank.
//
// FAULT_FOLDER names a folder; the file `rank2` in it says "MOMENT FAULT". A moment is the name of
// a phase that begins, or `all_reduce`, or `gradients`. What happens once takes the file away
// before.
//   kill     SIGKILL
//   throw    an exception
//   memory   no memory beyond what the process has, and an allocation
//   hoard    memory is taken and written to, until the kernel ends it
//   slow     a pause, every time
//   reorder  of all_reduce: a barrier of its group before it, which no other rank calls
//   stray    of all_reduce: a barrier of another group before it, which no other rank calls
//   nan      of gradients: they are no numbers, every time
#include <ATen/ops/empty.h>
#include <mpi.h>
#include <sys/resource.h>
#include <unistd.h>

#include <csignal>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <limits>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "base/timeline.h"
#include "parallel/comm/communicator.h"
#include "runtime/train/micro_batch.h"

namespace {

using sprocket::Phase;
using sprocket::PhaseScope;
using sprocket::Timeline;
namespace comm = sprocket::comm;
namespace parallel = sprocket::parallel;
namespace runtime = sprocket::runtime;

const std::string& plan_path() {
  static const std::string path = [] {
    const char* const folder = std::getenv("FAULT_FOLDER");
    const char* const rank = std::getenv("OMPI_COMM_WORLD_RANK");
    return folder && rank ? std::string(folder) + "/rank" + rank : std::string();
  }();
  return path;
}

// Empty: none.
std::string fault_at(std::string_view moment) {
  if (plan_path().empty()) return {};
  std::ifstream file(plan_path());
  std::string planned, fault;
  file >> planned >> fault;
  return planned == moment ? fault : std::string();
}

void take_plan_away() { std::filesystem::remove(plan_path()); }

void allocate_too_much() {
  constexpr int64_t kBytes = int64_t{1} << 36;
  constexpr rlim_t kSpare = rlim_t{1} << 26;
  const auto pages = [] {
    std::ifstream file("/proc/self/statm");
    rlim_t count = 0;
    file >> count;
    return count;
  }();
  rlimit limit = {};
  getrlimit(RLIMIT_AS, &limit);
  limit.rlim_cur = pages * static_cast<rlim_t>(sysconf(_SC_PAGESIZE)) + kSpare;
  setrlimit(RLIMIT_AS, &limit);
  at::empty({kBytes}, at::kByte);
}

void hoard() {
  constexpr size_t kBytes = size_t{1} << 22;
  std::vector<std::string> hoarded;
  for (;;) hoarded.emplace_back(kBytes, 'x');
}

void meet(std::string_view moment) {
  constexpr int kPauseMicroseconds = 300'000;
  const std::string fault = fault_at(moment);
  if (fault.empty()) return;
  if (fault == "slow") {
    usleep(kPauseMicroseconds);
    return;
  }
  take_plan_away();
  if (fault == "kill") ::kill(::getpid(), SIGKILL);
  if (fault == "throw") throw std::runtime_error("thrown on purpose");
  if (fault == "memory") allocate_too_much();
  if (fault == "hoard") hoard();
}

}  // namespace

extern "C" {
// NOLINTBEGIN: names of the linker
void __real__ZN8sprocket10PhaseScopeC1EPNS_8TimelineENS_5PhaseE(PhaseScope*, Timeline*, Phase);
void __wrap__ZN8sprocket10PhaseScopeC1EPNS_8TimelineENS_5PhaseE(PhaseScope* self,
                                                                Timeline* timeline, Phase phase) {
  meet(name_of(phase));
  __real__ZN8sprocket10PhaseScopeC1EPNS_8TimelineENS_5PhaseE(self, timeline, phase);
}

comm::Work
__real__ZN8sprocket4comm12Communicator10all_reduceENS0_6BufferENS0_8ReduceOpENS_10StreamViewE(
    comm::Communicator*, comm::Buffer, comm::ReduceOp, sprocket::StreamView);
comm::Work
__wrap__ZN8sprocket4comm12Communicator10all_reduceENS0_6BufferENS0_8ReduceOpENS_10StreamViewE(
    comm::Communicator* self, comm::Buffer inout, comm::ReduceOp op, sprocket::StreamView stream) {
  const std::string fault = self->size() > 1 ? fault_at("all_reduce") : std::string();
  if (!fault.empty()) take_plan_away();
  if (fault == "reorder") self->barrier();
  if (fault == "stray") MPI_Barrier(MPI_COMM_WORLD);
  return __real__ZN8sprocket4comm12Communicator10all_reduceENS0_6BufferENS0_8ReduceOpENS_10StreamViewE(
      self, inout, op, stream);
}

runtime::PassOutcome
__real__ZN8sprocket7runtime16forward_backwardERNS0_7NetworkERKNS0_10MicroBatchEllSt4spanIKNS_8parallel9SelectionELm18446744073709551615EE(
    runtime::Network&, const runtime::MicroBatch&, int64_t, int64_t,
    std::span<const parallel::Selection>);
runtime::PassOutcome
__wrap__ZN8sprocket7runtime16forward_backwardERNS0_7NetworkERKNS0_10MicroBatchEllSt4spanIKNS_8parallel9SelectionELm18446744073709551615EE(
    runtime::Network& network, const runtime::MicroBatch& batch, int64_t step, int64_t samples,
    std::span<const parallel::Selection> selections) {
  auto outcome =
      __real__ZN8sprocket7runtime16forward_backwardERNS0_7NetworkERKNS0_10MicroBatchEllSt4spanIKNS_8parallel9SelectionELm18446744073709551615EE(
          network, batch, step, samples, selections);
  if (fault_at("gradients") == "nan") {
    network.parameters().flat_gradients().fill_(std::numeric_limits<double>::quiet_NaN());
  }
  return outcome;
}
// NOLINTEND
}
