// From a file and the command line to a complete, validated job.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "configs/job.pb.h"
#include "configs/text_scan.h"

namespace sprocket::config {

// What the job is loaded for decides which fields must be given.
enum class Purpose {
  kInspect,    // nothing beyond the rules of the fields themselves
  kTrain,      // data.path and output.directory
  kDistill,    // data.path, output.directory and distillation with its teacher
  kSample,     // output.directory
  kAttention,  // problem.grid
  kParity,     // data.path or data.latent
};

struct LoadOptions {
  Purpose purpose = Purpose::kInspect;
  // Number of ranks, when known: the mesh is checked against it and parallel.outer: 0 is resolved.
  std::optional<int> world;
  // The text of --output; replaces output.directory.
  std::optional<std::string> output_directory;
  // Heads of the file given by --input; replaces model.heads, and model.dim with a legal multiple.
  std::optional<int> heads;
};

struct LoadedJob {
  Job job;           // every default written out
  std::string name;  // the file, as given
  std::map<std::string, Location> locations;

  // For messages about a field: "configs/x.txtpb:12:3: parallel.ulysses", "--set '…': …", or the
  // path alone when the field was not given.
  std::string where(const std::string& path) const;
};

// Reads `file` (text format), applies each of `overrides` in order (text format, where a name may
// be a dotted path; a repeated field given there replaces the file's), writes the defaults out and
// validates. Throws one ConfigError with one line for every problem found.
LoadedJob load_job(const std::string& file, const std::vector<std::string>& overrides = {},
                   const LoadOptions& options = {});

// The same from text; `name` stands for the file in messages.
LoadedJob parse_job(const std::string& text, const std::string& name,
                    const std::vector<std::string>& overrides = {},
                    const LoadOptions& options = {});

}  // namespace sprocket::config
