#include "launcher/launch/asked_to_end.h"

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

}  // namespace sprocket::launcher
