#include "configs/reference.h"

#include <algorithm>
#include <fstream>
#include <sstream>

#include <gmock/gmock.h>
#include <google/protobuf/descriptor.pb.h>
#include <gtest/gtest.h>

#include "base/error.h"

namespace sprocket::config {
namespace {

google::protobuf::FileDescriptorSet descriptors() {
  google::protobuf::FileDescriptorSet files;
  std::ifstream stream(SPROCKET_DESCRIPTORS, std::ios::binary);
  EXPECT_TRUE(stream && files.ParseFromIstream(&stream)) << SPROCKET_DESCRIPTORS;
  return files;
}

TEST(Reference, DocsSayWhatTheProtoSays) {
  std::ifstream stream(SPROCKET_SOURCE_DIR "/docs/config.md");
  std::ostringstream text;
  text << stream.rdbuf();
  EXPECT_EQ(text.str(), reference_markdown(descriptors()))
      << "docs/config.md is out of date: ninja config_reference";
}

TEST(Reference, AFieldWithoutACommentIsNamed) {
  google::protobuf::FileDescriptorSet files = descriptors();
  const auto job = std::ranges::find(*files.mutable_file(), "configs/job.proto",
                                     [](const auto& file) { return file.name(); });
  auto& locations = *job->mutable_source_code_info()->mutable_location();
  for (auto& location : locations) {
    // message 0, field 7 of job.proto: Job.parallel
    if (location.path_size() == 4 && location.path(0) == 4 && location.path(1) == 0 &&
        location.path(2) == 2 && location.path(3) == 7) {
      location.clear_leading_comments();
    }
  }
  try {
    reference_markdown(files);
    FAIL();
  } catch (const InternalError& error) {
    EXPECT_STREQ(error.what(), "no comment on sprocket.config.Job.parallel");
  }
}

}  // namespace
}  // namespace sprocket::config
