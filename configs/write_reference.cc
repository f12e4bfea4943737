// write_reference DESCRIPTORS: prints docs/config.md (the target config_reference writes it).
#include <cstdio>
#include <fstream>

#include <fmt/format.h>
#include <google/protobuf/descriptor.pb.h>

#include "base/exit_code.h"
#include "configs/reference.h"

int main(int argc, char** argv) {
  google::protobuf::FileDescriptorSet files;
  std::ifstream stream(argc == 2 ? argv[1] : "", std::ios::binary);
  if (!stream || !files.ParseFromIstream(&stream)) {
    fmt::print(stderr, "usage: write_reference DESCRIPTORS (of protoc --include_source_info)\n");
    return static_cast<int>(sprocket::ExitCode::kConfig);
  }
  try {
    fmt::print("{}", sprocket::config::reference_markdown(files));
  } catch (const std::exception& error) {
    fmt::print(stderr, "{}\n", error.what());
    return static_cast<int>(sprocket::exit_code_of(error));
  }
  return 0;
}
