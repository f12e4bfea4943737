// What ranks tell each other outside the model: texts, and whether all of them succeeded.
#pragma once

#include <exception>
#include <functional>
#include <string>
#include <vector>

#include "parallel/comm/communicator.h"

namespace sprocket::runtime {

// Every rank's text (any bytes), in rank order. Collective.
std::vector<std::string> gather_text(comm::Communicator& group, const std::string& text);

// The root's text on every rank. Collective.
std::string broadcast_text(comm::Communicator& group, const std::string& text, int root);

// Carried by every error that all ranks of a group throw together: nobody is left waiting, so the
// group need not be aborted.
class AgreedError {
 public:
  virtual ~AgreedError() = default;
};

// Runs `work` on every rank; when it throws on any, all ranks throw the error of the lowest such
// rank (the same type of the hierarchy in base/error.h, the same text), which is an AgreedError
// too. Collective. `work` itself must not communicate; a CommError of it is thrown at once.
void run_on_all(comm::Communicator& group, const std::function<void()>& work);

// Throws NonFiniteError as an AgreedError; for ranks that all know of it.
[[noreturn]] void throw_agreed_non_finite(const std::string& what);

}  // namespace sprocket::runtime
