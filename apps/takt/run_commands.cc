// takt runs, models.
#include <cmath>
#include <iostream>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "client.h"
#include "print.h"
#include "table.h"

namespace takt::cli {
namespace {

using Rows = std::vector<std::vector<std::string>>;

constexpr const char* kNothing = "-";

// "5s", "3m10s", "2h05m"
std::string Duration(double seconds) {
  const auto s = std::llround(seconds);
  if (s < 60) return absl::StrFormat("%ds", s);
  if (s < 3600) return absl::StrFormat("%dm%02ds", s / 60, s % 60);
  return absl::StrFormat("%dh%02dm", s / 3600, s % 3600 / 60);
}

std::string Number(const Json& value) {
  if (value.is_null()) return kNothing;
  return value.is_string() ? value.get<std::string>()
                           : absl::StrFormat("%.4g", value.get<double>());
}

// "loss 0.12 (best 0.11)" of the metrics that have a best, the first few.
std::string MetricsOf(const Json& run) {
  constexpr std::size_t kMost = 2;
  std::vector<std::string> parts;
  for (const Json& metric : run.at("metrics")) {
    if (metric.at("best").is_null() || parts.size() == kMost) continue;
    const std::string writer = metric.at("writer");
    parts.push_back(StrCat(writer.empty() ? "" : writer + "/", metric.at("tag").get<std::string>(),
                           " ", Number(metric.at("last")), " (best ", Number(metric.at("best")),
                           ")"));
  }
  return parts.empty() ? kNothing : absl::StrJoin(parts, ", ");
}

// "digits: 2 (serves), 3"
std::string ModelOf(const Json& run) {
  const Json& model = run.at("model");
  if (model.is_null() || model.at("versions").empty()) return kNothing;
  std::vector<std::string> versions;
  for (const Json& version : model.at("versions")) {
    versions.push_back(StrCat(version.at("number").get<std::int64_t>(),
                              version.at("serves").get<bool>()    ? " (serves)"
                              : !version.at("exists").get<bool>() ? " (gone)"
                                                                  : ""));
  }
  return StrCat(model.at("name").get<std::string>(), ": ", absl::StrJoin(versions, ", "));
}

struct RunsOptions {
  std::string app;
  int limit = 50;
};

absl::Status RunRuns(Api& api, const RunsOptions& options, const Connection& connection) {
  std::string query = StrCat("/runs?limit=", options.limit);
  if (!options.app.empty()) query += "&app=" + net::UrlEncode(options.app);
  TAKT_ASSIGN_OR_RETURN(const Json answer, api.Get(query));
  if (connection.json) {
    PrintJson(answer);
    return absl::OkStatus();
  }
  const auto now = std::chrono::system_clock::now();
  Rows rows{{"APP", "RUN", "STATE", "BEGAN", "CPU", "RESTARTS", "REVISION", "METRICS", "MADE"}};
  for (const Json& run : answer.at("runs")) {
    rows.push_back({run.at("app"), StrCat(run.at("number").get<int>()),
                    PaintState(run.at("state").get<std::string>()), Age(run.at("started"), now),
                    Duration(run.at("cpu_seconds").get<double>()),
                    StrCat(run.at("restarts").get<int>()), StrCat(run.at("revision").get<int>()),
                    MetricsOf(run), ModelOf(run)});
  }
  std::cout << (rows.size() > 1 ? FormatTable(rows) : "no runs: no training service has started\n");
  for (const Json& run : answer.at("runs")) {
    for (const Json& finding : run.at("findings")) {
      std::cout << Paint(finding.at("alert").get<bool>() ? Style::kBad : Style::kBusy,
                         StrCat(run.at("app").get<std::string>(), " run ",
                                run.at("number").get<int>(), ": ",
                                finding.at("message").get<std::string>()))
                << "\n";
    }
  }
  return absl::OkStatus();
}

struct ModelsOptions {
  std::string app;
};

absl::Status RunModels(Api& api, const ModelsOptions& options, const Connection& connection) {
  const std::string query = options.app.empty() ? "" : "?app=" + net::UrlEncode(options.app);
  TAKT_ASSIGN_OR_RETURN(const Json answer, api.Get("/models" + query));
  if (connection.json) {
    PrintJson(answer);
    return absl::OkStatus();
  }
  Rows rows{{"MODEL", "LIES IN", "VERSION", "MADE BY", "SERVED BY"}};
  for (const Json& model : answer.at("models")) {
    const std::string volume = model.at("volume"), path = model.at("path");
    const std::string place = volume.empty() ? path : StrCat(volume, ":", path);
    if (model.at("versions").empty()) {
      rows.push_back({model.at("name"), place, kNothing, kNothing, kNothing});
    }
    for (const Json& version : model.at("versions")) {
      const Json& run = version.at("run");
      const std::vector<std::string> servers = version.at("served_by");
      rows.push_back({model.at("name"), place,
                      StrCat(version.at("number").get<std::int64_t>(),
                             version.at("complete").get<bool>() ? "" : " (not whole)"),
                      run.is_null() ? kNothing
                                    : StrCat(run.at("app").get<std::string>(), " run ",
                                             run.at("number").get<int>()),
                      servers.empty() ? kNothing : absl::StrJoin(servers, " ")});
    }
  }
  std::cout << (rows.size() > 1 ? FormatTable(rows) : "no models: no app makes or loads one\n");
  return absl::OkStatus();
}

}  // namespace

void AddRunCommands(CLI::App& app, int* exit_code) {
  AddClientCommand<RunsOptions>(
      app, exit_code, "runs", "List training runs, newest first",
      [](CLI::App& command, RunsOptions& options) {
        command.add_option("APP", options.app, "only this app's");
        command.add_option("--limit", options.limit, "at most so many")
            ->check(CLI::Range(1, 200))
            ->capture_default_str();
      },
      RunRuns);
  AddClientCommand<ModelsOptions>(
      app, exit_code, "models", "List models: which run made which version, who serves it",
      [](CLI::App& command, ModelsOptions& options) {
        command.add_option("APP", options.app, "only what this app makes or loads");
      },
      RunModels);
}

}  // namespace takt::cli
