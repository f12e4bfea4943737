// Test bodies that make ranks diverge, for communicators behind the Checked decorator; two ranks or
// more. Every rank meets a CommError that names the rank at fault.
#pragma once

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "parallel/comm/communicator.h"

namespace sprocket::comm::testing {

struct DivergingBody {
  std::string name;  // "all_gather: another dtype"
  std::function<void(Communicator&)> run;
  // Of the decorator; short where a rank does not come at all.
  std::chrono::milliseconds patience;
};
const std::vector<DivergingBody>& diverging_bodies();

}  // namespace sprocket::comm::testing
