#include "api/log_search.h"

#include <zlib.h>

#include <thread>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "api/convert.h"
#include "api/errors.h"
#include "api/json_reader.h"
#include "api/json_writer.h"
#include "api/streams.h"

namespace takt::api {
namespace {

using Result = absl::StatusOr<Reply>;

constexpr std::size_t kExportPage = 10'000;
constexpr std::size_t kFollowPieceBytes = 32 << 10;

std::chrono::steady_clock::time_point Deadline() {
  return std::chrono::steady_clock::now() + kMaxQuestionTime;
}

std::string FormatId(logs::EntryId id) { return absl::StrCat(id.chunk, ".", id.index); }

absl::StatusOr<logs::EntryId> ParseId(std::string_view text) {
  const std::vector<std::string> parts = absl::StrSplit(ToAbsl(text), '.');
  logs::EntryId id;
  if (parts.size() != 2 || !absl::SimpleAtoi(parts[0], &id.chunk) ||
      !absl::SimpleAtoi(parts[1], &id.index) || id.chunk <= 0 || id.index < 0) {
    return absl::InvalidArgumentError(
        ToAbsl(StrCat("expected the id of a log entry, got \"", text, "\"")));
  }
  return id;
}

void WriteEntry(JsonWriter& w, const logs::FoundEntry& found) {
  w.BeginObject()
      .Field("id", FormatId(found.id))
      .Field("time", Rfc3339FromUs(found.entry.time_us))
      .Field("app", found.stream.app)
      .Field("service", found.stream.service)
      .Field("instance", found.stream.instance)
      .Field("store", found.stream.store)
      .Field("node", found.stream.node)
      .Field("revision", found.stream.revision)
      .Field("file", found.stream.file)
      .Field("level", logs::LevelName(found.entry.level))
      .Field("stderr", found.entry.is_stderr)
      .Field("text", found.entry.text)
      .EndObject();
}

void WriteEntries(JsonWriter& w, const std::vector<logs::FoundEntry>& entries) {
  w.Key("entries").BeginArray();
  for (const logs::FoundEntry& found : entries) WriteEntry(w, found);
  w.EndArray();
}

// Where a page ended: the entry's time and id, so that the next one goes on without a search.
std::string FormatNext(const logs::FoundEntry& last) {
  return absl::StrCat(last.entry.time_us, "_", FormatId(last.id));
}

Result SearchLogs(logs::LogStore& store, Workers& workers, Call& call) {
  TAKT_ASSIGN_OR_RETURN(logs::Query parsed, logs::Query::Parse(call.Query("query")));
  logs::SearchOptions options;
  TAKT_ASSIGN_OR_RETURN(options.from_us, QueryTimeUs(call, "from", INT64_MIN));
  TAKT_ASSIGN_OR_RETURN(options.to_us, QueryTimeUs(call, "to", INT64_MAX));
  TAKT_ASSIGN_OR_RETURN(
      const std::int64_t limit,
      call.QueryInt("limit", 500, 1, static_cast<std::int64_t>(logs::kMaxSearchEntries)));
  options.limit = static_cast<std::size_t>(limit);
  const std::string_view order = call.HasQuery("order") ? call.Query("order") : "newest";
  if (order != "newest" && order != "oldest") {
    return absl::InvalidArgumentError(
        ToAbsl(StrCat("query parameter order: expected newest or oldest, got ", order)));
  }
  options.newest_first = order == "newest";
  if (call.HasQuery("after")) {
    const std::string_view after = call.Query("after");
    const auto bar = after.find('_');
    if (bar == std::string_view::npos ||
        !absl::SimpleAtoi(ToAbsl(after.substr(0, bar)), &options.after_time_us)) {
      return absl::InvalidArgumentError("query parameter after: expected the next of an answer");
    }
    TAKT_ASSIGN_OR_RETURN(options.after, ParseId(after.substr(bar + 1)));
  }
  auto query = std::make_shared<const logs::Query>(std::move(parsed));
  return workers.Answer(call, [&store, query, options]() mutable -> Result {
    options.deadline = Deadline();
    TAKT_ASSIGN_OR_RETURN(const logs::SearchResult result, store.Search(*query, options));
    std::string body;
    JsonWriter w(&body);
    w.BeginObject();
    WriteEntries(w, result.entries);
    w.Key("next");
    if (result.more) {
      w.Value(FormatNext(result.entries.back()));
    } else {
      w.Null();
    }
    w.Field("complete", result.complete).Field("scanned", result.scanned_entries).EndObject();
    return Reply::Json(std::move(body));
  });
}

Result HistogramOfLogs(logs::LogStore& store, Workers& workers, Call& call) {
  TAKT_ASSIGN_OR_RETURN(logs::Query parsed, logs::Query::Parse(call.Query("query")));
  TAKT_ASSIGN_OR_RETURN(const std::int64_t from_us, QueryTimeUs(call, "from", 0));
  TAKT_ASSIGN_OR_RETURN(const std::int64_t to_us, QueryTimeUs(call, "to", 0));
  if (!call.HasQuery("from") || !call.HasQuery("to") || to_us <= from_us) {
    return absl::InvalidArgumentError("query parameters from and to: expected from before to");
  }
  TAKT_ASSIGN_OR_RETURN(
      const std::int64_t buckets,
      call.QueryInt("buckets", 60, 1, static_cast<std::int64_t>(logs::kMaxHistogramBuckets)));
  auto query = std::make_shared<const logs::Query>(std::move(parsed));
  return workers.Answer(call, [&store, query, from_us, to_us, buckets]() -> Result {
    TAKT_ASSIGN_OR_RETURN(
        const logs::HistogramResult h,
        store.Histogram(*query, from_us, to_us, static_cast<std::size_t>(buckets), Deadline()));
    std::string body;
    JsonWriter w(&body);
    w.BeginObject()
        .Field("from", Rfc3339FromUs(h.from_us))
        .Field("bucket_ms", static_cast<double>(h.bucket_us) / 1000)
        .Field("total", h.total)
        .Field("complete", h.complete);
    w.Key("levels").BeginObject();
    for (int level = 0; level < logs::kLevels; ++level) {
      w.Key(logs::LevelName(static_cast<logs::Level>(level))).BeginArray();
      for (const auto& bucket : h.buckets) w.Value(bucket[static_cast<std::size_t>(level)]);
      w.EndArray();
    }
    w.EndObject().EndObject();
    return Reply::Json(std::move(body));
  });
}

Result ContextOfLog(logs::LogStore& store, Workers& workers, Call& call) {
  TAKT_ASSIGN_OR_RETURN(const logs::EntryId id, ParseId(call.Query("id")));
  TAKT_ASSIGN_OR_RETURN(const std::int64_t before, call.QueryInt("before", 20, 0, 1000));
  TAKT_ASSIGN_OR_RETURN(const std::int64_t after, call.QueryInt("after", 20, 0, 1000));
  return workers.Answer(call, [&store, id, before, after]() -> Result {
    TAKT_ASSIGN_OR_RETURN(const auto entries, store.Context(id, static_cast<std::size_t>(before),
                                                            static_cast<std::size_t>(after)));
    std::string body;
    JsonWriter w(&body);
    w.BeginObject();
    WriteEntries(w, entries);
    w.EndObject();
    return Reply::Json(std::move(body));
  });
}

// Collects what is written and hands it on in pieces, packed where that was asked for, never more
// than the client's backlog allows. One thread.
class ExportSink {
 public:
  ExportSink(std::shared_ptr<net::HttpResponder> client, bool gzip) : client_(std::move(client)) {
    if (gzip) {
      packing_ = deflateInit2(&stream_, Z_BEST_SPEED, Z_DEFLATED, 16 + MAX_WBITS, 8,
                              Z_DEFAULT_STRATEGY) == Z_OK;
    }
  }
  ~ExportSink() {
    if (packing_) deflateEnd(&stream_);
  }
  ExportSink(const ExportSink&) = delete;
  ExportSink& operator=(const ExportSink&) = delete;

