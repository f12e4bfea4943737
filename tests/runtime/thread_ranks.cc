#include "tests/runtime/thread_ranks.h"

#include <exception>
#include <thread>
#include <vector>

#include "base/error.h"
#include "base/timeline.h"
#include "parallel/comm/thread_backend.h"

namespace sprocket::testing {

void run_ranks(int ranks,
               const std::function<void(std::unique_ptr<comm::Communicator> world)>& body) {
  run_ranks(
      ranks, [](std::unique_ptr<comm::Backend> plain) { return plain; }, body);
}

void run_ranks(int ranks, const Decorate& decorate,
               const std::function<void(std::unique_ptr<comm::Communicator> world)>& body) {
  std::vector<Timeline> timelines(ranks);
  std::vector<std::unique_ptr<comm::Communicator>> worlds;
  for (auto& backend : comm::make_thread_backends(ranks, "world")) {
    comm::CommunicatorOptions options;
    options.timeline = &timelines[backend->rank()];
    options.timeout = std::chrono::seconds(60);
    worlds.push_back(
        std::make_unique<comm::Communicator>(decorate(std::move(backend)), "world", options));
  }
  std::vector<std::exception_ptr> errors(ranks);
  std::vector<std::thread> threads;
  for (int r = 0; r < ranks; ++r) {
    threads.emplace_back([&, r] {
      try {
        body(std::move(worlds[r]));
      } catch (...) {
        errors[r] = std::current_exception();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::exception_ptr follower;
  for (const std::exception_ptr& error : errors) {
    if (!error) continue;
    try {
      std::rethrow_exception(error);
    } catch (const CommError&) {
      if (!follower) follower = error;
    } catch (...) {
      std::rethrow_exception(error);
    }
  }
  if (follower) std::rethrow_exception(follower);
}

}  // namespace sprocket::testing
