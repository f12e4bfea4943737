// Test bodies that make ranks diverge, for communicators behind the Checked decorator; two ranks or
// more. Every rank meets a CommError that names the rank at fault.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "parallel/comm/communicator.h"

namespace sprocket::comm::testing {

struct DivergingBody {
  std::string name;
  std::function<void(Communicator&)> run;
};
const std::vector<DivergingBody>& diverging_bodies();

}  // namespace sprocket::comm::testing
