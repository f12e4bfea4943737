// A decorator that damages what a rank receives: faults of distribution, planted from outside.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "parallel/comm/backend.h"

namespace sprocket::testing {

// Called with the result of every operation of every group, once it is there.
using Fault = std::function<void(comm::OpKind op, const std::string& group, comm::Buffer result)>;

// Groups split from it are damaged too. `group` is the name of this one.
std::unique_ptr<comm::Backend> make_faulty_backend(std::unique_ptr<comm::Backend> inner,
                                                   std::string group, Fault fault);

}  // namespace sprocket::testing
