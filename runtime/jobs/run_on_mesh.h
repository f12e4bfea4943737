// A job on its mesh, with the communicators closed in the right way whatever it ends with.
#pragma once

#include <exception>
#include <memory>
#include <utility>
#include <vector>

#include "parallel/mesh.h"
#include "runtime/control/pulse.h"
#include "runtime/jobs/device_errors.h"
#include "runtime/jobs/rank_agreement.h"

namespace sprocket::runtime {

// Of the mesh's host and device groups.
inline std::vector<const comm::Communicator*> communicators_of(const parallel::Mesh& mesh) {
  std::vector<const comm::Communicator*> all;
  for (const parallel::MeshGroups* groups : {&mesh.host(), &mesh.tensors()}) {
    all.insert(all.end(), {&groups->world(), &groups->data(), &groups->sequence(), &groups->outer(),
                           &groups->ulysses()});
    if (&mesh.tensors() == &mesh.host()) break;
  }
  return all;
}

// Returns work(mesh), while `pulse`, which may be null, watches the mesh's communicators. An error
// that all ranks throw together leaves after the communicators have been closed in peace: a peer
// may not have left its last collective yet, and one that is destroyed by an unwinding exception
// would abort it there. Any other error aborts the world first.
template <class Work>
auto run_on_mesh(std::unique_ptr<comm::Communicator> world, const parallel::MeshShape& shape,
                 const at::Device& device, Work&& work, control::Pulse* pulse = nullptr) {
  std::exception_ptr agreed;
  {
    const parallel::Mesh mesh(std::move(world), shape, device);
    const control::WatchScope watched(pulse, communicators_of(mesh));
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
