// Cluster descriptions (configs/cluster.proto): from a file to a complete, validated message.
#pragma once

#include <string>

#include "configs/cluster.pb.h"

namespace sprocket::config {

// Reads `file` (text format). Throws one ConfigError with one line for every problem: unknown
// fields and values, missing fields, figures out of range, a link class that is given twice or that
// the cluster needs and lacks.
Cluster load_cluster(const std::string& file);

// The same from text; `name` stands for the file in messages.
Cluster parse_cluster(const std::string& text, const std::string& name);

// Text that parse_cluster reads back.
std::string to_text(const Cluster& cluster);

}  // namespace sprocket::config