  std::string& text() { return text_; }
  // Sends what was gathered; waits while the client is behind. False when it has gone.
  bool Send(bool last) {
    if (packing_) {
      stream_.next_in = reinterpret_cast<Bytef*>(text_.data());
      stream_.avail_in = static_cast<uInt>(text_.size());
      int result = Z_OK;
      do {
        char piece[32 << 10];
        stream_.next_out = reinterpret_cast<Bytef*>(piece);
        stream_.avail_out = sizeof(piece);
        result = deflate(&stream_, last ? Z_FINISH : Z_NO_FLUSH);
        if (!Write({piece, sizeof(piece) - stream_.avail_out})) return false;
      } while (stream_.avail_out == 0 || (last && result == Z_OK));
    } else {
      for (std::string_view rest = text_; !rest.empty();
           rest.remove_prefix(std::min(rest.size(), kMaxExportPieceBytes))) {
        if (!Write(rest.substr(0, kMaxExportPieceBytes))) return false;
      }
    }
    text_.clear();
    return true;
  }

 private:
  bool Write(std::string_view piece) {
    while (client_->backlog() > kMaxExportPieceBytes) {
      if (client_->closed()) return false;  // a client that takes nothing is closed by the server
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return piece.empty() ? !client_->closed() : client_->Write(piece);
  }

  const std::shared_ptr<net::HttpResponder> client_;
  std::string text_;
  bool packing_ = false;
  z_stream stream_{};
};

// The answer began with 200, so an error is its last line.
void Export(logs::LogStore& store, const logs::Query& query, logs::SearchOptions options,
            ExportSink& sink) {
  while (true) {
    const auto page = store.Search(query, options);
    if (!page.ok()) {
      JsonWriter w(&sink.text());
      w.BeginObject().Field("error", ToStd(page.status().message())).EndObject();
      sink.text() += '\n';
    } else {
      for (const logs::FoundEntry& found : page->entries) {
        std::string line;
        JsonWriter w(&line);
        WriteEntry(w, found);
        sink.text().append(line).push_back('\n');
        if (sink.text().size() >= kMaxExportPieceBytes && !sink.Send(false)) return;
      }
    }
    const bool last = !page.ok() || !page->more || page->entries.empty();
    if (!sink.Send(last) || last) return;
    options.after = page->entries.back().id;
    options.after_time_us = options.from_us = page->entries.back().entry.time_us;
  }
}

Result ExportLogs(logs::LogStore& store, Workers& exporters, Call& call) {
  TAKT_ASSIGN_OR_RETURN(logs::Query parsed, logs::Query::Parse(call.Query("query")));
  logs::SearchOptions options{.limit = kExportPage, .newest_first = false};
  TAKT_ASSIGN_OR_RETURN(options.from_us, QueryTimeUs(call, "from", INT64_MIN));
  // An export of "until now" ends, however fast the lines come.
  const std::int64_t now_us = std::chrono::duration_cast<std::chrono::microseconds>(
                                  std::chrono::system_clock::now().time_since_epoch())
                                  .count();
  TAKT_ASSIGN_OR_RETURN(options.to_us, QueryTimeUs(call, "to", now_us));
  const std::string_view format = call.HasQuery("format") ? call.Query("format") : "ndjson";
  if (format != "ndjson" && format != "ndjson.gz") {
    return absl::InvalidArgumentError(
        ToAbsl(StrCat("query parameter format: expected ndjson or ndjson.gz, got ", format)));
  }
  const bool gzip = format == "ndjson.gz";
  auto query = std::make_shared<const logs::Query>(std::move(parsed));
  return exporters.Answer(call, [&store, query, options, gzip, client = call.responder()] {
    net::HttpResponse head;
    head.content_type = gzip ? "application/gzip" : "application/x-ndjson";
    head.headers = {{"Content-Disposition",
                     StrCat("attachment; filename=\"logs.ndjson", gzip ? ".gz" : "", "\"")},
                    {"Cache-Control", "no-store"}};
    client->StartStream(std::move(head));
    ExportSink sink(client, gzip);
    Export(store, *query, options, sink);
    client->Finish();
    return Result(Reply::Streaming());
  });
}

Result ListStreams(logs::LogStore& store) {
  std::map<std::string, std::map<std::string, std::map<std::string, int>>> tree;
  for (const logs::StreamKey& key : store.Streams()) ++tree[key.app][key.service][key.store];
  TAKT_ASSIGN_OR_RETURN(const logs::StoreStats stats, store.Stats());
  std::string body;
  JsonWriter w(&body);
  w.BeginObject().Key("stores").BeginArray();
  for (const auto& [app, services] : tree) {
    for (const auto& [service, stores] : services) {
      for (const auto& [name, count] : stores) {
        w.BeginObject()
            .Field("app", app)
            .Field("service", service)
            .Field("store", name)
            .Field("streams", count)
            .EndObject();
      }
    }
  }
  w.EndArray()
      .Field("entries", stats.entries)
      .Field("text_bytes", stats.text_bytes)
      .Field("disk_bytes", stats.disk_bytes)
      .Field("dropped_entries", stats.dropped_entries)
      .EndObject();
  return Reply::Json(std::move(body));
}

// ---- Saved searches ----

void WriteSearch(JsonWriter& w, const logs::SavedSearch& search) {
  w.BeginObject()
      .Field("name", search.name)
      .Field("query", search.query)
      .Field("span_seconds", search.span.count())
      .Field("changed_at", FormatRfc3339(search.changed_at))
      .EndObject();
}

Result ListSearches(logs::SavedSearches& searches) {
  TAKT_ASSIGN_OR_RETURN(const std::vector<logs::SavedSearch> list, searches.List());
  std::string body;
  JsonWriter w(&body);
  w.BeginObject().Key("searches").BeginArray();
  for (const logs::SavedSearch& each : list) WriteSearch(w, each);
  w.EndArray().EndObject();
  return Reply::Json(std::move(body));
}

Result PutSearch(logs::SavedSearches& searches, Call& call) {
  TAKT_ASSIGN_OR_RETURN(const nlohmann::json body, ParseJsonObject(call.request().body));
  logs::SavedSearch search;
  search.name = call.path(0);
  int span_seconds = 0;
  ObjectReader reader(body);
  reader.Require("query");
  reader.Read("query", &search.query);
  reader.Read("span_seconds", &span_seconds);
  TAKT_RETURN_IF_ERROR(reader.Done());
  search.span = std::chrono::seconds(span_seconds);
  TAKT_ASSIGN_OR_RETURN(search, searches.Put(std::move(search)));
  std::string out;
  JsonWriter w(&out);
  WriteSearch(w, search);
  return Reply::Json(std::move(out));
}

// ---- Forwards ----

void WriteForward(JsonWriter& w, const logs::Forwarder::View& view) {
  const auto& [forward, state] = view;
  std::vector<std::string> headers;  // their values may be secrets
  for (const auto& [name, value] : forward.headers) headers.push_back(name);
  w.BeginObject()
      .Field("name", forward.name)
      .Field("kind", logs::ForwardKindName(forward.kind))
      .Field("url", net::ShownUrl(forward.url))
      .Field("query", forward.query)
      .Field("headers", headers)
      .Field("enabled", forward.enabled)
      .Field("fixed", forward.fixed)
      .Field("state", !forward.enabled       ? "off"
                      : state.failing        ? "failing"
                      : state.behind_entries ? "sending"
                                             : "idle")
      .Field("sent_entries", state.sent_entries)
      .Field("sent_batches", state.sent_batches)
      .Field("refused_entries", state.refused_entries)
      .Field("removed_entries", state.removed_entries)
      .Field("failed_attempts", state.failed_attempts)
      .Field("behind_entries", state.behind_entries)
      .Field("lag_seconds", state.lag.count())
      .Field("last_error", state.last_error);
  WriteTime(w, "last_error_at", state.last_error_at);
  WriteTime(w, "last_sent_at", state.last_sent_at);
  w.EndObject();
}

Result ListForwards(logs::Forwarder& forwarder) {
  std::string body;
  JsonWriter w(&body);
  w.BeginObject().Key("forwards").BeginArray();
  for (const auto& view : forwarder.List()) WriteForward(w, view);
  w.EndArray().EndObject();
  return Reply::Json(std::move(body));
}

// What is not said stays as it is. The values of headers are never shown, and kept only for the
// place that they were given for: nobody gets a password by naming an address of his own.
Result PutForward(logs::Forwarder& forwarder, Workers& workers, Call& call) {
  TAKT_ASSIGN_OR_RETURN(const nlohmann::json body, ParseJsonObject(call.request().body));
  const std::string& name = call.path(0);
  const auto known = forwarder.Get(name);
  logs::Forward forward = known.value_or(logs::Forward{.name = name});
  std::string kind = logs::ForwardKindName(forward.kind), from = "now";
  ObjectReader reader(body);
  if (!known.ok()) {
    reader.Require("kind");
    reader.Require("url");
  }
  reader.Read("kind", &kind);
  reader.Read("url", &forward.url);
  reader.Read("query", &forward.query);
  reader.Read("enabled", &forward.enabled);
  reader.Read("from", &from);
  if (reader.Has("headers")) forward.headers.clear();
  reader.Read("headers", &forward.headers);
  TAKT_RETURN_IF_ERROR(reader.Done());
  const auto parsed = logs::ForwardKindFromName(kind);
  if (!parsed) {
    return absl::InvalidArgumentError(StrCat("kind: expected loki or otlp, got \"", kind, "\""));
  }
  forward.kind = *parsed;
  if (from != "now" && from != "start") {
    return absl::InvalidArgumentError(StrCat("from: expected now or start, got \"", from, "\""));
  }
  if (known.ok() && forward.url != known->url && !forward.headers.empty() &&
      !reader.Has("headers")) {
    return absl::InvalidArgumentError("headers: expected again, since the URL changes");
  }
  return workers.Answer(call, [&forwarder, forward, from]() -> Result {
    TAKT_RETURN_IF_ERROR(forwarder.Put(forward, from == "start"));
    return ListForwards(forwarder);
  });
}

}  // namespace

void LiveSearches::Add(const std::shared_ptr<net::HttpResponder>& client,
                       std::shared_ptr<const logs::Query> query) {
  const std::lock_guard lock(mutex_);
  std::erase_if(clients_, [](const Client& c) { return c.responder->closed(); });
  auto skipped = std::make_shared<std::uint64_t>(0);  // calls of one tail come one after another
  auto tail = store_.Follow(
      std::move(query), [client, skipped](const std::vector<logs::FoundEntry>& entries) {
        for (std::size_t i = 0; i < entries.size();) {
          if (client->closed()) return false;
          if (client->backlog() > kMaxFollowBacklogBytes) {
            *skipped += entries.size() - i;
            break;
          }
          std::string body;
          JsonWriter w(&body);
          w.BeginObject().Field("skipped", std::exchange(*skipped, 0)).Key("entries").BeginArray();
          for (; i < entries.size() && body.size() < kFollowPieceBytes; ++i) {
            WriteEntry(w, entries[i]);
          }
          w.EndArray().EndObject();
          client->Write(FormatServerSentEvent("entries", "", body));
        }
        return true;
      });
  if (!tail.ok()) {
    std::string body;
    JsonWriter(&body).BeginObject().Field("message", ToStd(tail.status().message())).EndObject();
    client->Write(FormatServerSentEvent("entries_refused", "", body));
    return;
  }
  clients_.push_back({client, std::move(*tail)});
}

void AddLogSearchRoutes(Router& router, logs::LogStore& store, Workers& workers,
                        Workers& exporters) {
  router.Add("GET", "/logs", {"query", "from", "to", "limit", "order", "after"},
             [&](Call& call) { return SearchLogs(store, workers, call); });
  router.Add("GET", "/logs/histogram", {"query", "from", "to", "buckets"},
             [&](Call& call) { return HistogramOfLogs(store, workers, call); });
  router.Add("GET", "/logs/context", {"id", "before", "after"},
             [&](Call& call) { return ContextOfLog(store, workers, call); });
  router.Add("GET", "/logs/export", {"query", "from", "to", "format"},
             [&](Call& call) { return ExportLogs(store, exporters, call); });
  router.Add("GET", "/logs/stores", {}, [&](Call&) { return ListStreams(store); });
}

void AddSavedSearchRoutes(Router& router, logs::SavedSearches& searches,
                          const std::function<void()>& changed) {
  router.Add("GET", "/logs/searches", {}, [&](Call&) { return ListSearches(searches); });
  router.Add("PUT", "/logs/searches/{name}", {}, [&searches, changed](Call& call) -> Result {
    Result reply = PutSearch(searches, call);
    if (reply.ok()) changed();
    return reply;
  });
  router.Add("DELETE", "/logs/searches/{name}", {}, [&searches, changed](Call& call) -> Result {
    TAKT_RETURN_IF_ERROR(searches.Remove(call.path(0)));
    changed();
    return Reply::Json("", 204);
  });
}

void AddLogForwardRoutes(Router& router, logs::Forwarder& forwarder, Workers& workers) {
  router.Add("GET", "/logs/forwards", {}, [&](Call& call) {
    return workers.Answer(call, [&forwarder] { return ListForwards(forwarder); });
  });
  router.Add("PUT", "/logs/forwards/{name}", {},
             [&](Call& call) { return PutForward(forwarder, workers, call); });
  router.Add("DELETE", "/logs/forwards/{name}", {}, [&](Call& call) {
    return workers.Answer(call, [&forwarder, name = call.path(0)]() -> Result {
      TAKT_RETURN_IF_ERROR(forwarder.Remove(name));
      return Reply::Json("", 204);
    });
  });
}

}  // namespace takt::api
