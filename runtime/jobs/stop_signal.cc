#include "runtime/jobs/stop_signal.h"

#include <csignal>

namespace sprocket::runtime {
namespace {

constexpr int kSignals[] = {SIGTERM, SIGINT, SIGUSR1};

// A handler can reach static storage only.
std::atomic<bool> stop_requested{false};
static_assert(std::atomic<bool>::is_always_lock_free);

void handle(int) { stop_requested.store(true); }

void install(int signal, void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  // A second signal takes the default action: the way out of a step that never ends.
  action.sa_flags = static_cast<int>(SA_RESETHAND) | SA_RESTART;
  sigemptyset(&action.sa_mask);
  sigaction(signal, &action, nullptr);
}

}  // namespace

StopSignal::StopSignal() {
  stop_requested.store(false);
  for (const int signal : kSignals) install(signal, handle);
}

StopSignal::~StopSignal() {
  for (const int signal : kSignals) install(signal, SIG_DFL);
}

void StopSignal::request() const { stop_requested.store(true); }

const std::atomic<bool>* StopSignal::flag() const { return &stop_requested; }

}  // namespace sprocket::runtime
