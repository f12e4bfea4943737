#include "launcher/help_formatter.h"

#include <sstream>

#include <fmt/format.h>

namespace sprocket::launcher {
namespace {

constexpr size_t kColumn = 25;
constexpr size_t kWidth = 96;

// `name` in the left column, `text` wrapped into the right one.
std::string entry(const std::string& name, const std::string& text) {
  std::string out = "  " + name;
  size_t column = out.size();
  if (column + 2 > kColumn) {
    out += "\n";
    column = 0;
  }
  out += std::string(kColumn - column, ' ');
  column = kColumn;
  std::istringstream words(text);
  std::string word;
  bool first = true;
  while (words >> word) {
    if (!first && column + 1 + word.size() > kWidth) {
      out += "\n" + std::string(kColumn, ' ');
      column = kColumn;
      first = true;
    }
    if (!first) {
      out += " ";
      ++column;
    }
    out += word;
    column += word.size();
    first = false;
  }
  return out + "\n";
}

}  // namespace

std::string HelpFormatter::make_usage(const CLI::App*, std::string) const {
  return "\nusage: " + usage_ + "\n";
}

std::string HelpFormatter::make_description(const CLI::App* app) const {
  return app->get_description() + "\n";
}

std::string HelpFormatter::make_option(const CLI::Option* option, bool is_positional) const {
  std::string name = option->get_name(is_positional, !is_positional);
  if (const size_t comma = name.find(','); comma != std::string::npos) name.insert(comma + 1, " ");
  if (!is_positional && !option->get_option_text().empty()) name += " " + option->get_option_text();
  return entry(name, option->get_description());
}

std::string HelpFormatter::make_group(std::string group, bool is_positional,
                                      std::vector<const CLI::Option*> options) const {
  std::string out = "\n" + group + ":\n";
  for (const CLI::Option* option : options) out += make_option(option, is_positional);
  return out;
}

std::string HelpFormatter::flag_groups(const CLI::App* app) const {
  std::string out;
  for (const std::string& group : app->get_groups()) {
    const std::vector<const CLI::Option*> options =
        app->get_options([&](const CLI::Option* option) {
          return !group.empty() && option->get_group() == group && option->nonpositional();
        });
    if (!options.empty()) out += (out.empty() ? "" : "\n") + make_group(group, false, options);
  }
  return out;
}

std::string HelpFormatter::make_subcommand(const CLI::App* command) const {
  const std::string description = command->get_description();
  return entry(command->get_name(), description.substr(0, description.find('\n')));
}

std::string HelpFormatter::make_help(const CLI::App* app, std::string name,
                                     CLI::AppFormatMode mode) const {
  return make_description(app) + make_usage(app, name) + make_subcommands(app, mode) +
         make_positionals(app) + flag_groups(app) + make_footer(app);
}

}  // namespace sprocket::launcher
