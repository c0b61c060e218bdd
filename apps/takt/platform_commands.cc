// takt logs, events, endpoints, volume, images, status.
#include <chrono>
#include <iostream>

#include "absl/strings/str_join.h"
#include "base/text.h"
#include "client.h"
#include "print.h"
#include "table.h"

namespace takt::cli {
namespace {

using Rows = std::vector<std::vector<std::string>>;

struct LogOptions {
  std::string app, service, instance;
  int tail = 100;
  bool follow = false, times = false;
  std::string output;
};

// With several services or instances in the log, each line says whose it is.
void PrintLogLine(const Json& line, const LogOptions& options, const Connection& connection,
                  bool prefix) {
  if (connection.json) {
    std::cout << line.dump(-1, ' ', false, Json::error_handler_t::replace) << "\n";
    return;
  }
  if (options.times) std::cout << Paint(Style::kDim, line.at("time").get<std::string>()) << " ";
  if (prefix) std::cout << Paint(Style::kDim, line.at("service").get<std::string>() + " | ");
  const std::string text = ForTerminal(line.at("text").get<std::string>());
  std::cout << (line.at("stderr").get<bool>() ? Paint(Style::kBusy, text) : text) << "\n";
}

absl::Status RunLogs(Api& api, const LogOptions& options, const Connection& connection) {
  if (!options.output.empty()) {
    std::string wanted = StrCat("app=\"", options.app, "\"");
    if (!options.service.empty()) wanted += StrCat(" service=\"", options.service, "\"");
    if (!options.instance.empty()) wanted += StrCat(" instance=\"", options.instance, "\"");
    TAKT_RETURN_IF_ERROR(api.Get(AppPath(options.app)).status());
    return ExportLogs(api, "?query=" + net::UrlEncode(wanted), options.output);
  }
  std::string query = StrCat("?tail=", options.tail);
  if (!options.service.empty()) query += "&service=" + net::UrlEncode(options.service);
  if (!options.instance.empty()) query += "&instance=" + net::UrlEncode(options.instance);
  bool prefix = false;
  if (options.service.empty() && options.instance.empty()) {
    TAKT_ASSIGN_OR_RETURN(const Json app, api.Get(AppPath(options.app)));
    prefix = app.at("services").size() > 1;
  }
  if (!options.follow) {
    TAKT_ASSIGN_OR_RETURN(const Json answer, api.Get(AppPath(options.app, "/logs" + query)));
    for (const Json& line : answer.at("lines")) PrintLogLine(line, options, connection, prefix);
    return absl::OkStatus();
  }
  return api.Stream(StrCat("/stream", query, "&app=", net::UrlEncode(options.app)),
                    [&](const net::ServerSentEvent& event) {
                      if (event.event == "log_end") return false;
                      if (event.event != "lines") return true;
                      const Json body = Json::parse(event.data);
                      for (const Json& line : body.at("lines")) {
                        PrintLogLine(line, options, connection, prefix);
                      }
                      std::cout.flush();
                      return std::cout.good();
                    });
}

struct EventOptions {
  std::string app;
  int tail = 50;
  bool follow = false;
};

void PrintEvent(const Json& event, const Connection& connection) {
  if (connection.json) {
    std::cout << event.dump(-1, ' ', false, Json::error_handler_t::replace) << "\n";
    return;
  }
  const std::string level = event.at("level"), app = event.at("app");
  const std::string kind = event.at("kind");
  std::cout << Paint(Style::kDim, event.at("time").get<std::string>()) << "  "
            << (app.empty() ? "-" : app) << "  "
            << (level == "error"     ? Paint(Style::kBad, kind)
                : level == "warning" ? Paint(Style::kBusy, kind)
                                     : kind)
            << "  " << ForTerminal(event.at("message").get<std::string>()) << "\n";
}

absl::Status RunEvents(Api& api, const EventOptions& options, const Connection& connection) {
  std::string query = StrCat("/events?limit=", options.tail);
  if (!options.app.empty()) query += "&app=" + net::UrlEncode(options.app);
  TAKT_ASSIGN_OR_RETURN(const Json answer, api.Get(query));
  for (const Json& event : answer.at("events")) PrintEvent(event, connection);
  if (!options.follow) return absl::OkStatus();
  std::cout.flush();
  return api.Stream(StrCat("/stream?after=", answer.at("last_id").get<std::int64_t>()),
                    [&](const net::ServerSentEvent& sent) {
                      if (sent.event != "event") return true;
                      const Json event = Json::parse(sent.data);
                      if (options.app.empty() || event.at("app") == options.app) {
                        PrintEvent(event, connection);
                        std::cout.flush();
                      }
                      return std::cout.good();
                    });
}

absl::Status RunEndpoints(Api& api, const NoOptions&, const Connection& connection) {
  TAKT_ASSIGN_OR_RETURN(const Json answer, api.Get("/endpoints"));
  if (connection.json) {
    PrintJson(answer);
    return absl::OkStatus();
  }
  Rows rows{{"ADDRESS", "PROTOCOL", "APP", "SERVICE", "ROLE", "PORT THERE"}};
  for (const Json& endpoint : answer.at("endpoints")) {
    rows.push_back({endpoint.at("address"), endpoint.at("protocol"), endpoint.at("app"),
                    endpoint.at("service"), endpoint.at("role"),
                    StrCat(endpoint.at("target").get<int>())});
  }
  std::cout << (rows.size() > 1 ? FormatTable(rows) : "no endpoints: nothing publishes a port\n");
  return absl::OkStatus();
}

struct VolumeName {
  std::string volume;
};

void DefineVolume(CLI::App& command, VolumeName& options) {
  command.add_option("VOLUME", options.volume, "the volume")->required();
}

struct CreateVolumeOptions : VolumeName {
  std::string driver = "local", device;
};

absl::Status RunCreateVolume(Api& api, const CreateVolumeOptions& options,
                             const Connection& connection) {
  Json body{{"name", options.volume}, {"driver", options.driver}, {"options", Json::object()}};
  if (!options.device.empty()) body["options"]["device"] = options.device;
  TAKT_ASSIGN_OR_RETURN(const Json volume, api.Post("/volumes", body));
  if (connection.json) {
    PrintJson(volume);
  } else {
    std::cout << "volume " << options.volume << " lies in "
              << volume.at("host_path").get<std::string>() << "\n";
  }
  return absl::OkStatus();
}

struct ListVolumesOptions {
  bool names = false;
};

absl::Status RunListVolumes(Api& api, const ListVolumesOptions& options,
                            const Connection& connection) {
  TAKT_ASSIGN_OR_RETURN(const Json answer, api.Get("/volumes"));
  if (options.names) {
    for (const Json& volume : answer.at("volumes")) {
      std::cout << volume.at("name").get<std::string>() << "\n";
    }
    return absl::OkStatus();
  }
  if (connection.json) {
    PrintJson(answer);
    return absl::OkStatus();
  }
  Rows rows{{"VOLUME", "DRIVER", "STATE", "APPS", "LIES IN"}};
  for (const Json& volume : answer.at("volumes")) {
    std::vector<std::string> users;
    for (const Json& user : volume.at("users")) users.push_back(user);
    const bool ready = volume.at("ready").get<bool>();
    rows.push_back({volume.at("name"), volume.at("driver"),
                    ready ? Paint(Style::kGood, "ready")
                          : Paint(Style::kBad, volume.at("reason").get<std::string>()),
                    absl::StrJoin(users, " "), volume.at("host_path")});
  }
  std::cout << (rows.size() > 1 ? FormatTable(rows)
                                : "no volumes: `takt volume create NAME` makes one\n");
  return absl::OkStatus();
}

struct RemoveVolumeOptions : VolumeName {
  bool yes = false;
};

absl::Status RunRemoveVolume(Api& api, const RemoveVolumeOptions& options,
                             const Connection& connection) {
  const std::string path = "/volumes/" + net::UrlEncode(options.volume);
  TAKT_ASSIGN_OR_RETURN(const Json volume, api.Get(path));
  if (!options.yes) {
    const bool foreign = volume.at("options").contains("device");
    TAKT_ASSIGN_OR_RETURN(
        const bool agreed,
        Ask(StrCat("Remove volume ", options.volume,
                   foreign ? "? Its directory " : " and everything in ",
                   volume.at("host_path").get<std::string>(), foreign ? " stays." : "?")));
    if (!agreed) return absl::CancelledError("nothing was done");
  }
  TAKT_RETURN_IF_ERROR(api.Delete(path).status());
  if (connection.json) {
    PrintJson(Json::object());
  } else {
    std::cout << "volume " << options.volume << " is removed\n";
  }
  return absl::OkStatus();
}

absl::Status RunImages(Api& api, const NoOptions&, const Connection& connection) {
  TAKT_ASSIGN_OR_RETURN(const Json answer, api.Get("/images"));
  if (connection.json) {
    PrintJson(answer);
    return absl::OkStatus();
  }
  Rows rows{{"IMAGE", "ROLE", "AVAILABLE", "WHAT RUNS"}};
  for (const Json& image : answer.at("images")) {
    rows.push_back({image.at("name"), image.at("role"),
                    image.at("available").get<bool>()
                        ? Paint(Style::kGood, "yes")
                        : Paint(Style::kBad, image.at("reason").get<std::string>()),
                    image.at("description")});
  }
  std::cout << FormatTable(rows);
  return absl::OkStatus();
}

absl::Status RunStatus(Api& api, const NoOptions&, const Connection& connection) {
  TAKT_ASSIGN_OR_RETURN(const Json system, api.Get("/system"));
  if (connection.json) {
    PrintJson(system);
    return absl::OkStatus();
  }
  const Json& counts = system.at("counts");
  const Json& runtime = system.at("runtime");
  std::cout << FormatTable({{"version", system.at("version")},
                            {"console", StrCat("http://", system.at("listen").get<std::string>())},
                            {"data", system.at("data_dir")},
                            {"runtime", runtime.at("name")},
                            {"apps", StrCat(counts.at("apps").get<int>(), ", ",
                                            counts.at("running_apps").get<int>(), " running")},
                            {"instances", StrCat(counts.at("instances").get<int>())},
                            {"volumes", StrCat(counts.at("volumes").get<int>())},
                            {"memory", FormatBytes(system.at("memory_bytes").get<std::uint64_t>())},
                            {"up", StrCat(system.at("uptime_seconds").get<int>(), "s")}});
  for (const Json& warning : runtime.at("warnings")) {
    std::cout << Paint(Style::kBusy, warning.get<std::string>()) << "\n";
  }
  return absl::OkStatus();
}

void DefineNothing(CLI::App&, NoOptions&) {}

}  // namespace

void AddPlatformCommands(CLI::App& app, int* exit_code) {
  AddClientCommand<LogOptions>(
      app, exit_code, "logs", "Print an app's log",
      [](CLI::App& command, LogOptions& options) {
        command.add_option("APP", options.app, "the app")->required();
        command.add_flag("-f,--follow", options.follow, "go on with what comes");
        command.add_option("--service", options.service, "only this service");
        command.add_option("--instance", options.instance, "only this instance");
        command.add_option("--tail", options.tail, "begin with the last so many lines")
            ->check(CLI::Range(0, 10'000))
            ->capture_default_str();
        command.add_flag("-t,--times", options.times, "with the time of each line");
        command.add_option("-o,--export", options.output,
                           "write all that the log store keeps of it to this file, a JSON object a "
                           "line; - is standard output, a name in .gz is packed");
      },
      RunLogs);
  AddClientCommand<EventOptions>(
      app, exit_code, "events", "Print what happened",
      [](CLI::App& command, EventOptions& options) {
        command.add_option("APP", options.app, "only this app");
        command.add_flag("-f,--follow", options.follow, "go on with what comes");
        command.add_option("--tail", options.tail, "begin with the last so many")
            ->check(CLI::Range(1, 10'000))
            ->capture_default_str();
      },
      RunEvents);
  AddClientCommand<NoOptions>(app, exit_code, "endpoints", "List where services can be reached",
                              DefineNothing, RunEndpoints);
  CLI::App* volume = app.add_subcommand("volume", "Create, list and remove volumes");
  volume->require_subcommand(1);
  AddClientCommand<CreateVolumeOptions>(
      *volume, exit_code, "create", "Create a volume",
      [](CLI::App& command, CreateVolumeOptions& options) {
        DefineVolume(command, options);
        command.add_option("--driver", options.driver, "kind of storage")->capture_default_str();
        command.add_option("--device", options.device, "a directory that exists (absolute)")
            ->type_name("DIR");
      },
      RunCreateVolume);
  AddClientCommand<ListVolumesOptions>(
      *volume, exit_code, "ls", "List the volumes",
      [](CLI::App& command, ListVolumesOptions& options) {
        command.add_flag("--names", options.names, "only the names, a line each");
      },
      RunListVolumes);
  AddClientCommand<RemoveVolumeOptions>(
      *volume, exit_code, "rm", "Remove a volume that no app uses",
      [](CLI::App& command, RemoveVolumeOptions& options) {
        DefineVolume(command, options);
        command.add_flag("-y,--yes", options.yes, "do not ask");
      },
      RunRemoveVolume);
  AddClientCommand<NoOptions>(app, exit_code, "images", "List the images that can run here",
                              DefineNothing, RunImages);
  AddClientCommand<NoOptions>(app, exit_code, "status",
                              "Show the daemon: version, counts, warnings", DefineNothing,
                              RunStatus);
}

}  // namespace takt::cli
