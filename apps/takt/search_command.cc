// takt search: the logs of all apps, by the query language of docs/logs.md.
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iostream>

#include "absl/strings/numbers.h"
#include "base/clock.h"
#include "client.h"
#include "print.h"

namespace takt::cli {
namespace {

struct SearchOptions {
  std::string query;
  std::string since = "1h";
  int limit = 500;
  int context = 0;
  bool follow = false;
  std::string output;
};

// "15m", "2h", "3d", "90s" before now, as RFC 3339.
absl::StatusOr<std::string> SinceTime(const std::string& text) {
  std::int64_t number = 0;
  std::int64_t unit = 0;
  if (!text.empty()) {
    switch (text.back()) {
      case 's':
        unit = 1;
        break;
      case 'm':
        unit = 60;
        break;
      case 'h':
        unit = 3600;
        break;
      case 'd':
        unit = 86'400;
        break;
      default:
        break;
    }
  }
  if (unit == 0 || !absl::SimpleAtoi(text.substr(0, text.size() - 1), &number) || number <= 0 ||
      number > 1'000'000) {
    return absl::InvalidArgumentError(
        StrCat("--since: expected a time like 90s, 15m, 2h or 3d, got \"", text, "\""));
  }
  return FormatRfc3339(RealClock().Now() - std::chrono::seconds(number * unit));
}

void PrintEntry(const Json& entry, const Connection& connection) {
  if (connection.json) {
    std::cout << entry.dump(-1, ' ', false, Json::error_handler_t::replace) << "\n";
    return;
  }
  const std::string level = entry.at("level");
  const std::string text = ForTerminal(entry.at("text").get<std::string>());
  std::cout << Paint(Style::kDim, entry.at("time").get<std::string>()) << " "
            << Paint(Style::kDim, StrCat(entry.at("app").get<std::string>(), "/",
                                         entry.at("service").get<std::string>(), " | "))
            << (level == "error" || level == "fatal" ? Paint(Style::kBad, text)
                : level == "warn"                    ? Paint(Style::kBusy, text)
                                                     : text)
            << "\n";
}

absl::Status RunSearch(Api& api, const SearchOptions& options, const Connection& connection) {
  const std::string query = "?query=" + net::UrlEncode(options.query);
  if (options.follow) {
    absl::Status refused;
    TAKT_RETURN_IF_ERROR(api.Stream("/stream" + query, [&](const net::ServerSentEvent& event) {
      if (event.event == "entries_refused") {
        refused =
            absl::ResourceExhaustedError(Json::parse(event.data).at("message").get<std::string>());
        return false;
      }
      if (event.event != "entries") return true;
      const Json found = Json::parse(event.data);
      if (const std::uint64_t skipped = found.at("skipped"); skipped > 0) {
        std::cerr << "takt: " << skipped << " entries came too fast and are not shown here\n";
      }
      for (const Json& entry : found.at("entries")) PrintEntry(entry, connection);
      std::cout.flush();
      return std::cout.good();
    }));
    return refused;
  }
  TAKT_ASSIGN_OR_RETURN(const std::string from, SinceTime(options.since));
  if (!options.output.empty()) {
    return ExportLogs(api, StrCat(query, "&from=", net::UrlEncode(from)), options.output);
  }
  TAKT_ASSIGN_OR_RETURN(const Json answer, api.Get(StrCat("/logs", query, "&limit=", options.limit,
                                                          "&from=", net::UrlEncode(from))));
  const Json& entries = answer.at("entries");  // newest first: for reading the other way round
  for (auto entry = entries.rbegin(); entry != entries.rend(); ++entry) {
    if (options.context == 0) {
      PrintEntry(*entry, connection);
      continue;
    }
    TAKT_ASSIGN_OR_RETURN(const Json around,
                          api.Get(StrCat("/logs/context?id=", entry->at("id").get<std::string>(),
                                         "&before=", options.context, "&after=", options.context)));
    for (const Json& each : around.at("entries")) PrintEntry(each, connection);
    if (!connection.json && std::next(entry) != entries.rend()) {
      std::cout << Paint(Style::kDim, "--") << "\n";
    }
  }
  if (!answer.at("next").is_null()) {
    std::cerr << "takt: the newest " << options.limit << " are shown; there are more (--limit)\n";
  }
  if (!answer.at("complete").get<bool>()) {
    std::cerr << "takt: the search took too long and gave up: shorten the time with --since\n";
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status ExportLogs(Api& api, const std::string& query, const std::string& output) {
  const bool to_file = output != "-";
  const std::string path =
      StrCat("/logs/export", query, output.ends_with(".gz") ? "&format=ndjson.gz" : "");
  const std::string partial = output + ".part";
  std::ofstream file;
  if (to_file) {
    file.open(partial, std::ios::binary | std::ios::trunc);
    if (!file) return ErrnoStatus(errno, partial);
  }
  std::ostream& out = to_file ? file : std::cout;
  absl::Status status = api.Download(path, [&](std::string_view piece) {
    out.write(piece.data(), static_cast<std::streamsize>(piece.size()));
    return out.good();
  });
  out.flush();
  if (status.ok() && !out.good()) {
    status = absl::UnavailableError(StrCat(output, ": cannot be written"));
  }
  if (!to_file) return status;
  file.close();
  if (status.ok() && std::rename(partial.c_str(), output.c_str()) != 0) {
    status = ErrnoStatus(errno, output);
  }
  if (!status.ok()) std::remove(partial.c_str());
  return status;
}

void AddSearchCommand(CLI::App& app, int* exit_code) {
  AddClientCommand<SearchOptions>(
      app, exit_code, "search", "Search the logs of all apps",
      [](CLI::App& command, SearchOptions& options) {
        command.add_option("query", options.query,
                           "Words, \"phrases\", /regex/, level>=warn, app=a, field=value, and, or, "
                           "not; empty: everything");
        command.add_option("--since", options.since, "How far back: 90s, 15m, 2h, 3d")
            ->capture_default_str();
        command.add_option("--limit", options.limit, "The newest so many")
            ->check(CLI::Range(1, 10'000))
            ->capture_default_str();
        command.add_option("-C,--context", options.context, "Entries around each, of its stream")
            ->check(CLI::Range(0, 1000));
        command.add_flag("-f,--follow", options.follow, "What matches from now on");
        command.add_option("-o,--export", options.output,
                           "Write all that matches to this file, oldest first, a JSON object a "
                           "line; - is standard output, a name in .gz is packed");
      },
      RunSearch);
}

}  // namespace takt::cli
