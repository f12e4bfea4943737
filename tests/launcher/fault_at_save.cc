// Preloaded into one rank of a job: at a moment of a save that no signal from outside can meet, the
// process dies, is asked to stop, or its file system fails.
//
// SAVE_FAULT names what happens and to which checkpoint: "kill_before_manifest:step_00000004".
#include <dlfcn.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

namespace {

// Of one fault: its name and the folder that its checkpoint is written in.
struct Fault {
  std::string name, folder;
};

const Fault& fault() {
  static const Fault chosen = [] {
    const char* const text = std::getenv("SAVE_FAULT");
    const std::string_view given = text ? text : "";
    const size_t colon = given.find(':');
    if (colon == std::string_view::npos) {
      std::fputs("fault_at_save: SAVE_FAULT must be NAME:FOLDER\n", stderr);
      std::abort();
    }
    return Fault{std::string(given.substr(0, colon)),
                 std::string(given.substr(colon + 1)) + ".tmp-"};
  }();
  return chosen;
}

bool is(const char* name, std::string_view path) {
  return fault().name == name && path.find(fault().folder) != std::string_view::npos;
}

void kill_at(const char* name, std::string_view path) {
  if (is(name, path)) ::kill(::getpid(), SIGKILL);
}

std::atomic<bool> asked_to_stop{false};

template <class Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(::dlsym(RTLD_NEXT, name));
}

}  // namespace

extern "C" {

// How the shards are written.
ssize_t pwrite(int descriptor, const void* data, size_t bytes, off_t offset) {
  char path[4096] = {};
  const std::string link = "/proc/self/fd/" + std::to_string(descriptor);
  if (::readlink(link.c_str(), path, sizeof(path) - 1) > 0) {
    kill_at("kill_in_shards", path);
    if (is("terminate_in_shards", path) && !asked_to_stop.exchange(true)) {
      ::kill(::getpid(), SIGTERM);
    }
    if (is("full", path)) {
      errno = ENOSPC;
      return -1;
    }
  }
  return next<decltype(pwrite)>("pwrite")(descriptor, data, bytes, offset);
}

// How a text takes its name when it is whole: the manifest is the last one.
int rename(const char* from, const char* to) noexcept {
  if (std::string_view(to).ends_with("/MANIFEST")) kill_at("kill_before_manifest", to);
  return next<decltype(rename)>("rename")(from, to);
}

// How a checkpoint takes its name.
int renameat2(int from_folder, const char* from, int to_folder, const char* to,
              unsigned flags) noexcept {
  kill_at("kill_after_manifest", from);
  if (is("rename", from)) {
    errno = EIO;
    return -1;
  }
  return next<decltype(renameat2)>("renameat2")(from_folder, from, to_folder, to, flags);
}
}
