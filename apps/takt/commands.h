// The commands of `takt`, a function for each group. Each adds its subcommands to `app`; a
// subcommand's callback does the work and sets `*exit_code` (ExitCodeFor), which is 0 before. Both
// outlive the parsing. What a person asked for goes to standard output, everything else to
// standard error.
#pragma once

#include "CLI/App.hpp"

namespace takt::cli {

// check.cc: takt check FILE
void AddCheckCommand(CLI::App& app, int* exit_code);

}  // namespace takt::cli
