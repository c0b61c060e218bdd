// The commands of `takt`, a function for each group. Each adds its subcommands to `app`; a
// subcommand's callback does the work and sets `*exit_code` (ExitCodeFor), which is 0 before. Both
// outlive the parsing. What a person asked for goes to standard output, everything else to
// standard error.
#pragma once

#include "CLI/App.hpp"

namespace takt::cli {

// check.cc: takt check FILE
void AddCheckCommand(CLI::App& app, int* exit_code);

// app_commands.cc: up, apps, show, revisions, config, rollback, stop, start, rm
void AddAppCommands(CLI::App& app, int* exit_code);
// platform_commands.cc: logs, events, endpoints, volume, images, status
void AddPlatformCommands(CLI::App& app, int* exit_code);
// search_command.cc: takt search
void AddSearchCommand(CLI::App& app, int* exit_code);
// forward_command.cc: takt forward ls, add, rm
void AddForwardCommand(CLI::App& app, int* exit_code);
// run_commands.cc: runs, models
void AddRunCommands(CLI::App& app, int* exit_code);
// daemon.cc: takt daemon
void AddDaemonCommand(CLI::App& app, int* exit_code);
// completion.cc: takt completion SHELL, for all commands that `app` has when it runs
void AddCompletionCommand(CLI::App& app);

}  // namespace takt::cli
