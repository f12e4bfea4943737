#include "launcher/command_line_error.h"

#include <algorithm>
#include <vector>

#include <fmt/format.h>

#include "configs/spelling.h"

namespace sprocket::launcher {
namespace {

const CLI::App& chosen_command(const CLI::App& app) {
  const CLI::App* current = &app;
  while (!current->get_subcommands().empty()) current = current->get_subcommands().front();
  return *current;
}

std::string path_of(const CLI::App& command) {
  const CLI::App* parent = command.get_parent();
  return parent == nullptr ? command.get_name() : path_of(*parent) + " " + command.get_name();
}

// What stands for a flag or a command that does not exist.
std::string unknown(const CLI::App& command, const std::string& word) {
  std::vector<std::string> names;
  const char* kind = "argument";
  if (word.starts_with("-")) {
    for (const CLI::Option* option : command.get_options()) {
      for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
    }
  } else if (const auto children = command.get_subcommands([](const CLI::App*) { return true; });
             !children.empty()) {
    kind = "command";
    for (const CLI::App* child : children) names.push_back(child->get_name());
  }
  const std::string near = config::nearest_name(word, names);
  std::string text = fmt::format("unknown {} {}", kind, word);
  return near.empty() ? text + ";" : text + fmt::format("; did you mean {}?", near);
}

}  // namespace

std::string describe(const CLI::App& app, const CLI::ParseError& error) {
  const CLI::App& command = chosen_command(app);
  const std::string path = path_of(command);
  std::vector<std::string> rest = app.remaining(true);
  std::erase(rest, "--");  // ends flags, and is known
  const bool asks_for_command =
      !command.get_subcommands([](const CLI::App*) { return true; }).empty();
  std::string what;
  if (!rest.empty()) {
    what = unknown(command, rest.front());
  } else if (asks_for_command) {
    what = "expected a command;";
  } else {
    what = std::string(error.what()) + ";";
  }
  return fmt::format("{}: {} nothing was run, see {} --help", path, what, path);
}

}  // namespace sprocket::launcher
