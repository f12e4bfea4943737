#include "launcher/launch/asked_to_end.h"

#include <poll.h>

#include <algorithm>
#include <atomic>
#include <csignal>

namespace sprocket::launcher {
namespace {

constexpr int kSignals[] = {SIGTERM, SIGINT, SIGUSR1};

// A handler can reach static storage only.
std::atomic<int> signals{0};
static_assert(std::atomic<int>::is_always_lock_free);

void install(void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  for (const int signal : kSignals) sigaction(signal, &action, nullptr);
}

}  // namespace

AskedToEnd::AskedToEnd() {
  signals.store(0);
  install([](int) { signals.fetch_add(1); });
}

AskedToEnd::~AskedToEnd() { install(SIG_DFL); }

int AskedToEnd::times() const { return signals.load(); }

// poll() ends when a signal comes; one that came just before it is seen a slice later.
void AskedToEnd::pause(std::chrono::milliseconds length) const {
  using std::chrono::steady_clock;
  constexpr std::chrono::milliseconds kSlice{50};
  const auto until = steady_clock::now() + length;
  for (auto now = steady_clock::now(); times() == 0 && now < until; now = steady_clock::now()) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(until - now);
    poll(nullptr, 0, static_cast<int>(std::min(kSlice, left).count()));
  }
}

}  // namespace sprocket::launcher
