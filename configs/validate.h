// The rules of a job beyond the types of its fields.
#pragma once

#include <string>
#include <vector>

#include "configs/load.h"

namespace sprocket::config {

// A rule that does not hold.
struct Violation {
  std::vector<std::string> paths;  // the field to change first, then the others that take part
  std::string message;             // without the path of the first
};

// `job` has its defaults written out.
std::vector<Violation> find_violations(const Job& job, const LoadOptions& options);

// What a data set holds, or a dry run is told.
struct LatentShape {
  int channels = 0;
  int t = 0, h = 0, w = 0;  // latent cells
};

// Everything of a latent video's shape that the job cannot run on: channels, patch, fewer blocks
// than domains or outer ranks.
std::vector<Violation> find_shape_violations(const Job& job, const LatentShape& shape);

// Throws ConfigError with one line for each violation; `source` ("data/clip/index.json") says where
// the shape comes from.
void check_latent_shape(const LoadedJob& loaded, const LatentShape& shape,
                        const std::string& source);

// For `what`, which runs on the processor alone: throws ConfigError for a job that asks for a
// device, naming the field and, where there is one, the `alternative`.
void check_on_processor(const LoadedJob& loaded, const std::string& what,
                        const std::string& alternative = "");

}  // namespace sprocket::config
