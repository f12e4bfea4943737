// The `sprocket attention` job: one call of attention on tensors of a file, outside of any model.
// docs/attention_command.md is the contract of its files.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "configs/job.pb.h"
#include "parallel/comm/communicator.h"

namespace sprocket::runtime {

struct AttentionOptions {
  std::string input, output;  // .safetensors files
  std::string selection;      // an earlier output whose selection is used again; empty: none
  bool backward = false;
  bool dump_selection = false;
  int repeat = 0;    // measured calls after a warm-up; 0: one call, no warm-up
  std::string draw;  // a PNG; empty: none
  int draw_head = 0;
  std::optional<int> draw_query;  // default: a block in the middle of the video
  int threads = 1;
};

// Heads of the input, which the job is validated with. Throws InputError.
int heads_of_input(const std::string& path);

// `job` is loaded for Purpose::kAttention with this world and these heads; the world has a
// timeline. Writes the output and the picture. Returns the report on rank 0, nothing on the others.
// Collective. Throws ConfigError, InputError and OutputError as AgreedErrors; then there is no new
// output.
std::string run_attention(const config::Job& job, std::unique_ptr<comm::Communicator> world,
                          const AttentionOptions& options);

}  // namespace sprocket::runtime
