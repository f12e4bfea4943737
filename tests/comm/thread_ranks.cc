#include "tests/comm/thread_ranks.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "parallel/comm/thread_backend.h"

namespace sprocket::comm::testing {
namespace {

std::string describe(int first, const std::map<int, std::string>& messages) {
  std::string text = fmt::format("{} rank(s) failed, rank {} first", messages.size(), first);
  for (const auto& [rank, message] : messages)
    text += fmt::format("\n  rank {}: {}", rank, message);
  return text;
}

}  // namespace

RanksFailed::RanksFailed(int first, std::map<int, std::string> messages)
    : std::runtime_error(describe(first, messages)),
      first_(first),
      messages_(std::move(messages)) {}

void run_ranks(std::vector<std::unique_ptr<Communicator>> world, const RankBody& body) {
  const int size = static_cast<int>(world.size());
  std::mutex mutex;
  std::condition_variable changed;
  std::set<int> running;
  std::map<int, std::string> messages;
  int first = -1;
  const auto failed = [&](int rank, const std::string& message) {
    {
      const std::lock_guard lock(mutex);
      if (first < 0) first = rank;
      messages[rank] = message;
    }
    world[rank]->abort(message);
  };
  for (int r = 0; r < size; ++r) running.insert(r);
  std::vector<std::thread> threads;
  for (int r = 0; r < size; ++r) {
    threads.emplace_back([&, r] {
      try {
        body(*world[r]);
        if (::testing::Test::HasFatalFailure()) world[r]->abort("a fatal failure of the test");
      } catch (const std::exception& error) {
        failed(r, error.what());
      }
      const std::lock_guard lock(mutex);
      running.erase(r);
      changed.notify_one();
    });
  }
  std::chrono::milliseconds limit{0};
  for (const auto& rank : world) limit = std::max(limit, 2 * rank->options().timeout);
  {
    std::unique_lock lock(mutex);
    if (!changed.wait_for(lock, limit, [&] { return running.empty(); })) {
      fmt::print(stderr, "ranks {} of {} are still running after {} ms; {}\n",
                 fmt::join(running, ", "), size, limit.count(), describe(first, messages));
      std::abort();
    }
  }
  for (auto& thread : threads) thread.join();
  if (!messages.empty()) throw RanksFailed(first, messages);
}

void run_ranks(const std::vector<CommunicatorOptions>& options_of_rank, const RankBody& body) {
  run_ranks(make_thread_world(options_of_rank), body);
}

void run_ranks(int size, const RankBody& body, std::chrono::milliseconds timeout) {
  CommunicatorOptions options;
  options.timeout = timeout;
  run_ranks(std::vector<CommunicatorOptions>(size, options), body);
}

}  // namespace sprocket::comm::testing
