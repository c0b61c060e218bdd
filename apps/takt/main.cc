// takt: the daemon and the command line in one program.
#include "CLI/App.hpp"
#include "CLI/Config.hpp"
#include "CLI/Formatter.hpp"
#include "commands.h"

int main(int argc, char** argv) {
  CLI::App app("Takt: models built, checked and served on a line", "takt");
  app.require_subcommand(1);
  app.set_version_flag("--version", TAKT_VERSION);
  int exit_code = 0;
  takt::cli::AddCheckCommand(app, &exit_code);
  takt::cli::AddAppCommands(app, &exit_code);
  takt::cli::AddPlatformCommands(app, &exit_code);
  takt::cli::AddSearchCommand(app, &exit_code);
  takt::cli::AddForwardCommand(app, &exit_code);
  takt::cli::AddRunCommands(app, &exit_code);
  takt::cli::AddDaemonCommand(app, &exit_code);
  takt::cli::AddCompletionCommand(app);

  // CLI11 reports by exceptions; they end here. Asking for help is no error, wrong usage is 2.
  constexpr int kUsageError = 2;
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : kUsageError;
  }
  return exit_code;
}
