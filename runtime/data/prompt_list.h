// The prompts that `sprocket data embed-prompts` is given.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace sprocket::data {

struct PromptItem {
  std::string text;
  std::string embedding;  // the file of its embedding; empty where it is computed
};

struct PromptList {
  std::vector<PromptItem> prompts;  // at least one
  std::optional<PromptItem> negative;
};

// Throws InputError at `where` for text that is no UTF-8.
void require_utf8(const std::string& text, const std::string& where);

// A text file with one prompt a line, without the white space around it; empty lines do not count.
// Throws InputError (file and line) for a file that is missing, is no UTF-8 or has no prompt.
PromptList read_prompt_lines(const std::string& file);

// A file with one JSON object a line,
//   {"prompt": "a rabbit in a meadow", "text": "rabbit.safetensors"}
//   {"negative": "blurry", "text": "blurry.safetensors"}
// the second kind at most once; paths are relative to the file's folder. Throws InputError (file
// and line) for a file that is missing or damaged or has no prompt.
PromptList read_prompt_manifest(const std::string& file);

}  // namespace sprocket::data
