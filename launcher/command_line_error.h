// What is said about a command line that cannot be read.
#pragma once

#include <string>

#include <CLI/CLI.hpp>

namespace sprocket::launcher {

// One sentence naming the command, the mistake, what was perhaps meant, and where the help is.
std::string describe(const CLI::App& app, const CLI::ParseError& error);

}  // namespace sprocket::launcher
