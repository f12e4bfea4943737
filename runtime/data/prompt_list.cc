#include "runtime/data/prompt_list.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <nlohmann/json.hpp>

#include "base/error.h"
#include "runtime/data/json_node.h"

namespace sprocket::data {
namespace {

constexpr char kSpace[] = " \t\r\n\v\f";
constexpr char kByteOrderMark[] = "\xef\xbb\xbf";

// Calls `take` with every line that is not empty, trimmed, and its place ("file:3").
void for_lines(const std::string& file,
               const std::function<void(const std::string&, const std::string&)>& take) {
  std::ifstream stream(file);
  if (!stream) {
    throw InputError(fmt::format("{}: cannot be opened: {}", file, std::strerror(errno)));
  }
  std::string line;
  for (int number = 1; std::getline(stream, line); ++number) {
    if (number == 1 && line.starts_with(kByteOrderMark)) line.erase(0, 3);
    const size_t first = line.find_first_not_of(kSpace);
    if (first == std::string::npos) continue;
    take(line.substr(first, line.find_last_not_of(kSpace) + 1 - first),
         fmt::format("{}:{}", file, number));
  }
  if (stream.bad()) {
    throw InputError(fmt::format("{}: cannot be read: {}", file, std::strerror(errno)));
  }
}

PromptList checked(PromptList list, const std::string& file) {
  if (list.prompts.empty()) {
    throw InputError(fmt::format("{}: expected at least one prompt, found none", file));
  }
  return list;
}

}  // namespace

void require_utf8(const std::string& text, const std::string& where) {
  try {
    nlohmann::json(text).dump();
  } catch (const nlohmann::json::type_error&) {
    throw InputError(fmt::format("{}: is not valid UTF-8", where));
  }
}

PromptList read_prompt_lines(const std::string& file) {
  PromptList list;
  for_lines(file, [&](const std::string& line, const std::string& where) {
    require_utf8(line, where);
    list.prompts.push_back({line, ""});
  });
  return checked(std::move(list), file);
}

PromptList read_prompt_manifest(const std::string& file) {
  const auto folder = std::filesystem::path(file).parent_path();
  PromptList list;
  for_lines(file, [&](const std::string& line, const std::string& where) {
    const nlohmann::ordered_json json = parse_json(line, where);
    const JsonNode node(json, where);
    node.require_keys_of({"prompt", "negative", "text"});
    if (node.has("prompt") == node.has("negative")) node.fail("either \"prompt\" or \"negative\"");
    PromptItem item{node.at(node.has("prompt") ? "prompt" : "negative").text(),
                    (folder / node.at("text").text()).string()};
    if (node.has("prompt")) {
      list.prompts.push_back(std::move(item));
    } else if (list.negative) {
      node.fail("one negative prompt in the file");
    } else {
      list.negative = std::move(item);
    }
  });
  return checked(std::move(list), file);
}

}  // namespace sprocket::data
