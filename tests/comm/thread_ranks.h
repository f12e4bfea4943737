// Runs a test body on N ranks that are threads of this process.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "parallel/comm/communicator.h"

namespace sprocket::comm::testing {

// What every failed rank said, the rank that failed first named.
class RanksFailed : public std::runtime_error {
 public:
  RanksFailed(int first, std::map<int, std::string> messages);
  int first() const { return first_; }
  const std::map<int, std::string>& messages() const { return messages_; }

 private:
  int first_;
  std::map<int, std::string> messages_;
};

using RankBody = std::function<void(Communicator&)>;

// Runs `body` on each of `size` ranks with a communicator named "world". A rank that throws, or
// that meets a fatal GoogleTest failure, aborts the world, so that its peers do not wait for it;
// then RanksFailed is thrown here. `timeout` holds for every wait, and, doubled, for the whole:
// when a rank hangs outside communication the process is aborted with its number.
void run_ranks(int size, const RankBody& body,
               std::chrono::milliseconds timeout = std::chrono::seconds(60));
// On communicators of the caller's making; world[r] is rank r's.
void run_ranks(std::vector<std::unique_ptr<Communicator>> world, const RankBody& body);
// With a timeline per rank where the body wants one, a small recorder, …
void run_ranks(const std::vector<CommunicatorOptions>& options_of_rank, const RankBody& body);

}  // namespace sprocket::comm::testing
