// The layout of every help text: purpose, usage, flags, then examples and exit codes from the
// footer.
#pragma once

#include <string>

#include <CLI/CLI.hpp>

namespace sprocket::launcher {

class HelpFormatter : public CLI::Formatter {
 public:
  // `usage` is the line after "usage: ".
  explicit HelpFormatter(std::string usage) : usage_(std::move(usage)) {}

  std::string make_usage(const CLI::App* app, std::string name) const override;
  std::string make_description(const CLI::App* app) const override;
  std::string make_option(const CLI::Option* option, bool is_positional) const override;
  std::string make_group(std::string group, bool is_positional,
                         std::vector<const CLI::Option*> options) const override;
  std::string make_subcommand(const CLI::App* command) const override;
  std::string make_help(const CLI::App* app, std::string name,
                        CLI::AppFormatMode mode) const override;

 private:
  // Flags of a group without a name are not shown.
  std::string flag_groups(const CLI::App* app) const;

  std::string usage_;
};

}  // namespace sprocket::launcher
