#include "launcher/launch/child_process.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <cstring>

#include "base/error.h"

namespace sprocket::launcher {
namespace {

struct Pipe {
  Pipe() { SPROCKET_CHECK(pipe2(ends, O_CLOEXEC) == 0, "pipe2: {}", std::strerror(errno)); }
  ~Pipe() {
    close_end(0);
    close_end(1);
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;
  void close_end(int end) {
    if (ends[end] >= 0) close(ends[end]);
    ends[end] = -1;
  }
  int ends[2] = {-1, -1};
};

// Between fork and exec: calls that are safe in a signal handler, and nothing else.
void become(char* const* words, int death_signal, pid_t parent, int failure) {
  setpgid(0, 0);
  if (death_signal != 0) prctl(PR_SET_PDEATHSIG, death_signal);
  if (getppid() == parent) {
    for (const int signal : {SIGTERM, SIGINT, SIGUSR1, SIGPIPE}) std::signal(signal, SIG_DFL);
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, nullptr);
    const int nothing = open("/dev/null", O_RDONLY);
    if (nothing >= 0) dup2(nothing, STDIN_FILENO);
    execvp(words[0], words);
    const int why = errno;
    [[maybe_unused]] const ssize_t told = write(failure, &why, sizeof why);
  }
  raise(SIGKILL);
}

}  // namespace

ChildProcess::ChildProcess(const std::vector<std::string>& words, int death_signal) {
  std::vector<std::string> copy = words;
  std::vector<char*> pointers;
  for (std::string& word : copy) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  Pipe failure;
  const pid_t parent = getpid();
  id_ = fork();
  SPROCKET_CHECK(id_ >= 0, "fork: {}", std::strerror(errno));
  if (id_ == 0) become(pointers.data(), death_signal, parent, failure.ends[1]);
  failure.close_end(1);
  int why = 0;
  if (read(failure.ends[0], &why, sizeof why) == sizeof why) {
    waitpid(id_, nullptr, 0);
    status_ = 127;
    throw ConfigError(fmt::format("{}: cannot be started: {}", words.front(), std::strerror(why)));
  }
}

ChildProcess::~ChildProcess() {
  if (ended()) return;
  kill_group();
  waitpid(id_, nullptr, 0);
}

std::optional<int> ChildProcess::ended() {
  int status = 0;
  if (!status_ && waitpid(id_, &status, WNOHANG) == id_) {
    status_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }
  return status_;
}

void ChildProcess::signal(int number) const {
  if (!status_) kill(id_, number);
}

void ChildProcess::kill_group() const {
  if (!status_) kill(-id_, SIGKILL);
}

}  // namespace sprocket::launcher
