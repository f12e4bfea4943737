#include "runtime/data/prompt_check.h"

#include <algorithm>
#include <set>

#include "base/error.h"
#include "runtime/data/folder_check.h"
#include "runtime/data/prompt_set.h"

namespace sprocket::data {
namespace {

// A sentence for every shard or tensor that cannot be read; a damaged shard is one, not one per
// prompt. Their shards go into `damaged`, which may be null.
std::vector<std::string> reading_problems(const std::string& folder, const PromptIndex& index,
                                          std::set<int64_t>* damaged) {
  ShardFiles shards(folder, index.shards);
  std::vector<std::string> problems;
  std::set<std::string> seen;
  const auto read = [&](int64_t shard, const std::string& name) {
    try {
      shards.read(shard, name, {index.text.tokens, index.text.dim});
    } catch (const InputError& bad) {
      if (damaged) damaged->insert(shard);
      if (seen.insert(bad.what()).second) problems.emplace_back(bad.what());
    }
  };
  if (index.negative) read(0, kNegativeTensor);
  for (const PromptInfo& prompt : index.prompts) read(prompt.shard, prompt_tensor_name(prompt));
  return problems;
}

std::string video_text(const VideoInfo& video) {
  std::string text =
      fmt::format("videos {} latents: {} frames of {}x{} pixels at {:g} fps; schedule shift {}\n",
                  to_string(video.shape), video.frames, video.width, video.height, video.fps,
                  video.shift ? fmt::format("{}", *video.shift) : "none");
  if (!video.coding) return text + "codec none: extents alone\n";
  return text + fmt::format("codec {} version {}, {} channels\n", video.coding->codec.name,
                            video.coding->codec.version, video.coding->codec.channels);
}

}  // namespace

std::string inspect_prompts(const std::string& folder, int64_t max_prompts) {
  const PromptIndex index = read_prompt_index(folder);
  std::set<int64_t> damaged;
  const std::vector<std::string> problems = reading_problems(folder, index, &damaged);
  const auto size = std::ssize(index.prompts);
  std::string text = fmt::format("prompt set {}: {} prompts in {} shards, schema version {}\n",
                                 folder, size, index.shards.size(), index.schema_version);
  text += fmt::format("text {} version {}: {} tokens of {}\n", index.text.name, index.text.version,
                      index.text.tokens, index.text.dim);
  text += video_text(index.video);
  text += fmt::format("negative prompt {}\n",
                      index.negative ? fmt::format("\"{}\"", *index.negative) : "none");
  text += shard_table(index.shards, damaged);
  text += "prompts:\n";
  for (int64_t i = 0; i < std::min(max_prompts, size); ++i) {
    text += fmt::format("  {}  \"{}\"\n", index.prompts[i].id, index.prompts[i].text);
  }
  if (size > max_prompts) text += fmt::format("  and {} more\n", size - max_prompts);
  if (!problems.empty()) {
    text += "problems:\n";
    for (const std::string& problem : problems) text += fmt::format("  {}\n", problem);
  }
  return text;
}

std::vector<std::string> validate_prompts(const std::string& folder) {
  require_folder(folder, "a prompt set");
  PromptIndex index;
  try {
    index = read_prompt_index(folder);
  } catch (const InputError& bad) {
    return {bad.what()};
  }
  std::vector<std::string> problems;
  check_files(folder, kPromptIndexFile, index.shards, &problems);
  for (std::string& problem : reading_problems(folder, index, nullptr)) {
    problems.push_back(std::move(problem));
  }
  std::vector<std::set<std::string>> tensors(index.shards.size());
  if (index.negative) tensors[0].insert(kNegativeTensor);
  for (const PromptInfo& prompt : index.prompts) {
    tensors[prompt.shard].insert(prompt_tensor_name(prompt));
  }
  check_tensors(folder, index.shards, tensors, "prompt", &problems);
  return problems;
}

}  // namespace sprocket::data
