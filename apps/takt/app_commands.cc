// takt up, apps, show, revisions, config, rollback, stop, start, rm.
#include <unistd.h>

#include <chrono>
#include <iostream>
#include <iterator>
#include <thread>

#include "absl/strings/str_join.h"
#include "base/fs.h"
#include "base/ids.h"
#include "base/text.h"
#include "client.h"
#include "print.h"
#include "table.h"
#include "template/template.h"

namespace takt::cli {
namespace {

using std::chrono::steady_clock;
using Rows = std::vector<std::vector<std::string>>;

struct AppName {
  std::string app;
};

void DefineApp(CLI::App& command, AppName& options) {
  command.add_option("APP", options.app, "the app")->required();
}

// --wait STATE, for the commands after which something starts.
struct Waiting {
  std::string wait;
  double timeout = 300;
};

void DefineWaiting(CLI::App& command, Waiting& options) {
  command.add_option("--wait", options.wait, "wait until the app is running, or completed")
      ->check(CLI::IsMember({"running", "completed"}))
      ->type_name("STATE");
  command.add_option("--timeout", options.timeout, "how long to wait")
      ->type_name("SECONDS")
      ->check(CLI::Range(0.0, 1e6))
      ->capture_default_str();
}

std::string StateLine(const Json& app) {
  const std::string reason = app.at("reason");
  return StrCat(PaintState(app.at("state").get<std::string>()),
                reason.empty() ? "" : StrCat(": ", reason));
}

// DEADLINE_EXCEEDED when the state does not come in time, UNKNOWN when the app ends otherwise.
absl::StatusOr<Json> WaitFor(Api& api, const std::string& name, const Waiting& waiting, Json app) {
  const auto deadline = steady_clock::now() + std::chrono::duration<double>(waiting.timeout);
  while (true) {
    const std::string state = app.at("state"), reason = app.at("reason");
    if (state == waiting.wait || (waiting.wait == "running" && state == "completed")) return app;
    const bool ended = state == "failed" || state == "stopped" || state == "completed";
    if (ended && waiting.wait == "stopped") return app;
    if (ended) {
      return absl::UnknownError(StrCat("app \"", name, "\" is ", state, ", not ", waiting.wait,
                                       reason.empty() ? "" : ": ", reason));
    }
    if (steady_clock::now() >= deadline) {
      return absl::DeadlineExceededError(StrCat("app \"", name, "\" is still ", state, " after ",
                                                waiting.timeout, " s", reason.empty() ? "" : ": ",
                                                reason));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    TAKT_ASSIGN_OR_RETURN(app, api.Get(AppPath(name)));
  }
}

// The end of every command that changes an app: waits where asked, then says how the app is.
absl::Status Conclude(Api& api, const std::string& name, const Waiting& waiting,
                      const Connection& connection, Json app) {
  if (!waiting.wait.empty()) {
    TAKT_ASSIGN_OR_RETURN(app, WaitFor(api, name, waiting, std::move(app)));
  }
  if (connection.json) {
    PrintJson(app);
    return absl::OkStatus();
  }
  std::cout << name << " revision " << app.at("revision").at("number") << " is " << StateLine(app)
            << "\n";
  for (const Json& service : app.at("services")) {
    for (const std::string& address : EndpointsOf(service)) {
      std::cout << "  " << service.at("name").get<std::string>() << " at " << address << "\n";
    }
  }
  return absl::OkStatus();
}

// What a user says about a configuration on the command line.
struct Settings {
  std::vector<std::string> sets, unsets, subdirectories;
  std::string why;
};

void DefineSettings(CLI::App& command, Settings& options) {
  command.add_option("--set", options.sets, "a parameter's value; may be repeated")
      ->type_name("NAME=VALUE")
      ->allow_extra_args(false);
  command
      .add_option("--subdirectory", options.subdirectories,
                  "the directory of a volume that this app sees as the volume; may be repeated")
      ->type_name("VOLUME=DIR")
      ->allow_extra_args(false);
  command.add_option("--why", options.why, "kept with the revision")->type_name("TEXT");
}

absl::StatusOr<std::pair<std::string, std::string>> SplitPair(const std::string& text,
                                                              std::string_view option,
                                                              std::string_view form) {
  const std::size_t equals = text.find('=');
  if (equals == 0 || equals == std::string::npos) {
    return absl::InvalidArgumentError(StrCat(option, ": expected ", form, ", got \"", text, "\""));
  }
  return std::pair(text.substr(0, equals), text.substr(equals + 1));
}

// Lays the settings over a configuration.
absl::Status ApplySettings(const Settings& settings, Json& configuration) {
  Json& values = configuration["values"];
  Json& volumes = configuration["volume_options"];
  if (!values.is_object()) values = Json::object();
  if (!volumes.is_object()) volumes = Json::object();
  for (const std::string& set : settings.sets) {
    TAKT_ASSIGN_OR_RETURN(const auto pair, SplitPair(set, "--set", "NAME=VALUE"));
    values[pair.first] = pair.second;
  }
  for (const std::string& name : settings.unsets) {
    if (!values.contains(name)) {
      return absl::NotFoundError(StrCat("--unset ", name, ": the app has no such value"));
    }
    values.erase(name);
  }
  for (const std::string& text : settings.subdirectories) {
    TAKT_ASSIGN_OR_RETURN(const auto pair, SplitPair(text, "--subdirectory", "VOLUME=DIR"));
    volumes[pair.first]["subdirectory"] = pair.second;
  }
  if (!settings.why.empty()) configuration["why"] = settings.why;
  return absl::OkStatus();
}

absl::Status ReadTemplateInto(const std::string& file, Json& configuration) {
  if (file == "-") {
    configuration["template"] = std::string(std::istreambuf_iterator<char>(std::cin), {});
    configuration["template_name"] = "template";
    return absl::OkStatus();
  }
  TAKT_ASSIGN_OR_RETURN(configuration["template"], ReadFile(file, templates::kMaxTemplateBytes));
  configuration["template_name"] = file.substr(file.rfind('/') + 1);
  return absl::OkStatus();
}

// The app's name where nobody gave one: the template's `name:`, else the file's.
absl::StatusOr<std::string> NameFor(Api& api, const std::string& file, const Json& configuration) {
  TAKT_ASSIGN_OR_RETURN(
      const Json check,
      api.Post("/templates/check", Json{{"template", configuration.at("template")},
                                        {"template_name", configuration.at("template_name")},
                                        {"values", configuration.at("values")}}));
  std::string name = check.at("name");
  if (name.empty()) {
    name = file.substr(file.rfind('/') + 1);
    name = name.substr(0, name.find('.'));
  }
  if (!IsValidName(name)) {
    return absl::InvalidArgumentError(
        StrCat("\"", name, "\" cannot be an app's name: give one with --name"));
  }
  return name;
}

struct Consent {
  bool yes = false;
  bool create_volumes = false;
};

void DefineConsent(CLI::App& command, Consent& options) {
  command.add_flag("-y,--yes", options.yes, "do not ask");
  command.add_flag("--create-volumes", options.create_volumes,
                   "create the volumes that are missing, local");
}

// Shows a preview and asks. False: the user said no. Sets create_volumes in `body` where agreed.
absl::StatusOr<bool> Agree(const Json& preview, const Consent& consent,
                           const Connection& connection, bool ask, Json& body) {
  if (!connection.json) {
    PrintWarnings(preview.at("issues"));
    if (ask) PrintPreview(preview);
  }
  std::vector<std::string> missing;
  for (const Json& volume : preview.at("missing_volumes")) missing.push_back(volume);
  if (consent.create_volumes) {
    body["create_volumes"] = true;
  } else if (!missing.empty()) {
    const std::string names = absl::StrJoin(missing, ", ");
    if (consent.yes || isatty(STDIN_FILENO) != 1) {
      return absl::FailedPreconditionError(
          StrCat("no volume ", names, ": --create-volumes creates it, or `takt volume create ",
                 missing[0], "`"));
    }
    TAKT_ASSIGN_OR_RETURN(const bool agreed, Ask(StrCat("Create volume ", names, "?")));
    if (!agreed) return false;
    body["create_volumes"] = true;
  }
  if (!ask || consent.yes) return true;
  return Ask("Go ahead?");
}

absl::Status NothingDone() { return absl::CancelledError("nothing was done"); }

// Preview, consent, PUT: `config` and `up` of an app that exists.
absl::Status ChangeConfiguration(Api& api, const std::string& name, Json body,
                                 const Consent& consent, const Waiting& waiting,
                                 const Connection& connection) {
  TAKT_ASSIGN_OR_RETURN(const Json preview,
                        api.Put(AppPath(name, "/configuration?dry_run=true"), body));
  if (!preview.at("anything_changes").get<bool>()) {
    if (!connection.json) std::cout << "no change\n";
    TAKT_ASSIGN_OR_RETURN(Json app, api.Get(AppPath(name)));
    return Conclude(api, name, waiting, connection, std::move(app));
  }
  TAKT_ASSIGN_OR_RETURN(const bool agreed, Agree(preview, consent, connection, true, body));
  if (!agreed) return NothingDone();
  TAKT_ASSIGN_OR_RETURN(Json app, api.Put(AppPath(name, "/configuration"), body));
  return Conclude(api, name, waiting, connection, std::move(app));
}

// The current configuration of an app, as a body for PUT.
absl::StatusOr<Json> CurrentConfiguration(Api& api, const std::string& name) {
  TAKT_ASSIGN_OR_RETURN(Json app, api.Get(AppPath(name)));
  return app.at("revision").at("configuration");
}

struct UpOptions : Settings, Consent, Waiting {
  std::string file, name;
};

absl::Status RunUp(Api& api, const UpOptions& options, const Connection& connection) {
  Json body;
  TAKT_RETURN_IF_ERROR(ReadTemplateInto(options.file, body));
  TAKT_RETURN_IF_ERROR(ApplySettings(options, body));
  std::string name = options.name;
  if (name.empty()) {
    TAKT_ASSIGN_OR_RETURN(name, NameFor(api, options.file, body));
  }
  auto current = CurrentConfiguration(api, name);
  if (current.ok()) {
    (*current)["template"] = body["template"];
    (*current)["template_name"] = body["template_name"];
    TAKT_RETURN_IF_ERROR(ApplySettings(options, *current));
    return ChangeConfiguration(api, name, std::move(*current), options, options, connection);
  }
  if (current.status().code() != absl::StatusCode::kNotFound) return current.status();
  body["name"] = name;
  TAKT_ASSIGN_OR_RETURN(const Json preview, api.Post("/apps?dry_run=true", body));
  TAKT_ASSIGN_OR_RETURN(const bool agreed, Agree(preview, options, connection, false, body));
  if (!agreed) return NothingDone();
  TAKT_ASSIGN_OR_RETURN(Json app, api.Post("/apps", body));
  return Conclude(api, name, options, connection, std::move(app));
}

struct ConfigOptions : AppName, Settings, Consent, Waiting {
  std::string file;
};

absl::Status RunConfig(Api& api, const ConfigOptions& options, const Connection& connection) {
  TAKT_ASSIGN_OR_RETURN(Json body, CurrentConfiguration(api, options.app));
  if (!options.file.empty()) TAKT_RETURN_IF_ERROR(ReadTemplateInto(options.file, body));
  TAKT_RETURN_IF_ERROR(ApplySettings(options, body));
  return ChangeConfiguration(api, options.app, std::move(body), options, options, connection);
}

struct RollbackOptions : AppName, Consent, Waiting {
  int revision = 0;
  std::string why;
};

absl::Status RunRollback(Api& api, const RollbackOptions& options, const Connection& connection) {
  int revision = options.revision;
  if (revision == 0) {
    TAKT_ASSIGN_OR_RETURN(const Json app, api.Get(AppPath(options.app)));
    revision = app.at("revision").at("number").get<int>() - 1;
    if (revision < 1) {
      return absl::FailedPreconditionError(
          StrCat("app \"", options.app, "\" has one revision: there is nothing to go back to"));
    }
  }
  Json body{{"revision", revision}};
  if (!options.why.empty()) body["why"] = options.why;
  TAKT_ASSIGN_OR_RETURN(const Json preview,
                        api.Post(AppPath(options.app, "/rollback?dry_run=true"), body));
  Json ignored;
  TAKT_ASSIGN_OR_RETURN(const bool agreed, Agree(preview, options, connection, true, ignored));
  if (!agreed) return NothingDone();
  TAKT_ASSIGN_OR_RETURN(Json app, api.Post(AppPath(options.app, "/rollback"), body));
  return Conclude(api, options.app, options, connection, std::move(app));
}

struct StopOptions : AppName {
  bool no_wait = false;
};

absl::Status RunStop(Api& api, const StopOptions& options, const Connection& connection) {
  TAKT_ASSIGN_OR_RETURN(Json app, api.Post(AppPath(options.app, "/stop"), Json::object()));
  const Waiting waiting{.wait = options.no_wait ? "" : "stopped"};
  return Conclude(api, options.app, waiting, connection, std::move(app));
}

struct StartOptions : AppName, Waiting {};

absl::Status RunStart(Api& api, const StartOptions& options, const Connection& connection) {
  TAKT_ASSIGN_OR_RETURN(Json app, api.Post(AppPath(options.app, "/start"), Json::object()));
  return Conclude(api, options.app, options, connection, std::move(app));
}

struct RemoveOptions : AppName {
  bool yes = false;
  bool no_wait = false;
};

// Until the app is gone: its instances may use their grace period.
absl::Status WaitUntilGone(Api& api, const std::string& name) {
  const auto deadline = steady_clock::now() + std::chrono::duration<double>(Waiting().timeout);
  while (true) {
    const auto app = api.Get(AppPath(name));
    if (app.status().code() == absl::StatusCode::kNotFound) return absl::OkStatus();
    if (!app.ok()) return app.status();
    if (steady_clock::now() >= deadline) {
      return absl::DeadlineExceededError(StrCat("app \"", name, "\" is still ",
                                                app->at("state").get<std::string>(), " after ",
                                                Waiting().timeout, " s"));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

absl::Status RunRemove(Api& api, const RemoveOptions& options, const Connection& connection) {
  TAKT_ASSIGN_OR_RETURN(const Json removal, api.Get(AppPath(options.app, "/removal")));
  if (!connection.json) {
    for (const Json& volume : removal.at("volumes_kept")) {
      std::cout << "volume " << volume.get<std::string>() << " stays\n";
    }
    for (const Json& shared : removal.at("shared_with")) {
      std::cout << "shared: " << shared.get<std::string>() << "\n";
    }
  }
  if (!options.yes) {
    TAKT_ASSIGN_OR_RETURN(const bool agreed, Ask(StrCat("Stop and remove app ", options.app,
                                                        ", its revisions and its logs?")));
    if (!agreed) return NothingDone();
  }
  TAKT_ASSIGN_OR_RETURN(const Json done, api.Delete(AppPath(options.app)));
  if (!options.no_wait) TAKT_RETURN_IF_ERROR(WaitUntilGone(api, options.app));
  if (connection.json) {
    PrintJson(done);
  } else {
    std::cout << options.app << " is removed\n";
  }
  return absl::OkStatus();
}

struct AppsOptions {
  bool names = false;
};

absl::Status RunApps(Api& api, const AppsOptions& options, const Connection& connection) {
  TAKT_ASSIGN_OR_RETURN(const Json answer, api.Get("/apps"));
  if (connection.json) {
    PrintJson(answer);
    return absl::OkStatus();
  }
  const auto now = std::chrono::system_clock::now();
  Rows rows;
  for (const Json& app : answer.at("apps")) {
    if (options.names) {
      std::cout << app.at("name").get<std::string>() << "\n";
      continue;
    }
    std::vector<std::string> values, addresses;
    for (const auto& [key, value] : app.at("values").items()) {
      values.push_back(StrCat(key, "=", value.get<std::string>()));
    }
    for (const Json& service : app.at("services")) {
      for (std::string& address : EndpointsOf(service)) addresses.push_back(std::move(address));
    }
    rows.push_back({app.at("name"), PaintState(app.at("state").get<std::string>()),
                    StrCat(app.at("revision").at("number").get<int>()),
                    Age(app.at("updated_at"), now), absl::StrJoin(values, " "),
                    absl::StrJoin(addresses, " "), app.at("reason")});
  }
  if (options.names) return absl::OkStatus();
  if (rows.empty()) {
    std::cout << "no apps: `takt up FILE` deploys one\n";
    return absl::OkStatus();
  }
  rows.insert(rows.begin(),
              {"APP", "STATE", "REVISION", "CHANGED", "VALUES", "ENDPOINTS", "REASON"});
  std::cout << FormatTable(rows);
  return absl::OkStatus();
}

std::string ExitOf(const Json& instance) {
  if (instance.at("oom_killed").get<bool>()) return "out of memory";
  if (instance.at("signal").is_number()) {
    return StrCat("signal ", instance.at("signal").get<int>());
  }
  return instance.at("exit_code").is_number() ? StrCat(instance.at("exit_code").get<int>()) : "";
}

absl::Status RunShow(Api& api, const AppName& options, const Connection& connection) {
  TAKT_ASSIGN_OR_RETURN(const Json app, api.Get(AppPath(options.app)));
  if (connection.json) {
    PrintJson(app);
    return absl::OkStatus();
  }
  const auto now = std::chrono::system_clock::now();
  const Json& revision = app.at("revision");
  std::cout << Paint(Style::kBold, options.app) << " is " << StateLine(app) << "\n";
  const std::string why = revision.value("why", "");
  std::cout << "revision " << revision.at("number") << ", made "
            << Age(revision.at("created_at"), now) << " ago by "
            << revision.at("author").get<std::string>() << (why.empty() ? "" : ": ") << why << "\n";
  Rows values{{"PARAMETER", "VALUE"}};
  for (const auto& [key, value] : app.at("values").items()) values.push_back({key, value});
  if (values.size() > 1) std::cout << "\n" << FormatTable(values);
  Rows services{{"SERVICE", "ROLE", "STATE", "IMAGE", "REASON"}};
  Rows instances{{"INSTANCE", "STATE", "REVISION", "AGE", "EXIT", "MEMORY", "ENDPOINTS", "REASON"}};
  for (const Json& service : app.at("services")) {
    services.push_back({service.at("name"), service.at("role"),
                        PaintState(service.at("state").get<std::string>()), service.at("image"),
                        service.at("reason")});
    for (const Json& instance : service.at("instances")) {
      std::vector<std::string> addresses;
      if (IsLive(instance)) {
        for (const Json& endpoint : instance.at("endpoints")) {
          addresses.push_back(endpoint.at("address"));
        }
      }
      const auto memory = instance.at("memory_bytes").get<std::uint64_t>();
      instances.push_back({instance.at("id"), PaintState(instance.at("state").get<std::string>()),
                           StrCat(instance.at("revision").get<int>()),
                           Age(instance.at("started_at"), now), ExitOf(instance),
                           memory == 0 ? "" : FormatBytes(memory), absl::StrJoin(addresses, " "),
                           instance.at("reason")});
    }
  }
  std::cout << "\n" << FormatTable(services);
  if (instances.size() > 1) std::cout << "\n" << FormatTable(instances);
  return absl::OkStatus();
}

absl::Status RunRevisions(Api& api, const AppName& options, const Connection& connection) {
  TAKT_ASSIGN_OR_RETURN(const Json answer, api.Get(AppPath(options.app, "/revisions")));
  if (connection.json) {
    PrintJson(answer);
    return absl::OkStatus();
  }
  const auto now = std::chrono::system_clock::now();
  Rows rows{{"REVISION", "AGE", "AUTHOR", "VALUES", "WHY"}};
  for (const Json& revision : answer.at("revisions")) {
    std::vector<std::string> values;
    for (const auto& [key, value] : revision.at("configuration").at("values").items()) {
      values.push_back(StrCat(key, "=", value.get<std::string>()));
    }
    rows.push_back({StrCat(revision.at("number").get<int>()), Age(revision.at("created_at"), now),
                    revision.at("author"), absl::StrJoin(values, " "), revision.at("why")});
  }
  std::cout << FormatTable(rows);
  return absl::OkStatus();
}

}  // namespace

void AddAppCommands(CLI::App& app, int* exit_code) {
  AddClientCommand<UpOptions>(
      app, exit_code, "up", "Deploy a template; an app that exists gets a new revision",
      [](CLI::App& command, UpOptions& options) {
        command.add_option("FILE", options.file, "the template; - reads standard input")
            ->required();
        command.add_option("--name", options.name, "name of the app (default: the template's)");
        DefineSettings(command, options);
        DefineConsent(command, options);
        DefineWaiting(command, options);
      },
      RunUp);
  AddClientCommand<AppsOptions>(
      app, exit_code, "apps", "List the apps",
      [](CLI::App& command, AppsOptions& options) {
        command.add_flag("--names", options.names, "only the names, a line each");
      },
      RunApps);
  AddClientCommand<AppName>(app, exit_code, "show", "Show an app: state, values, instances",
                            DefineApp, RunShow);
  AddClientCommand<AppName>(app, exit_code, "revisions", "List an app's revisions", DefineApp,
                            RunRevisions);
  AddClientCommand<ConfigOptions>(
      app, exit_code, "config", "Change an app's configuration: shows the difference, asks",
      [](CLI::App& command, ConfigOptions& options) {
        DefineApp(command, options);
        command.add_option("--template", options.file, "another template")->type_name("FILE");
        DefineSettings(command, options);
        command.add_option("--unset", options.unsets, "back to the default; may be repeated")
            ->type_name("NAME")
            ->allow_extra_args(false);
        DefineConsent(command, options);
        DefineWaiting(command, options);
      },
      RunConfig);
  AddClientCommand<RollbackOptions>(
      app, exit_code, "rollback", "Make a new revision out of an older one",
      [](CLI::App& command, RollbackOptions& options) {
        DefineApp(command, options);
        command.add_option("REVISION", options.revision, "number (default: the one before)")
            ->check(CLI::Range(1, 1'000'000'000));
        command.add_option("--why", options.why, "kept with the revision")->type_name("TEXT");
        command.add_flag("-y,--yes", options.yes, "do not ask");
        DefineWaiting(command, options);
      },
      RunRollback);
  AddClientCommand<StopOptions>(
      app, exit_code, "stop", "Stop an app; records and logs stay",
      [](CLI::App& command, StopOptions& options) {
        DefineApp(command, options);
        command.add_flag("--no-wait", options.no_wait, "do not wait until it has stopped");
      },
      RunStop);
  AddClientCommand<StartOptions>(
      app, exit_code, "start", "Start an app again, one that completed too",
      [](CLI::App& command, StartOptions& options) {
        DefineApp(command, options);
        DefineWaiting(command, options);
      },
      RunStart);
  AddClientCommand<RemoveOptions>(
      app, exit_code, "rm", "Stop and remove an app; its volumes stay",
      [](CLI::App& command, RemoveOptions& options) {
        DefineApp(command, options);
        command.add_flag("-y,--yes", options.yes, "do not ask");
        command.add_flag("--no-wait", options.no_wait, "do not wait until it is gone");
      },
      RunRemove);
}

}  // namespace takt::cli
