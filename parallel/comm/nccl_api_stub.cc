// The Nccl backend's factory in builds without CUDA.
#include "base/error.h"
#include "parallel/comm/nccl_backend.h"
#include "parallel/comm/nccl_version.h"

namespace sprocket::comm {

std::unique_ptr<Communicator> make_nccl_communicator(std::unique_ptr<Communicator> host,
                                                     const NcclOptions&,
                                                     const CommunicatorOptions&) {
  throw ConfigError(
      "communicator \"" + host->name() +
      "\": NCCL was asked for, and this build has no CUDA; configure with -DSPROCKET_CUDA=ON "
      "(needs "
      "the CUDA toolkit and NCCL), or use MPI, which moves host memory in every build");
}

NcclVersions nccl_versions() { return {}; }

}  // namespace sprocket::comm
