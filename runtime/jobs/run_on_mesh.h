// A job on its mesh, with the communicators closed in the right way whatever it ends with.
#pragma once

#include <exception>
#include <memory>
#include <utility>

#include "parallel/mesh.h"
#include "runtime/jobs/device_errors.h"
#include "runtime/jobs/rank_agreement.h"

namespace sprocket::runtime {

// Returns work(mesh). An error that all ranks throw together leaves after the communicators have
// been closed in peace: a peer may not have left its last collective yet, and one that is destroyed
// by an unwinding exception would abort it there. Any other error aborts the world first.
template <class Work>
auto run_on_mesh(std::unique_ptr<comm::Communicator> world, const parallel::MeshShape& shape,
                 const at::Device& device, Work&& work) {
  std::exception_ptr agreed;
  {
    const parallel::Mesh mesh(std::move(world), shape, device);
    try {
      return with_device_errors([&] { return work(mesh); });
    } catch (const AgreedError&) {
      agreed = std::current_exception();
    } catch (const std::exception& error) {
      mesh.world().abort(error.what());
      throw;
    }
  }
  std::rethrow_exception(agreed);
}

}  // namespace sprocket::runtime
