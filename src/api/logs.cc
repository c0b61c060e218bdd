#include "api/logs.h"

#include <algorithm>

#include "absl/strings/numbers.h"
#include "api/convert.h"
#include "api/errors.h"
#include "base/clock.h"

namespace takt::api {
namespace {

void SortByTime(std::vector<LogEntry>* entries) {
  std::stable_sort(entries->begin(), entries->end(),
                   [](const LogEntry& a, const LogEntry& b) { return a.order < b.order; });
}

// Appends an instance's lines, oldest first.
void Append(const std::string& instance, const std::string& service,
            std::vector<runtime::LogLine> lines, std::vector<LogEntry>* entries) {
  std::chrono::system_clock::time_point order;
  for (runtime::LogLine& line : lines) {
    order = std::max(order, line.time);
    line.instance = instance;
    entries->push_back({service, std::move(line), order});
  }
}

}  // namespace

std::string FormatLogCursor(const LogCursor& cursor) {
  std::string text;
  for (const auto& [instance, position] : cursor) {
    text.append(StrCat(text.empty() ? "" : ",", instance, ":", position));
  }
  return text;
}

absl::StatusOr<LogCursor> ParseLogCursor(std::string_view text) {
  LogCursor cursor;
  const absl::Status bad = absl::InvalidArgumentError(
      StrCat("cursor: expected one of an earlier answer, got \"", text.substr(0, 60), "\""));
  std::string_view rest = text;
  while (!rest.empty()) {
    const std::size_t comma = std::min(rest.find(','), rest.size());
    const std::string_view part = rest.substr(0, comma);
    const std::size_t colon = part.rfind(':');
    std::uint64_t position = 0;
    if (colon == std::string_view::npos || colon == 0 ||
        !absl::SimpleAtoi(ToAbsl(part.substr(colon + 1)), &position)) {
      return bad;
    }
    cursor[std::string(part.substr(0, colon))] = position;
    rest.remove_prefix(std::min(comma + 1, rest.size()));
  }
  return cursor;
}

void Write(JsonWriter& w, const LogEntry& entry) {
  w.BeginObject()
      .Field("time", FormatRfc3339(entry.line.time))
      .Field("service", entry.service)
      .Field("instance", entry.line.instance)
      .Field("stderr", entry.line.is_stderr)
      .Field("text", entry.line.text)
      .EndObject();
}

void WriteLogPage(const LogPage& page, const LogCursor& cursor, std::string* out) {
  JsonWriter w(out);
  w.BeginObject();
  WriteArray(w, "lines", page.entries);
  w.Field("cursor", FormatLogCursor(cursor)).EndObject();
}

absl::StatusOr<std::map<std::string, std::string>> SelectInstances(const line::App& app,
                                                                   const LogSelection& selection) {
  std::map<std::string, std::string> instances;
  std::vector<std::string_view> services;
  bool service_found = selection.service.empty();
  for (const line::ServiceView& service : app.services) {
    services.push_back(service.spec.name);
    if (!selection.service.empty() && service.spec.name != selection.service) continue;
    service_found = true;
    for (const runtime::InstanceStatus& each : service.instances) {
      if (selection.instance.empty() || each.id == selection.instance) {
        instances.emplace(each.id, service.spec.name);
      }
    }
  }
  if (!service_found) {
    const absl::Status unknown =
        UnknownName("service", selection.service, selection.service, services);
    return absl::NotFoundError(StrCat("app ", app.name, ": ", ToStd(unknown.message())));
  }
  if (instances.empty() && !selection.instance.empty()) {
    return absl::NotFoundError(
        StrCat("app ", app.name, ": there is no instance ", selection.instance));
  }
  return instances;
}

LogPage ReadLogs(runtime::Runtime& runtime, const std::map<std::string, std::string>& instances,
                 std::size_t lines, std::size_t bytes, LogCursor* cursor) {
  LogPage page;
  for (const auto& [instance, service] : instances) {
    auto read = runtime.ReadLog(instance, (*cursor)[instance], lines);
    if (!read.ok()) continue;
    page.more = page.more || read->size() == lines;
    Append(instance, service, *std::move(read), &page.entries);
  }
  SortByTime(&page.entries);
  std::size_t taken = 0, kept = 0;
  while (kept < page.entries.size() && kept < lines && taken < bytes) {
    const runtime::LogLine& line = page.entries[kept].line;
    taken += line.text.size();
    (*cursor)[line.instance] = line.cursor;
    ++kept;
  }
  page.more = page.more || kept < page.entries.size();
  page.entries.resize(kept);
  return page;
}

LogPage TailLogs(runtime::Runtime& runtime, const std::map<std::string, std::string>& instances,
                 std::size_t lines, LogCursor* cursor) {
  LogPage page;
  for (const auto& [instance, service] : instances) {
    const auto from = runtime.TailCursor(instance, lines);
    if (!from.ok()) continue;
    (*cursor)[instance] = *from;
    auto read = runtime.ReadLog(instance, *from, lines);
    if (!read.ok()) continue;
    if (!read->empty()) (*cursor)[instance] = read->back().cursor;
    Append(instance, service, *std::move(read), &page.entries);
  }
  SortByTime(&page.entries);
  std::size_t bytes = 0, kept = 0;
  while (kept < page.entries.size() && kept < lines && bytes < kMaxLogAnswerBytes) {
    ++kept;
    bytes += page.entries[page.entries.size() - kept].line.text.size();
  }
  page.more = kept < page.entries.size();
  page.entries.erase(page.entries.begin(), page.entries.end() - static_cast<std::ptrdiff_t>(kept));
  return page;
}

}  // namespace takt::api
