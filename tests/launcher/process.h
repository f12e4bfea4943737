// Runs the sprocket binary as a user does.
#pragma once

#include <string>

namespace sprocket::launcher {

struct ProcessResult {
  int code = -1;  // exit code; -signal when it was killed
  std::string out;
  std::string err;
};

// `arguments` is shell text after the binary's name. `launcher` goes before it ("mpirun -np 2").
ProcessResult run_sprocket(const std::string& arguments, const std::string& launcher = "");

// Writes a file into the test's temporary folder and returns its path.
std::string write_file(const std::string& name, const std::string& text);

}  // namespace sprocket::launcher
