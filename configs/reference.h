// docs/config.md: the manual of the job description, written from the comments of job.proto.
#pragma once

#include <string>

namespace google::protobuf {
class FileDescriptorSet;
}

namespace sprocket::config {

// `files` comes from protoc --descriptor_set_out --include_source_info. Throws InternalError naming
// every message, field and enum value that has no comment.
std::string reference_markdown(const google::protobuf::FileDescriptorSet& files);

}  // namespace sprocket::config
