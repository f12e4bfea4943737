// Device memory over a communicator of host memory, instead of NCCL: every operation copies what it
// sends to the host and what it received back, and is complete when it returns.
//
// A program that links this has make_nccl_communicator make such communicators: the library's need
// a device.
#pragma once

#include <memory>

#include "parallel/comm/backend.h"

namespace sprocket::testing {

std::unique_ptr<comm::Backend> make_staged_backend(std::unique_ptr<comm::Communicator> host);

}  // namespace sprocket::testing
