// takt forward: where the log store's entries are sent on to.
#include <iostream>

#include "base/clock.h"
#include "client.h"
#include "print.h"
#include "table.h"

namespace takt::cli {
namespace {

struct ForwardOptions {
  std::string name, kind, url, query;
  std::vector<std::string> headers;
  bool from_start = false;
};

std::string ForwardPath(const std::string& name) {
  return StrCat("/logs/forwards/", net::UrlEncode(name));
}

absl::Status PrintForwards(const Json& answer, const Connection& connection) {
  if (connection.json) {
    PrintJson(answer);
    return absl::OkStatus();
  }
  if (answer.at("forwards").empty()) {
    std::cout << "no forwards: log entries stay here (takt forward add)\n";
    return absl::OkStatus();
  }
  std::vector<std::vector<std::string>> rows{
      {"FORWARD", "KIND", "STATE", "SENT", "REFUSED", "REMOVED", "BEHIND", "LAG", "URL"}};
  const auto number = [](const Json& forward, const char* field) {
    return StrCat(forward.at(field).get<std::uint64_t>());
  };
  for (const Json& f : answer.at("forwards")) {
    rows.push_back({f.at("name"), f.at("kind"), f.at("state"), number(f, "sent_entries"),
                    number(f, "refused_entries"), number(f, "removed_entries"),
                    number(f, "behind_entries"), number(f, "lag_seconds") + "s", f.at("url")});
  }
  std::cout << FormatTable(rows);
  for (const Json& f : answer.at("forwards")) {
    const std::string error = f.at("last_error");
    if (f.at("state") == "failing" || f.at("refused_entries") != 0) {
      std::cout << f.at("name").get<std::string>() << ": " << ForTerminal(error) << " ("
                << Age(f.at("last_error_at"), RealClock().Now()) << " ago)\n";
    }
  }
  return absl::OkStatus();
}

absl::Status RunList(Api& api, const NoOptions&, const Connection& connection) {
  TAKT_ASSIGN_OR_RETURN(const Json answer, api.Get("/logs/forwards"));
  return PrintForwards(answer, connection);
}

absl::Status RunAdd(Api& api, const ForwardOptions& options, const Connection& connection) {
  Json body = {{"kind", options.kind},
               {"url", options.url},
               {"query", options.query},
               {"from", options.from_start ? "start" : "now"},
               {"headers", Json::object()}};
  for (const std::string& header : options.headers) {
    const auto colon = header.find(':');
    if (colon == std::string::npos) {
      return absl::InvalidArgumentError(
          StrCat("--header: expected NAME: VALUE, got \"", header, "\""));
    }
    const auto value = header.find_first_not_of(' ', colon + 1);
    body["headers"][header.substr(0, colon)] =
        value == std::string::npos ? "" : header.substr(value);
  }
  TAKT_ASSIGN_OR_RETURN(const Json answer, api.Put(ForwardPath(options.name), body));
  return PrintForwards(answer, connection);
}

absl::Status RunRemove(Api& api, const ForwardOptions& options, const Connection&) {
  return api.Delete(ForwardPath(options.name)).status();
}

}  // namespace

void AddForwardCommand(CLI::App& app, int* exit_code) {
  CLI::App* forward = app.add_subcommand("forward", "Send log entries on, to Loki or over OTLP")
                          ->require_subcommand(1);
  AddClientCommand<NoOptions>(
      *forward, exit_code, "ls", "List forwards and how they stand", [](CLI::App&, NoOptions&) {},
      RunList);
  AddClientCommand<ForwardOptions>(
      *forward, exit_code, "add", "Send entries on, or change how",
      [](CLI::App& command, ForwardOptions& options) {
        command.add_option("NAME", options.name, "name of the forward")->required();
        command.add_option("KIND", options.kind, "loki or otlp")->required();
        command
            .add_option("URL", options.url, "http or https; a path only where it is not the usual")
            ->required();
        command.add_option("--query", options.query, "only what this finds (see takt search)");
        command.add_option(
            "--header", options.headers,
            "with each request: \"Authorization: Bearer TOKEN\"; may be given several "
            "times");
        command.add_flag("--from-start", options.from_start,
                         "a new one gets all that is kept, not only what comes");
      },
      RunAdd);
  AddClientCommand<ForwardOptions>(
      *forward, exit_code, "rm", "Send no more there",
      [](CLI::App& command, ForwardOptions& options) {
        command.add_option("NAME", options.name, "name of the forward")->required();
      },
      RunRemove);
}

}  // namespace takt::cli
