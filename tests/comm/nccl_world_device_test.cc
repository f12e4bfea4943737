// The common bodies over NCCL and device memory, under mpirun. Every rank has a device of its own
// where there are enough of them; else ranks share one.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>
#include <mpi.h>

#include <cstdio>
#include <cstdlib>
#include <string>

#include "base/cuda_stream.h"
#include "base/error.h"
#include "parallel/comm/mpi_backend.h"
#include "parallel/comm/nccl_backend.h"
#include "tests/comm/communicator_bodies.h"
#include "tests/comm/device_memory.h"
#include "tests/mpi_tests.h"

namespace sprocket::comm::testing {
namespace {

using namespace std::chrono_literals;

constexpr int kNoDevice = 77;

struct Placement {
  int device = 0;
  bool shared = false;
};

// NCCL refuses two ranks of one host on one device, so ranks that share one say that they are of
// different hosts, and meet over the loopback. Before NCCL's first call, which reads these.
void pretend_to_be_a_host_of_its_own(int rank) {
  const std::string host = "sprocket-test-rank-" + std::to_string(rank);
  const std::pair<const char*, const char*> settings[] = {
      {"NCCL_HOSTID", host.c_str()}, {"NCCL_NET", "Socket"},     {"NCCL_SOCKET_IFNAME", "lo"},
      {"NCCL_IB_DISABLE", "1"},      {"NCCL_MNNVL_ENABLE", "0"}, {"NCCL_RAS_ENABLE", "0"}};
  for (const auto& [name, value] : settings) setenv(name, value, 1);
}

Placement place() {
  MPI_Comm node = MPI_COMM_NULL;
  MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node);
  int rank = 0, local = 0, ranks = 1, devices = 0;
  MPI_Comm_rank(MPI_COMM_WORLD, &rank);
  MPI_Comm_rank(node, &local);
  MPI_Comm_size(node, &ranks);
  MPI_Comm_free(&node);
  check_cuda(cudaGetDeviceCount(&devices), "cudaGetDeviceCount");
  const Placement placement{local % devices, ranks > devices};
  if (placement.shared) pretend_to_be_a_host_of_its_own(rank);
  check_cuda(cudaSetDevice(placement.device), "cudaSetDevice");
  return placement;
}

const Placement& placement() {
  static const Placement placement = place();
  return placement;
}

CommunicatorOptions options(std::chrono::milliseconds timeout = 120s) {
  CommunicatorOptions options;
  options.timeout = timeout;
  return options;
}

std::unique_ptr<Communicator> make_world(std::chrono::milliseconds timeout = 120s) {
  NcclOptions nccl;
  nccl.device = placement().device;
  nccl.timeout = 120s;
  if (placement().shared) nccl.max_ctas = 2;  // all ranks' kernels have to be resident at once
  return make_nccl_communicator(make_mpi_world(options()), nccl, options(timeout));
}

TEST(NcclWorld, SaysWhatItRunsOn) {
  cudaDeviceProp properties;
  check_cuda(cudaGetDeviceProperties(&properties, placement().device), "cudaGetDeviceProperties");
  const auto world = make_world();
  RecordProperty("device", properties.name);
  RecordProperty("ranks", world->size());
  RecordProperty("shared", placement().shared ? "yes" : "no");
  if (world->rank() == 0) {
    std::printf("%d ranks, %s\n", world->size(),
                placement().shared ? "which share a device" : "each on a device of its own");
  }
}

TEST(NcclWorld, EveryBody) {
  const auto world = make_world();
  const auto memory = make_device_memory();
  for (const auto& body : communicator_bodies(*memory)) {
    SCOPED_TRACE(body.name);
    body.run(*world);
    ASSERT_FALSE(HasFatalFailure());
  }
}

// Twice, as start-up and end happen in a job that splits its world again and again.
TEST(NcclWorld, StartsAgainAfterAnOrderlyEnd) {
  const auto memory = make_device_memory();
  for (int i = 0; i < 2; ++i) {
    const auto world = make_world();
    Values<float> sums(*memory, 100, 1.0f);
    world->all_reduce(sums.buffer(), ReduceOp::kSum, memory->stream()).wait_host();
    EXPECT_EQ(sums.read()[99], world->size());
  }
}

TEST(NcclWorld, EveryAbortingBody) {
  const auto control = make_mpi_world(options());
  const auto memory = make_device_memory();
  for (const auto& body : aborting_bodies(*memory)) {
    SCOPED_TRACE(body.name);
    control->barrier();
    body.run(*make_world(body.timeout));
    ASSERT_FALSE(HasFatalFailure());
  }
  control->barrier();
}

}  // namespace
}  // namespace sprocket::comm::testing

// Without a device the ranks end before they have met, so that nobody waits for anybody.
int main(int argc, char** argv) {
  int devices = 0;
  const cudaError_t code = cudaGetDeviceCount(&devices);
  if (code != cudaSuccess || devices == 0) {
    std::fprintf(stderr, "no CUDA device: cudaGetDeviceCount found %d devices and says \"%s\"\n",
                 devices, cudaGetErrorString(code));
    return sprocket::comm::testing::kNoDevice;
  }
  return sprocket::testing::run_mpi_tests(&argc, &argv);
}
