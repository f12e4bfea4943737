#include "tests/launcher/process.h"

#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include <gtest/gtest.h>

namespace sprocket::launcher {
namespace {

std::string text_of(const std::string& path) {
  std::ifstream stream(path, std::ios::binary);
  std::ostringstream text;
  text << stream.rdbuf();
  return text.str();
}

std::string folder() {
  const std::string path = ::testing::TempDir() + "sprocket_cli_" + std::to_string(getpid()) + "/";
  std::filesystem::create_directories(path);
  return path;
}

}  // namespace

std::string write_file(const std::string& name, const std::string& text) {
  const std::string path = folder() + name;
  std::ofstream(path, std::ios::binary) << text;
  return path;
}

ProcessResult run_sprocket(const std::string& arguments, const std::string& launcher) {
  const std::string out = folder() + "out", err = folder() + "err";
  const std::string command = "cd '" SPROCKET_SOURCE_DIR "' && " + launcher +
                              " '" SPROCKET_BINARY "' " + arguments + " >'" + out + "' 2>'" + err +
                              "' </dev/null";
  const int status = std::system(command.c_str());
  ProcessResult result;
  result.code = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  result.out = text_of(out);
  result.err = text_of(err);
  return result;
}

}  // namespace sprocket::launcher
