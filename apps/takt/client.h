// What the client commands have in common.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "api.h"
#include "commands.h"

namespace takt::cli {

// A command that talks to the daemon: `run` gets an open Api; what it returns becomes the exit code
// and, where it is an error, a line on standard error.
template <typename Options>
struct ClientCommand : Options {
  Connection connection;
};
void Finish(const absl::Status& status, int* exit_code);
// Calls `run`; an answer that has not the shape of the API's document is a DATA_LOSS.
absl::Status RunWithApi(const Connection& connection, const std::function<absl::Status(Api&)>& run);

// Adds a subcommand whose options `define` declares on a fresh Options and whose work is `run`.
template <typename Options>
CLI::App* AddClientCommand(CLI::App& parent, int* exit_code, const char* name,
                           const char* description,
                           const std::function<void(CLI::App&, Options&)>& define,
                           absl::Status (*run)(Api& api, const Options& options,
                                               const Connection& connection)) {
  auto command = std::make_shared<ClientCommand<Options>>();
  CLI::App* app = parent.add_subcommand(name, description);
  define(*app, *command);
  AddConnectionOptions(*app, &command->connection);
  app->callback([command, run, exit_code] {
    Finish(RunWithApi(command->connection,
                      [&](Api& api) { return run(api, *command, command->connection); }),
           exit_code);
  });
  return app;
}

struct NoOptions {};

bool IsLive(const Json& instance);
// Every published endpoint of a service's live instances, "127.0.0.1:9000", in order.
std::vector<std::string> EndpointsOf(const Json& service);

// Writes what GET /logs/export answers to a file, whole or not at all, or to standard output ("-").
// `query` begins with "?"; a name in .gz asks for it packed. (search_command.cc)
absl::Status ExportLogs(Api& api, const std::string& query, const std::string& output);

}  // namespace takt::cli
