// The public API over a real server: what each address answers, and that openapi.json says so.
#include "api/api.h"

#include <atomic>
#include <condition_variable>
#include <filesystem>
#include <thread>

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "api/alerts.h"
#include "api/errors.h"
#include "api/fakes_for_test.h"
#include "api/learning.h"
#include "api/log_search.h"
#include "api/logs.h"
#include "api/operate.h"
#include "api/runs.h"
#include "api/streams.h"
#include "base/fs.h"
#include "base/gzip.h"
#include "learning/event_for_test.h"
#include "net/http_client.h"
#include "net/tcp.h"
#include "nlohmann/json.hpp"

namespace takt::api {
namespace {

using nlohmann::json;
using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::UnorderedElementsAreArray;

const json& Document() {
  static const json document = json::parse(OpenApiDocument());
  return document;
}

// What of `value` is not as `schema` says, a line each; the part of JSON Schema that the document
// uses. A field that the schema does not name is an error too.
void Validate(const json& schema, const json& value, const std::string& path,
              std::vector<std::string>* errors) {
  if (schema.contains("$ref")) {
    const std::string ref = schema["$ref"].get<std::string>().substr(1);
    return Validate(Document().at(json::json_pointer(ref)), value, path, errors);
  }
  if (schema.contains("oneOf")) {
    int matching = 0;
    for (const json& each : schema["oneOf"]) {
      std::vector<std::string> own;
      Validate(each, value, path, &own);
      matching += own.empty() ? 1 : 0;
    }
    if (matching != 1) errors->push_back(StrCat(path, ": matches ", matching, " of oneOf"));
    return;
  }
  const json types = !schema.contains("type")     ? json::array()
                     : schema["type"].is_string() ? json::array({schema["type"]})
                                                  : schema["type"];
  const auto is = [&](const std::string& type) {
    return (type == "string" && value.is_string()) || (type == "boolean" && value.is_boolean()) ||
           (type == "integer" && value.is_number_integer()) ||
           (type == "number" && value.is_number()) || (type == "null" && value.is_null()) ||
           (type == "array" && value.is_array()) || (type == "object" && value.is_object());
  };
  if (!types.empty() && std::none_of(types.begin(), types.end(), [&](const json& type) {
        return is(type.get<std::string>());
      })) {
    errors->push_back(StrCat(path, ": expected ", types.dump(), ", got ", value.dump()));
    return;
  }
  if (schema.contains("enum") &&
      std::find(schema["enum"].begin(), schema["enum"].end(), value) == schema["enum"].end()) {
    errors->push_back(StrCat(path, ": ", value.dump(), " is not one of the enum"));
  }
  if (value.is_array() && schema.contains("items")) {
    for (std::size_t i = 0; i < value.size(); ++i) {
      Validate(schema["items"], value[i], StrCat(path, "[", i, "]"), errors);
    }
  }
  if (!value.is_object()) return;
  for (const json& name : schema.value("required", json::array())) {
    if (!value.contains(name.get<std::string>())) {
      errors->push_back(StrCat(path, ": lacks ", name.get<std::string>()));
    }
  }
  const json properties = schema.value("properties", json::object());
  const json additional = schema.value("additionalProperties", json(false));
  for (const auto& [key, each] : value.items()) {
    const std::string at = StrCat(path, ".", key);
    if (properties.contains(key)) {
      Validate(properties[key], each, at, errors);
    } else if (additional.is_object()) {
      Validate(additional, each, at, errors);
    } else if (additional == false && schema.contains("properties")) {
      errors->push_back(StrCat(at, ": is not in the document"));
    }
  }
}

struct Answer {
  int status = 0;
  json body;
  net::HttpReply reply;
};

class ApiTest : public ::testing::Test {
 protected:
  void SetUp() override { Start(""); }
  void TearDown() override { Stop(); }

  void Start(const std::string& token) {
    volumes_ = storage::VolumeStore::Open(dir_.path()).value();
    ApiOptions options;
    options.version = "1.2.3";
    options.data_dir = dir_.path();
    options.token = token;
    options.files = {
        {"index.html", "text/html; charset=utf-8", "e1", 6, page_, false},
        {"assets/a-1.js", "text/javascript", "e2", 6, script_, true},
    };
    options.content_security_policy = "default-src 'none'";
    options.keep_alive = milliseconds(50);
    api_ = Api::Create(options, line_, runtime_, *volumes_, clock_);
    runtime_.SetLogListener([api = api_.get()](const std::string& i) { api->OnLog(i); });
    log_store_ = logs::LogStore::Open({.path = dir_.path() + "/logs.db"}, clock_).value();
    metric_store_ = metrics::MetricStore::Open(dir_.path() + "/metrics.db", clock_).value();
    learning_store_ = learning::LearningStore::Open(dir_.path() + "/learning.db").value();
    workers_ = std::make_unique<Workers>(1);
    exporters_ = std::make_unique<Workers>(1);
    live_ = std::make_unique<LiveSearches>(*log_store_);
    api_->SetFollow(
        [this](const auto& client, auto query) { live_->Add(client, std::move(query)); });
    AddLogSearchRoutes(api_->router(), *log_store_, *workers_, *exporters_);
    searches_ = logs::SavedSearches::Open(dir_.path() + "/searches.db", clock_).value();
    AddSavedSearchRoutes(api_->router(), *searches_, [this] { api_->Broadcast("searches", "{}"); });
    forwarder_ = logs::Forwarder::Open(
                     dir_.path() + "/forward.db", {}, *log_store_, clock_,
                     [](const auto&) { return absl::UnavailableError("nobody there"); },
                     [](const auto&, bool) {})
                     .value();
    AddLogForwardRoutes(api_->router(), *forwarder_, *workers_);
    AddMetricRoutes(api_->router(), *metric_store_, *workers_);
    alert_file_ = operate::AlertFile::Open(dir_.path() + "/alerts.db").value();
    alerts_ =
        operate::Alerts::Open(*alert_file_, *metric_store_, clock_, [](const auto&, const auto&) {
        }).value();
    receivers_ = operate::Receivers::Open(*alert_file_, {}, clock_).value();
    AddAlertRoutes(api_->router(), *alerts_, *receivers_, *workers_, clock_);
    runs_ = operate::Runs::Open(dir_.path() + "/runs.db").value();
    AddLearningRoutes(api_->router(), *learning_store_, *runs_, *workers_);
    AddRunRoutes(
        api_->router(), *runs_, *learning_store_,
        [this](const std::string& app, const std::string& service, const std::string& model) {
          const auto it = serving_.find(StrCat(app, "/", service, "/", model));
          return it == serving_.end() ? std::nullopt : std::optional(it->second);
        },
        line_, *volumes_, *workers_);
    api_->SetMetrics([] { return "takt_apps 1\n"; });
    net::HttpServerOptions server;
    server.max_body_bytes = kMaxRequestBytes;
    server.error_response = ErrorResponseForHttp;
    server.max_stream_backlog_bytes = 256 << 10;
    server_ = net::HttpServer::Start(server, [this](const net::HttpRequest& request,
                                                    const auto& responder) {
                api_->Handle(request, responder);
              }).value();
  }
  void Stop() {
    if (server_ != nullptr) server_->Stop(0);
    server_.reset();
    runtime_.SetLogListener(nullptr);
    live_.reset();
    forwarder_.reset();
    workers_.reset();
    exporters_.reset();
    api_.reset();
  }

  net::HttpClientOptions ClientOptions() const {
    net::HttpClientOptions options;
    options.port = server_->port();
    return options;
  }

  // One call; what comes back is checked against the document.
  Answer Call(const std::string& method, const std::string& target, const std::string& body = "",
              std::vector<std::pair<std::string, std::string>> headers = {}) {
    net::HttpCall call;
    call.method = method;
    call.target = StrCat(kApiPrefix, target);
    call.body = body;
    call.headers = std::move(headers);
    const auto reply = net::HttpClient(ClientOptions()).Call(call);
    EXPECT_TRUE(reply.ok()) << reply.status();
    if (!reply.ok()) return {};
    Answer answer{reply->status, json(), *reply};
    if (reply->body.empty()) return answer;
    answer.body = json::parse(reply->body, nullptr, false);
    EXPECT_FALSE(answer.body.is_discarded()) << reply->body;
    const json* schema = Schema(method, target.substr(0, target.find('?')), reply->status);
    if (schema != nullptr) {
      std::vector<std::string> errors;
      Validate(*schema, answer.body, "body", &errors);
      EXPECT_THAT(errors, IsEmpty()) << method << " " << target;
    }
    return answer;
  }
  Answer Get(const std::string& target) { return Call("GET", target); }

  // The schema of an answer; null where the address is not in the document.
  static const json* Schema(const std::string& method, const std::string& target, int status) {
    for (const auto& [pattern, methods] : Document()["paths"].items()) {
      const bool literal = target == pattern;
      if (!literal && (pattern.find('{') == std::string::npos ||
                       Document()["paths"].contains(target) || !PathMatches(pattern, target))) {
        continue;
      }
      std::string verb = method;
      std::transform(verb.begin(), verb.end(), verb.begin(), ::tolower);
      if (!methods.contains(verb)) continue;
      const json& responses = methods[verb]["responses"];
      const std::string code = std::to_string(status);
      if (!responses.contains(code) && status < 400) {
        ADD_FAILURE() << method << " " << target << ": " << status << " is not in the document";
        return nullptr;
      }
      const json& response = responses[responses.contains(code) ? code : "default"];
      return &response["content"]["application/json"]["schema"];
    }
    return nullptr;
  }
  static bool PathMatches(std::string pattern, std::string target) {
    while (true) {
      const std::size_t a = std::min(pattern.find('/', 1), pattern.size());
      const std::size_t b = std::min(target.find('/', 1), target.size());
      if (pattern[1] != '{' && pattern.substr(0, a) != target.substr(0, b)) return false;
      pattern.erase(0, a);
      target.erase(0, b);
      if (pattern.empty() || target.empty()) return pattern.empty() && target.empty();
    }
  }

  Answer CreateApp(const std::string& name) {
    return Call("POST", "/apps",
                json({{"name", name}, {"template", "takt/host"}, {"values", {{"A", "1"}}}}).dump());
  }

  // Collects a stream's events in a thread until `enough` says so.
  std::vector<net::ServerSentEvent> Collect(
      const std::string& target,
      const std::function<bool(const std::vector<net::ServerSentEvent>&)>& enough,
      const std::function<void()>& when_open = nullptr, const std::string& last_event_id = "") {
    std::vector<net::ServerSentEvent> events;
    net::HttpCall call;
    call.target = StrCat(kApiPrefix, target);
    if (!last_event_id.empty()) call.headers = {{"Last-Event-ID", last_event_id}};
    net::ServerSentEventParser parser;
    bool open = false;
    const auto give_up = std::chrono::steady_clock::now() + seconds(20);
    net::HttpClient client(ClientOptions());
    const auto reply = client.Stream(
        call,
        [&](std::string_view piece) {
          const bool first = !std::exchange(open, true);
          if (first && when_open) when_open();
          return parser.Feed(piece, [&](const net::ServerSentEvent& event) {
            events.push_back(event);
            return true;
          }) && !enough(events);
        },
        [&] { return std::chrono::steady_clock::now() < give_up; });
    EXPECT_TRUE(reply.ok()) << reply.status();
    EXPECT_TRUE(enough(events)) << "gave up with " << events.size() << " events";
    return events;
  }

  TempDir dir_;
  FakeClock clock_;
  LogsOnlyRuntime runtime_;
  ScriptedLine line_;
  std::unique_ptr<storage::VolumeStore> volumes_;
  const std::string page_ = Gzip("<html>"), script_ = Gzip("script");
  std::unique_ptr<Api> api_;
  std::unique_ptr<logs::LogStore> log_store_;
  std::unique_ptr<metrics::MetricStore> metric_store_;
  std::unique_ptr<learning::LearningStore> learning_store_;
  std::unique_ptr<operate::AlertFile> alert_file_;
  std::unique_ptr<operate::Alerts> alerts_;
  std::unique_ptr<operate::Receivers> receivers_;
  std::unique_ptr<operate::Runs> runs_;
  std::map<std::string, operate::Versions> serving_;  // by "app/service/model"
  std::unique_ptr<Workers> workers_, exporters_;
  std::unique_ptr<LiveSearches> live_;
  std::unique_ptr<logs::SavedSearches> searches_;
  std::unique_ptr<logs::Forwarder> forwarder_;
  std::unique_ptr<net::HttpServer> server_;
};

// ---- What was seen ----

TEST_F(ApiTest, FindsLogEntriesCountsThemAndShowsWhatStoodAround) {
  const auto stream =
      log_store_->Stream({.app = "train", .service = "main", .instance = "train-1"}, 2).value();
  std::vector<logs::Entry> entries;
  entries.reserve(5);
  for (int i = 0; i < 5; ++i) {
    entries.push_back({i * std::int64_t{1'000'000},
                       i == 3 ? logs::Level::kError : logs::Level::kInfo, false, StrCat("line ", i),
                       static_cast<std::uint64_t>(i + 1)});
  }
  ASSERT_TRUE(log_store_->Append(stream, entries).ok());
  const Answer page = Get("/logs?query=app%3Dtrain&limit=2");
  ASSERT_EQ(page.body["entries"].size(), 2u);
  EXPECT_EQ(page.body["entries"][0]["text"], "line 4");
  const Answer rest =
      Get("/logs?query=app%3Dtrain&limit=9&after=" + page.body["next"].get<std::string>());
  EXPECT_EQ(rest.body["entries"].size(), 3u);
  EXPECT_EQ(rest.body["next"], nullptr);
  const Answer errors = Get("/logs?query=level%3E%3Dwarn&order=oldest");
  ASSERT_EQ(errors.body["entries"].size(), 1u);
  const std::string id = errors.body["entries"][0]["id"];
  const Answer context = Get("/logs/context?before=1&after=1&id=" + id);
  ASSERT_EQ(context.body["entries"].size(), 3u);
  EXPECT_EQ(context.body["entries"][1]["id"], id);
  const Answer histogram =
      Get("/logs/histogram?query=line&from=1970-01-01T00:00:00Z&to=1970-01-01T00:00:10Z&buckets=2");
  EXPECT_EQ(histogram.body["total"], 5);
  EXPECT_EQ(histogram.body["levels"]["error"], json({1, 0}));
  EXPECT_EQ(Get("/logs/stores").body["stores"][0]["app"], "train");
  EXPECT_EQ(Get("/logs?query=a+(").status, 400);
  EXPECT_EQ(Get("/logs?from=yesterday").status, 400);
  EXPECT_EQ(Get("/logs/context?id=9.9").status, 404);
  EXPECT_EQ(Get("/logs/histogram?from=1970-01-01T00:00:00Z").status, 400);
}

TEST_F(ApiTest, KeepsSearchesForEveryTab) {
  const auto events = Collect(
      "/stream",
      [](const auto& got) {
        return std::count_if(got.begin(), got.end(),
                             [](const auto& e) { return e.event == "searches"; }) == 2;
      },
      [&] {
        const json search = {{"query", "app=train level>=warn"}, {"span_seconds", 3600}};
        EXPECT_EQ(Call("PUT", "/logs/searches/my%20errors", search.dump()).status, 200);
        EXPECT_EQ(Call("PUT", "/logs/searches/all", R"({"query": ""})").body["span_seconds"], 0);
      });
  const Answer list = Get("/logs/searches");
  ASSERT_EQ(list.body["searches"].size(), 2u);
  EXPECT_EQ(list.body["searches"][1]["name"], "my errors");
  EXPECT_EQ(list.body["searches"][1]["query"], "app=train level>=warn");
  const Answer bad = Call("PUT", "/logs/searches/all", R"({"query": "app="})");
  EXPECT_EQ(bad.status, 400);
  EXPECT_THAT(bad.body["message"].get<std::string>(), HasSubstr("query: "));
  EXPECT_EQ(Call("PUT", "/logs/searches/x", R"({"span_seconds": 1})").status, 400);
  EXPECT_EQ(Call("DELETE", "/logs/searches/all").status, 204);
  EXPECT_EQ(Call("DELETE", "/logs/searches/all").status, 404);
  EXPECT_EQ(Get("/logs/searches").body["searches"].size(), 1u);
}

TEST_F(ApiTest, ExportsAllThatMatchesPlainAndPacked) {
  constexpr int kEntries = 30'000;
  const auto stream =
      log_store_->Stream({.app = "train", .service = "main", .instance = "train-1"}, 2).value();
  std::vector<logs::Entry> entries;
  entries.reserve(kEntries);
  for (int i = 0; i < kEntries; ++i) {
    entries.push_back({i * std::int64_t{1000}, logs::Level::kInfo, false,
                       StrCat(i % 2 == 0 ? "even \x1b " : "odd \x1b ", i),
                       static_cast<std::uint64_t>(i + 1)});
  }
  ASSERT_TRUE(log_store_->Append(stream, entries).ok());
  const auto download = [&](const std::string& target) {
    net::HttpCall call;
    call.target = StrCat(kApiPrefix, target);
    std::string body;
    const auto reply = net::HttpClient(ClientOptions()).Stream(call, [&](std::string_view piece) {
      body.append(piece);
      return true;
    });
    EXPECT_TRUE(reply.ok()) << reply.status();
    return std::pair(std::string(reply->Header("content-type")), body);
  };
  const auto [type, body] = download("/logs/export?query=even");
  EXPECT_EQ(type, "application/x-ndjson");
  std::istringstream lines(body);
  std::string line;
  int count = 0;
  for (; std::getline(lines, line); ++count) {
    const json entry = json::parse(line);
    if (count == 0) {
      std::vector<std::string> errors;
      Validate(Document()["components"]["schemas"]["LogEntry"], entry, "entry", &errors);
      EXPECT_THAT(errors, IsEmpty());
    }
    ASSERT_EQ(entry["text"], StrCat("even \x1b ", 2 * count));
  }
  EXPECT_EQ(count, kEntries / 2);
  const auto [packed_type, packed] = download("/logs/export?query=even&format=ndjson.gz");
  EXPECT_EQ(packed_type, "application/gzip");
  EXPECT_LT(packed.size(), body.size() / 4);
  EXPECT_EQ(Gunzip(packed, 64 << 20).value(), body);
  EXPECT_EQ(download("/logs/export?query=nothing+such").second, "");
  EXPECT_EQ(Get("/logs/export?format=csv").status, 400);
}

TEST_F(ApiTest, LogForwardsAreSetChangedAndRemovedAndKeepTheirSecrets) {
  const json central = {{"kind", "loki"},
                        {"url", "https://user:secret1@logs.example/?key=secret2"},
                        {"query", "level>=warn"},
                        {"headers", {{"Authorization", "secret3"}}}};
  const Answer made = Call("PUT", "/logs/forwards/central", central.dump());
  ASSERT_EQ(made.status, 200) << made.body;
  const json& shown = made.body["forwards"][0];
  EXPECT_EQ(shown["url"], "https://logs.example/loki/api/v1/push");
  EXPECT_EQ(shown["headers"], json({"Authorization"}));
  EXPECT_EQ(shown["state"], "idle");
  EXPECT_EQ(shown["last_sent_at"], nullptr);
  for (const char* secret : {"secret1", "secret2", "secret3"}) {
    EXPECT_THAT(made.reply.body, ::testing::Not(HasSubstr(secret)));
  }
  EXPECT_EQ(
      Call("PUT", "/logs/forwards/central", R"({"enabled": false})").body["forwards"][0]["state"],
      "off");
  EXPECT_EQ(forwarder_->Get("central")->headers.at("Authorization"), "secret3");
  const Answer moved =
      Call("PUT", "/logs/forwards/central", R"({"url": "https://elsewhere.example"})");
  EXPECT_EQ(moved.status, 400);
  EXPECT_THAT(moved.body["message"].get<std::string>(), HasSubstr("headers: expected again"));
  EXPECT_EQ(Call("PUT", "/logs/forwards/x", R"({"kind": "loki"})").status, 400);
  EXPECT_EQ(Call("PUT", "/logs/forwards/x", R"({"kind": "udp", "url": "http://a"})").status, 400);
  EXPECT_EQ(
      Call("PUT", "/logs/forwards/x", R"({"kind": "otlp", "url": "http://a", "from": "there"})")
          .status,
      400);
  EXPECT_EQ(Call("DELETE", "/logs/forwards/central").status, 204);
  EXPECT_EQ(Call("DELETE", "/logs/forwards/central").status, 404);
  EXPECT_EQ(Get("/logs/forwards").body["forwards"].size(), 0u);
}

TEST_F(ApiTest, FollowsASearchAsEntriesComeBesideTheChanges) {
  const auto stream =
      log_store_->Stream({.app = "train", .service = "main", .instance = "train-1"}, 2).value();
  std::atomic<bool> stop = false;
  std::thread writer;
  const auto kinds = [](const auto& got) {
    std::set<std::string> kinds;
    for (const auto& event : got) kinds.insert(event.event);
    return kinds;
  };
  const auto events = Collect(
      "/stream?query=match",
      [&](const auto& got) { return kinds(got).contains("entries") && kinds(got).contains("app"); },
      [&] {
        writer = std::thread([&] {  // the subscription begins right after the head of the answer
          const std::vector<logs::Entry> entries = {{1, logs::Level::kInfo, false, "other", 1},
                                                    {2, logs::Level::kInfo, false, "a match", 2}};
          while (!stop) {
            log_store_->Append(stream, entries).IgnoreError();
            std::this_thread::yield();
          }
        });
        CreateApp("a");
      });
  stop = true;
  writer.join();
  EXPECT_EQ(events[0].event, "hello");
  for (const auto& event : events) {
    if (event.event != "entries") continue;
    const json data = json::parse(event.data);
    for (const json& entry : data["entries"]) {
      EXPECT_EQ(entry["text"], "a match");
    }
  }
  EXPECT_EQ(Get("/stream?query=app%3D").status, 400);
}

TEST_F(ApiTest, AFollowerThatIsBehindMissesEntriesAndIsToldHowMany) {
  const auto stream =
      log_store_->Stream({.app = "train", .service = "main", .instance = "train-1"}, 2).value();
  const std::string text(10'000, 'x');
  std::uint64_t written = 0, received = 0, skipped = 0;
  net::ServerSentEventParser parser;
  net::HttpCall call;
  call.target = "/api/v1/stream?query=";
  const auto give_up = std::chrono::steady_clock::now() + seconds(20);
  net::HttpClient client(ClientOptions());
  const auto reply = client.Stream(
      call,
      [&](std::string_view piece) {
        // Far more than any buffer holds comes while nobody reads; then a little.
        const std::size_t lines = written == 0 ? 2000 : 1;
        const std::vector<logs::Entry> entries(lines, {1, logs::Level::kInfo, false, text, 1});
        EXPECT_TRUE(log_store_->Append(stream, entries).ok());
        written += lines;
        return parser.Feed(piece, [&](const net::ServerSentEvent& event) {
          if (event.event != "entries") return true;
          const json data = json::parse(event.data);
          received += data["entries"].size();
          skipped += data["skipped"].get<std::uint64_t>();
          return skipped == 0;
        });
      },
      [&] { return std::chrono::steady_clock::now() < give_up; });
  EXPECT_TRUE(reply.ok()) << reply.status();
  EXPECT_GT(received, 0u);
  EXPECT_GT(skipped, 0u);
  EXPECT_LE(received + skipped, written);
}

TEST_F(ApiTest, AnswersQuestionsAboutSamples) {
  const auto id = metric_store_->Series("cpu", {{"app", "a"}}, metrics::Type::kGauge).value();
  const std::int64_t now_ms =
      std::chrono::duration_cast<milliseconds>(clock_.Now().time_since_epoch()).count();
  const metrics::MetricStore::Point point{id, 0.5};
  metric_store_->Append(now_ms, {&point, 1});
  const std::string range = "&from=2026-01-01T00:00:00Z&to=2026-01-01T00:00:10Z";
  const Answer answer = Get("/metrics/query?name=cpu&step_ms=5000" + range);
  ASSERT_EQ(answer.body["series"].size(), 1u);
  EXPECT_EQ(answer.body["series"][0]["values"], json({0.5, nullptr}));
  EXPECT_EQ(
      Get("/metrics/query?name=cpu&step_ms=5000&divided_by=cpu&divided_by_match=app%3Da" + range)
          .body["series"][0]["values"],
      json({1.0, nullptr}));
  EXPECT_EQ(Get("/metrics").body["metrics"][0]["name"], "cpu");
  EXPECT_EQ(Get("/metrics/newest?name=cpu&match=app%3Da").body["series"][0]["value"], 0.5);
  EXPECT_EQ(Get("/metrics/newest?name=cpu&match=app%3Db").body["series"], json::array());
  for (const char* bad : {"function=middle", "aggregate=mean", "match=app", "quantile=2",
                          "quantile=x", "step_ms=-1", "divided_by_match=app%3Da"}) {
    EXPECT_EQ(Get(StrCat("/metrics/query?name=cpu&", bad, range)).status, 400) << bad;
  }
  EXPECT_EQ(Get("/metrics/query?name=cpu").status, 400);
}

TEST_F(ApiTest, AlertsCanBeSilencedAndRulesSwitchedOff) {
  const Answer alerts = Get("/alerts");
  EXPECT_EQ(alerts.body["alerts"], json::array());
  const std::string rule = alerts.body["rules"][0]["name"];
  const Answer off = Call("PUT", "/alerts/rules/" + rule, R"({"enabled": false})");
  EXPECT_EQ(off.body["rules"][0]["enabled"], false);
  EXPECT_EQ(off.body["rules"][0]["origin"], "changed");
  EXPECT_EQ(Call("DELETE", "/alerts/rules/" + rule).body["rules"][0]["enabled"], true);
  EXPECT_EQ(Call("DELETE", "/alerts/rules/" + rule).status, 400);  // built in
  const Answer silence =
      Call("POST", "/alerts/silences", R"({"labels": {"app": "a"}, "minutes": 5, "why": "w"})");
  ASSERT_EQ(silence.status, 201);
  EXPECT_EQ(Get("/alerts").body["silences"].size(), 1u);
  EXPECT_EQ(
      Call("DELETE", "/alerts/silences/" + silence.body["id"].get<std::string>()).body["silences"],
      json::array());
  EXPECT_EQ(
      Call("POST", "/alerts/silences", R"({"until": "2026-01-02T00:00:00+08:00"})").body["until"],
      "2026-01-01T16:00:00.000Z");
  for (const char* bad :
       {R"({"minutes": 0})", R"({"minute": 5})", R"({})", R"({"until": "soon"})",
        R"({"until": "2025-01-01T00:00:00Z"})", R"({"until": "2026-12-01T00:00:00Z"})",
        R"({"until": "2026-01-02T00:00:00Z", "minutes": 5})"}) {
    EXPECT_EQ(Call("POST", "/alerts/silences", bad).status, 400) << bad;
  }
}

TEST_F(ApiTest, RulesCanBeMadeTriedChangedAndRemoved) {
  const auto id = metric_store_->Series("queue", {{"app", "a"}}, metrics::Type::kGauge).value();
  const metrics::MetricStore::Point point{id, 12};
  metric_store_->Append(
      std::chrono::duration_cast<milliseconds>(clock_.Now().time_since_epoch()).count(),
      {&point, 1});
  const std::string rule = R"({"metric": "queue", "match": "app!=b", "aggregate": "max",
      "by": ["app"], "threshold": 10, "for_seconds": 30, "severity": "critical",
      "summary": "{app} waits", "summary_zh": "{app} 等待"})";
  const Answer trial = Call("POST", "/alerts/rules/own/test", rule);
  EXPECT_EQ(trial.body["readings"],
            json::parse(R"([{"labels": {"app": "a"}, "value": 12, "holds": true}])"));
  EXPECT_EQ(trial.body["rule"]["match"], "app!=b");
  const auto own = [](const Answer& answer) {
    for (const json& each : answer.body["rules"]) {
      if (each["name"] == "own") return each;
    }
    return json();
  };
  EXPECT_TRUE(own(Get("/alerts")).is_null());
  const json made = own(Call("PUT", "/alerts/rules/own", rule));
  EXPECT_EQ(made["origin"], "own");
  EXPECT_EQ(made["severity"], "critical");
  EXPECT_EQ(made["by"], json({"app"}));
  const json changed = own(Call("PUT", "/alerts/rules/own", R"({"threshold": 20.5})"));
  EXPECT_EQ(changed["threshold"], 20.5);
  EXPECT_EQ(changed["summary_zh"], "{app} 等待");
  EXPECT_TRUE(own(Call("DELETE", "/alerts/rules/own")).is_null());
  EXPECT_EQ(Call("DELETE", "/alerts/rules/own").status, 404);
  for (const auto& [bad, message] : std::vector<std::pair<const char*, const char*>>{
           {R"({"enabled": false})", "the field metric is missing"},
           {R"({"metric": "q", "threshold": "1", "summary": "s"})",
            "threshold: expected a number, got \"1\""},
           {R"({"metric": "q", "threshold": 1, "summary": "s", "match": "app"})",
            "match: expected label=value or label!=value, got \"app\""},
           {R"({"metric": "q", "threshold": 1, "summary": "s", "function": "mean"})",
            "function: expected avg, min, max, sum, last, count, rate or increase, got \"mean\""},
           {R"({"metric": "q", "threshold": 1, "summary": "s", "for_seconds": -1})",
            "for_seconds: expected 0 to 604800, got -1"},
       }) {
    const Answer answer = Call("PUT", "/alerts/rules/own", bad);
    EXPECT_EQ(answer.status, 400) << bad;
    EXPECT_EQ(answer.body["message"], message);
  }
}

TEST_F(ApiTest, ReceiversNeverGiveTheirSecretsAway) {
  const Answer made = Call("PUT", "/alerts/receivers/ops", R"({"kind": "email",
      "server": "mail.example.com:587", "user": "u", "password": "hunter2",
      "from": "takt@example.com", "to": ["ops@example.com"], "language": "zh"})");
  ASSERT_EQ(made.status, 200) << made.body;
  Call("PUT", "/alerts/receivers/ding", R"({"kind": "dingtalk", "secret": "hunter3",
      "url": "https://127.0.0.1:1/robot/send?access_token=hunter4"})");
  const Answer all = Get("/alerts/receivers");
  EXPECT_EQ(all.body.dump().find("hunter"), std::string::npos);
  EXPECT_EQ(all.body["receivers"][0]["url"], "https://127.0.0.1:1/robot/send?...");
  EXPECT_EQ(all.body["receivers"][0]["secret_set"], true);
  EXPECT_EQ(all.body["receivers"][1]["password_set"], true);
  EXPECT_EQ(all.body["receivers"][1]["language"], "zh");
  // Sent back as it was shown, it stays what it was.
  Call("PUT", "/alerts/receivers/ding",
       R"({"url": "https://127.0.0.1:1/robot/send?...", "enabled": false})");
  EXPECT_EQ(receivers_->Get("ding")->url, "https://127.0.0.1:1/robot/send?access_token=hunter4");
  EXPECT_EQ(receivers_->Get("ding")->secret, "hunter3");
  // Nobody gets the password by giving an address of his own.
  for (const char* method : {"PUT", "POST"}) {
    const std::string path =
        StrCat("/alerts/receivers/ops", std::string_view(method) == "POST" ? "/test" : "");
    const Answer moved = Call(method, path, R"({"server": "evil.example.com:587"})");
    EXPECT_EQ(moved.status, 400);
    EXPECT_EQ(moved.body["message"].get<std::string>().rfind("password: expected again", 0), 0u);
  }
  const Answer unreachable = Call("POST", "/alerts/receivers/ding/test", "{}");
  EXPECT_EQ(unreachable.status, 503);
  EXPECT_EQ(unreachable.body.dump().find("hunter"), std::string::npos);
  EXPECT_EQ(Call("DELETE", "/alerts/receivers/ops").body["receivers"].size(), 1u);
  EXPECT_EQ(Call("DELETE", "/alerts/receivers/ops").status, 404);
  for (const char* bad : {R"({"url": "http://x"})", R"({"kind": "pager", "url": "http://x"})",
                          R"({"kind": "email"})", R"({"kind": "dingtalk", "url": "x"})"}) {
    EXPECT_EQ(Call("PUT", "/alerts/receivers/new", bad).status, 400) << bad;
  }
}

// ---- The document ----

TEST_F(ApiTest, EveryRouteIsInTheDocumentAndTheOtherWayRound) {
  std::vector<std::string> routes, documented;
  for (const Route& route : api_->router().routes()) {
    std::vector<std::string> query = route.query;
    std::sort(query.begin(), query.end());
    std::string line = StrCat(route.method, " ", route.pattern);
    for (const std::string& each : query) line += " " + each;
    routes.push_back(line);
  }
  for (const auto& [pattern, methods] : Document()["paths"].items()) {
    for (const auto& [method, operation] : methods.items()) {
      std::string line = method;
      std::transform(line.begin(), line.end(), line.begin(), ::toupper);
      line += " " + pattern;
      std::set<std::string> query;
      std::size_t placeholders = 0;
      for (const json& parameter : operation.value("parameters", json::array())) {
        if (parameter["in"] == "query") query.insert(parameter["name"]);
        if (parameter["in"] == "path") {
          ++placeholders;
          EXPECT_THAT(pattern, HasSubstr("{" + parameter["name"].get<std::string>() + "}"));
        }
      }
      EXPECT_EQ(placeholders,
                static_cast<std::size_t>(std::count(pattern.begin(), pattern.end(), '{')))
          << line;
      for (const std::string& each : query) line += " " + each;
      documented.push_back(line);
      EXPECT_FALSE(operation["operationId"].get<std::string>().empty());
    }
  }
  EXPECT_THAT(routes, UnorderedElementsAreArray(documented));
}

TEST_F(ApiTest, TheDocumentIsServedAndItsReferencesLeadSomewhere) {
  EXPECT_EQ(Get("/openapi.json").body, Document());
  const std::function<void(const json&)> walk = [&](const json& node) {
    if (node.is_object() && node.contains("$ref")) {
      const std::string pointer = node["$ref"].get<std::string>().substr(1);
      EXPECT_TRUE(Document().contains(json::json_pointer(pointer))) << pointer;
    }
    if (node.is_structured()) {
      for (const json& each : node) walk(each);
    }
  };
  walk(Document());
}

// ---- Apps ----

TEST_F(ApiTest, CreatesAnAppAndShowsIt) {
  const Answer created = CreateApp("a");
  EXPECT_EQ(created.status, 201);
  EXPECT_EQ(created.body["revision"]["configuration"]["values"]["A"], "1");
  EXPECT_EQ(created.body["revision"]["configuration"]["template_name"], "template");
  runtime::InstanceStatus instance;
  instance.id = "a-main-1";
  instance.state = runtime::InstanceState::kRunning;
  instance.started = std::chrono::system_clock::time_point(seconds(1));
  instance.exit_code = 3;
  instance.endpoints.push_back({"127.0.0.1", 9000, 80, "tcp"});
  line_.AddInstance("a", instance);

  const Answer got = Get("/apps/a");
  const json& shown = got.body["services"][0]["instances"][0];
  EXPECT_EQ(shown["started_at"], "1970-01-01T00:00:01.000Z");
  EXPECT_TRUE(shown["finished_at"].is_null());
  EXPECT_EQ(shown["exit_code"], 3);
  EXPECT_TRUE(shown["signal"].is_null());
  EXPECT_EQ(shown["endpoints"][0]["address"], "127.0.0.1:9000");
  EXPECT_EQ(got.body["services"][0]["spec"]["depends_on"]["x"], "healthy");

  const Answer list = Get("/apps");
  EXPECT_EQ(list.body["apps"].size(), 1u);
  EXPECT_FALSE(list.body["apps"][0]["revision"].contains("configuration"));
  EXPECT_EQ(list.body["apps"][0]["values"]["A"], "1");

  const Answer endpoints = Get("/endpoints");
  EXPECT_EQ(endpoints.body["endpoints"][0]["app"], "a");
  EXPECT_EQ(endpoints.body["endpoints"][0]["port"], 9000);
  EXPECT_EQ(Get("/system").body["counts"]["instances"], 1);
}

TEST_F(ApiTest, PreviewsWithoutDoing) {
  line_.preview.changes.push_back({line::Change::Kind::kChanged, "values.A", "1", "2"});
  line_.preview.services.push_back({"main", line::ServiceAction::kRestart, {}});
  line_.preview.suggestions.push_back({"main", "v", {"sub"}, "did you mean that?"});
  line_.preview.parameters.push_back({"A", std::nullopt, true, "", {}, {{"services", 1, 2}}});
  line_.preview.issues.emplace_back();
  const Answer answer =
      Call("POST", "/apps?dry_run=true", R"({"name": "a", "template": "takt/host"})");
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.body["anything_changes"], true);
  EXPECT_EQ(answer.body["services"][0]["action"], "restart");
  EXPECT_EQ(answer.body["suggestions"][0]["option"]["subdirectory"], "sub");
  EXPECT_TRUE(answer.body["parameters"][0]["default_value"].is_null());
  EXPECT_THAT(line_.List(), IsEmpty());

  CreateApp("a");
  EXPECT_EQ(Call("PUT", "/apps/a/configuration?dry_run=true", R"({"values": {"A": "2"}})").status,
            200);
  EXPECT_EQ(line_.previewed.values.at("A"), "2");
  EXPECT_EQ(line_.previewed.template_text, "takt/host");
  EXPECT_EQ(Call("POST", "/apps/a/rollback?dry_run=1", R"({"revision": 1})").status, 200);
  EXPECT_EQ(line_.previewed.values.at("A"), "1");
  EXPECT_EQ(line_.Revisions("a")->size(), 1u);
}

TEST_F(ApiTest, ConfiguresRollsBackStopsStartsAndRemoves) {
  CreateApp("a");
  const Answer second = Call(
      "PUT", "/apps/a/configuration",
      R"({"values": {"B": "2"}, "volume_options": {"v": {"subdirectory": "s"}}, "why": "better"})");
  EXPECT_EQ(second.status, 200);
  EXPECT_EQ(second.body["revision"]["number"], 2);
  EXPECT_EQ(second.body["revision"]["why"], "better");
  EXPECT_EQ(second.body["values"], json({{"B", "2"}}));
  EXPECT_EQ(second.body["revision"]["configuration"]["template"], "takt/host");
  EXPECT_EQ(Get("/apps/a/revisions").body["revisions"][0]["number"], 2);
  EXPECT_EQ(Get("/apps/a/revisions?limit=1").body["revisions"].size(), 1u);
  EXPECT_EQ(Get("/apps/a/revisions/1").body["configuration"]["values"]["A"], "1");
  EXPECT_EQ(Get("/apps/a/revisions/9").status, 404);
  const Answer back = Call("POST", "/apps/a/rollback", R"({"revision": 1, "why": "worse"})");
  EXPECT_EQ(back.body["revision"]["number"], 3);
  EXPECT_EQ(back.body["values"], json({{"A", "1"}}));
  EXPECT_EQ(Call("POST", "/apps/a/stop").body["state"], "stopped");
  EXPECT_EQ(Call("POST", "/apps/a/start").body["stopped"], false);
  EXPECT_THAT(Get("/apps/a/removal").body["volumes_kept"], ElementsAre("data"));
  EXPECT_EQ(Call("DELETE", "/apps/a").status, 200);
  EXPECT_EQ(Get("/apps/a").status, 404);
  EXPECT_EQ(Call("DELETE", "/apps/a").status, 404);
}

TEST_F(ApiTest, SaysWhatAProgramCanUseOfARefusal) {
  templates::Issue issue;
  issue.line = 3;
  issue.message = "unknown field";
  line_.preview.issues = {issue};
  line_.preview.missing_volumes = {"data"};
  line_.refusal = absl::InvalidArgumentError("template:3: unknown field");
  const Answer created = CreateApp("a");
  EXPECT_EQ(created.status, 400);
  EXPECT_EQ(created.body["code"], "INVALID_ARGUMENT");
  EXPECT_EQ(created.body["details"]["issues"][0]["line"], 3);
  EXPECT_THAT(created.body["details"]["missing_volumes"], ElementsAre("data"));
}

// ---- The rest of the platform ----

TEST_F(ApiTest, TellsAboutTheSystem) {
  clock_.Advance(seconds(90));
  const Answer answer = Get("/system");
  EXPECT_EQ(answer.body["version"], "1.2.3");
  EXPECT_EQ(answer.body["uptime_seconds"], 90);
  EXPECT_EQ(answer.body["started_at"], "2026-01-01T00:00:00.000Z");
  EXPECT_EQ(answer.body["runtime"]["name"], "test");
  EXPECT_THAT(answer.body["runtime"]["warnings"], ElementsAre("no memory cgroup"));
  EXPECT_GT(answer.body["memory_bytes"], 0);
}

TEST_F(ApiTest, KeepsVolumes) {
  EXPECT_EQ(Call("POST", "/volumes", R"({"name": "v"})").status, 201);
  EXPECT_EQ(Call("POST", "/volumes", R"({"name": "used"})").status, 201);
  EXPECT_EQ(Call("POST", "/volumes", R"({"name": "v"})").status, 409);
  EXPECT_EQ(Call("POST", "/volumes", R"({"name": "../v"})").status, 400);
  EXPECT_EQ(Get("/volumes").body["volumes"].size(), 2u);
  EXPECT_EQ(Get("/volumes/v").body["ready"], true);
  const Answer refused = Call("DELETE", "/volumes/used");
  EXPECT_EQ(refused.status, 400);
  EXPECT_EQ(refused.body["code"], "FAILED_PRECONDITION");
  EXPECT_THAT(refused.body["details"]["users"], ElementsAre("a", "b"));
  EXPECT_EQ(Call("DELETE", "/volumes/v").status, 204);
  EXPECT_EQ(Get("/volumes/v").status, 404);
}

TEST_F(ApiTest, KnowsImages) {
  const Answer images = Get("/images");
  EXPECT_EQ(images.body["images"][0]["available"], true);
  EXPECT_EQ(images.body["images"][1]["reason"], "not installed");
  EXPECT_EQ(Get("/images/resolve?image=takt%2Fhost").body["digest"], "host@1");
  EXPECT_EQ(Get("/images/resolve?image=x").status, 404);
  EXPECT_EQ(Get("/images/resolve").status, 400);
}

TEST_F(ApiTest, ChecksATemplateAndStartsNothing) {
  const std::string text =
      "services:\n  web:\n    image: takt/host\n    command: [\"echo\", \"${VERSION:-1}\"]\n"
      "    privileged: true\nvolumes:\n  data: {}\n";
  const Answer answer =
      Call("POST", "/templates/check?resolved=true", json({{"template", text}}).dump());
  ASSERT_EQ(answer.status, 200);
  ASSERT_EQ(answer.body["services"].size(), 1u) << answer.body;
  ASSERT_EQ(answer.body["unsupported"].size(), 1u) << answer.body;
  ASSERT_EQ(answer.body["volumes"].size(), 1u) << answer.body;
  EXPECT_EQ(answer.body["services"][0]["command"][1], "1");
  EXPECT_EQ(answer.body["parameters"][0]["default_value"], "1");
  EXPECT_EQ(answer.body["parameters"][0]["uses"][0]["line"], 4);
  EXPECT_EQ(answer.body["unsupported"][0]["feature"], "privileged");
  EXPECT_EQ(answer.body["ok"], false);
  EXPECT_EQ(answer.body["volumes"][0]["exists"], false);
  EXPECT_TRUE(answer.body["resolved"]["services"].contains("web"));
  const Answer wrong =
      Call("POST", "/templates/check", R"({"template": "services:\n  web:\n    imag: x\n"})");
  EXPECT_EQ(wrong.status, 200);
  EXPECT_EQ(wrong.body["ok"], false);
  EXPECT_EQ(wrong.body["issues"][0]["line"], 3);
  EXPECT_TRUE(wrong.body["resolved"].is_null());
}

TEST_F(ApiTest, ListsEvents) {
  for (int i = 0; i < 5; ++i) line_.Record(i % 2 == 0 ? "a" : "b", "started", StrCat(i));
  EXPECT_EQ(Get("/events").body["last_id"], 5);
  EXPECT_EQ(Get("/events?limit=2").body["events"][0]["id"], 4);
  EXPECT_EQ(Get("/events?after=1&limit=2").body["events"][0]["id"], 2);
  EXPECT_EQ(Get("/events?app=b").body["events"].size(), 2u);
  EXPECT_EQ(Get("/events?after=5").body["last_id"], 5);
}

// ---- Refusals ----

TEST_F(ApiTest, RefusesWhatItDoesNotKnowByName) {
  CreateApp("a");
  struct Case {
    std::string method, target, body;
    int status;
    std::string message;
  };
  const std::vector<Case> cases = {
      {"GET", "/nothing", "", 404, "no such address"},
      {"GET", "", "", 404, "no such address"},
      {"GET", "/apps/", "", 404, "no such address"},
      {"PATCH", "/apps/a", "", 405, "the methods here are GET, DELETE"},
      {"GET", "/apps/b", "", 404, "no app b"},
      {"GET", "/events?limt=1", "", 400, "unknown query parameter \"limt\": did you mean limit?"},
      {"GET", "/events?limit=0", "", 400, "expected an integer from 1 to 10000, got \"0\""},
      {"GET", "/events?limit=x", "", 400, "got \"x\""},
      {"POST", "/apps?dry_run=yes", "{}", 400, "expected true or false"},
      {"POST", "/apps", "{", 400, "not JSON"},
      {"POST", "/apps", "[]", 400, "expected an object, got []"},
      {"POST", "/apps", "\"\xff\"", 400, "not JSON"},
      {"POST", "/apps", std::string(100'000, '['), 400, "not JSON"},
      {"POST", "/apps", R"({"a":)" + std::string(40, '[') + std::string(40, ']') + "}", 400,
       "deeper than 32 levels"},
      {"POST", "/apps", R"({"template": "x"})", 400, "the field name is missing"},
      {"POST", "/apps", R"({"name": 1, "template": "x"})", 400, "name: expected a string, got 1"},
      {"POST", "/apps", R"({"name": "x", "template": "x", "templat": "x"})", 400,
       "unknown field \"templat\": did you mean template?"},
      {"POST", "/apps", R"({"name": "x", "template": "x", "values": {"A": 1}})", 400,
       "values.A: expected a string, got 1"},
      {"POST", "/apps", R"({"name": "x", "template": "x", "values": []})", 400,
       "values: expected an object of strings"},
      {"POST", "/apps", R"({"name": "x", "template": "x", "volume_options": {"v": {"sub": "x"}}})",
       400, "unknown field \"volume_options.v.sub\""},
      {"POST", "/apps", R"({"name": "x", "template": "x", "create_volumes": "yes"})", 400,
       "create_volumes: expected true or false"},
      {"POST", "/apps/a/rollback", R"({"revision": 1.5})", 400, "revision: expected an integer"},
      {"POST", "/apps/a/rollback", R"({"revision": 99999999999})", 400, "expected an integer"},
      {"GET", "/apps/a/revisions/x", "", 400, "expected a number"},
      {"GET", "/apps/a/logs?cursor=x", "", 400, "cursor: expected one of an earlier answer"},
      {"GET", "/apps/a/logs?tail=10001", "", 400, "from 0 to 10000"},
      {"GET", "/apps/a/logs?service=man", "", 404, "did you mean main?"},
      {"GET", "/apps/a/logs?instance=x", "", 404, "no instance x"},
      {"GET", "/stream?app=b", "", 404, "no app b"},
      {"POST", "/volumes", R"({"name": "v", "options": {"device": 1}})", 400,
       "options.device: expected a string"},
  };
  for (const Case& c : cases) {
    SCOPED_TRACE(StrCat(c.method, " ", c.target, " ", c.body.substr(0, 60)));
    const Answer answer = Call(c.method, c.target, c.body);
    EXPECT_EQ(answer.status, c.status);
    ASSERT_TRUE(answer.body.is_object());
    EXPECT_THAT(answer.body["message"].get<std::string>(), HasSubstr(c.message));
  }
  EXPECT_EQ(line_.List().size(), 1u);
}

TEST_F(ApiTest, RefusesABodyBeyondTheLimitInTheApisWords) {
  const Answer answer = Call("POST", "/apps", std::string(kMaxRequestBytes + 1, 'x'));
  EXPECT_EQ(answer.status, 413);
  EXPECT_EQ(answer.body["code"], "RESOURCE_EXHAUSTED");
}

TEST_F(ApiTest, LetsNoPageOfAnotherOriginChangeAnything) {
  const std::string own = StrCat("127.0.0.1:", server_->port());
  const std::string body = R"({"name": "a", "template": "x"})";
  for (const auto& [name, value] :
       std::vector<std::pair<std::string, std::string>>{{"Origin", "http://evil.example"},
                                                        {"Origin", "null"},
                                                        {"Origin", "http://127.0.0.1:1"},
                                                        {"Sec-Fetch-Site", "cross-site"},
                                                        {"Sec-Fetch-Site", "same-site"}}) {
    EXPECT_EQ(Call("POST", "/apps", body, {{name, value}}).status, 403) << name << value;
  }
  EXPECT_EQ(Call("POST", "/apps/a/stop", "", {{"Origin", "http://evil.example"}}).status, 403);
  net::HttpCall form;
  form.method = "POST";
  form.target = "/api/v1/apps";
  form.body = body;
  form.content_type = "text/plain";
  EXPECT_EQ(net::HttpClient(ClientOptions()).Call(form)->status, 415);
  EXPECT_THAT(line_.List(), IsEmpty());
  EXPECT_EQ(
      Call("POST", "/apps", body, {{"Origin", "http://" + own}, {"Sec-Fetch-Site", "same-origin"}})
          .status,
      201);
}

TEST_F(ApiTest, WantsTheTokenWhereItHasOne) {
  Stop();
  Start("secret");
  EXPECT_EQ(Get("/apps").status, 401);
  EXPECT_EQ(Get("/apps").body["code"], "UNAUTHENTICATED");
  EXPECT_EQ(Call("GET", "/apps", "", {{"Authorization", "Bearer secreT"}}).status, 401);
  EXPECT_EQ(Call("GET", "/apps", "", {{"Authorization", "Bearer secret"}}).status, 200);
  EXPECT_EQ(Call("GET", "/stream", "").status, 401);
  EXPECT_EQ(Call("POST", "/session", R"({"token": "wrong"})").status, 401);
  const Answer session = Call("POST", "/session", R"({"token": "secret"})");
  EXPECT_EQ(session.status, 204);
  const std::string cookie(session.reply.Header("set-cookie"));
  EXPECT_THAT(cookie, HasSubstr("HttpOnly; SameSite=Strict"));
  EXPECT_EQ(
      Call("GET", "/apps", "", {{"Cookie", "a=b; " + cookie.substr(0, cookie.find(';'))}}).status,
      200);
  EXPECT_EQ(Call("GET", "/apps", "", {{"Cookie", "xtakt_token=secret"}}).status, 401);
}

// ---- The console's files ----

TEST_F(ApiTest, ServesTheConsole) {
  net::HttpClient client(ClientOptions());
  const auto get = [&](const std::string& target,
                       std::vector<std::pair<std::string, std::string>> headers = {},
                       const std::string& method = "GET") {
    net::HttpCall call;
    call.method = method;
    call.target = target;
    call.headers = std::move(headers);
    return client.Call(call).value();
  };
  const net::HttpReply page = get("/");
  EXPECT_EQ(page.status, 200);
  EXPECT_EQ(page.body, "<html>");
  EXPECT_EQ(page.Header("content-security-policy"), "default-src 'none'");
  EXPECT_EQ(page.Header("cache-control"), "no-cache");
  EXPECT_EQ(page.Header("etag"), "\"e1\"");
  EXPECT_EQ(get("/", {{"If-None-Match", "\"e1\""}}).status, 304);
  EXPECT_EQ(get("/", {{"If-None-Match", "\"other\""}}).status, 200);
  EXPECT_EQ(get("/apps/a").body, "<html>");
  const net::HttpReply script = get("/assets/a-1.js", {{"Accept-Encoding", "gzip, br"}});
  EXPECT_EQ(script.Header("content-encoding"), "gzip");
  EXPECT_EQ(script.body, script_);
  EXPECT_EQ(script.Header("cache-control"), "public, max-age=31536000, immutable");
  EXPECT_EQ(get("/assets/b.js").status, 404);
  EXPECT_EQ(get("/", {}, "HEAD").body, "");
  EXPECT_EQ(get("/", {}, "POST").status, 405);
  EXPECT_EQ(get("/api/v2/apps").body, "<html>");
}

// ---- Logs ----

TEST_F(ApiTest, MergesTheLogsOfAnAppAndGoesOnFromACursor) {
  CreateApp("a");
  for (const char* id : {"i1", "i2"}) {
    runtime::InstanceStatus instance;
    instance.id = id;
    line_.AddInstance("a", instance);
  }
  for (int i = 0; i < 6; ++i) runtime_.Log(i % 2 == 0 ? "i1" : "i2", i, StrCat("line ", i));
  const auto texts = [](const Answer& answer) {
    std::vector<std::string> out;
    for (const json& line : answer.body["lines"]) out.push_back(line["text"]);
    return out;
  };
  const Answer all = Get("/apps/a/logs");
  EXPECT_THAT(texts(all), ElementsAre("line 0", "line 1", "line 2", "line 3", "line 4", "line 5"));
  EXPECT_EQ(all.body["lines"][0]["service"], "main");
  EXPECT_EQ(all.body["lines"][1]["instance"], "i2");
  EXPECT_THAT(texts(Get("/apps/a/logs?tail=2")), ElementsAre("line 4", "line 5"));
  EXPECT_THAT(texts(Get("/apps/a/logs?instance=i2&tail=2")), ElementsAre("line 3", "line 5"));
  EXPECT_THAT(texts(Get("/apps/a/logs?service=main&tail=1")), ElementsAre("line 5"));

  const Answer end = Get("/apps/a/logs?tail=0");
  EXPECT_THAT(texts(end), IsEmpty());
  runtime_.Log("i1", 6, "line 6");
  runtime_.Log("i1", 3, "line 7, its clock jumped back");
  runtime_.Log("i2", 7, "line 8");
  std::string cursor = end.body["cursor"];
  std::vector<std::string> read;
  for (int i = 0; i < 4; ++i) {
    const Answer piece = Get(StrCat("/apps/a/logs?tail=1&cursor=", net::UrlEncode(cursor)));
    for (const std::string& each : texts(piece)) read.push_back(each);
    cursor = piece.body["cursor"];
  }
  EXPECT_THAT(read, ElementsAre("line 6", "line 7, its clock jumped back", "line 8"));
}

std::vector<std::string> LinesOf(const std::vector<net::ServerSentEvent>& events) {
  std::vector<std::string> texts;
  for (const auto& event : events) {
    if (event.event != "lines") continue;
    const json body = json::parse(event.data);
    for (const json& line : body["lines"]) texts.push_back(line["text"]);
  }
  return texts;
}

TEST_F(ApiTest, StreamsLogLinesOfInstancesOldAndNew) {
  CreateApp("a");
  runtime::InstanceStatus instance;
  instance.id = "i1";
  line_.AddInstance("a", instance);
  for (int i = 0; i < 5; ++i) runtime_.Log("i1", i, StrCat("old ", i));
  const auto events = Collect(
      "/stream?app=a&tail=2", [](const auto& got) { return LinesOf(got).size() >= 4; },
      [&] {
        runtime_.Log("i1", 10, "new");
        runtime_.Log("i2", 11, "of a new instance");
        runtime::InstanceStatus second;
        second.id = "i2";
        line_.AddInstance("a", second);
      });
  EXPECT_THAT(LinesOf(events), ElementsAre("old 3", "old 4", "new", "of a new instance"));
  std::string cursor;
  for (const auto& event : events) {
    if (event.event != "lines") continue;
    const json body = json::parse(event.data);
    std::vector<std::string> errors;
    Validate(Document()["components"]["schemas"]["Logs"], body, "lines", &errors);
    EXPECT_THAT(errors, IsEmpty());
    cursor = body["cursor"];
  }
  const auto resumed = Collect(
      "/stream?app=a&cursor=" + net::UrlEncode(cursor),
      [](const auto& got) { return !LinesOf(got).empty(); },
      [&] { runtime_.Log("i1", 12, "after"); });
  EXPECT_THAT(LinesOf(resumed), ElementsAre("after"));
  EXPECT_EQ(Get("/stream?app=none").status, 404);
  EXPECT_EQ(Get("/stream?app=a&service=none").status, 404);
  EXPECT_EQ(Get("/stream?app=a&cursor=x").status, 400);
  EXPECT_EQ(Get("/stream?tail=5").status, 400);
}

TEST_F(ApiTest, StreamsALogThatIsLargerThanAnyBacklogWhole) {
  CreateApp("a");
  runtime::InstanceStatus instance;
  instance.id = "i1";
  line_.AddInstance("a", instance);
  const std::string text(2000, 'x');
  constexpr std::size_t kLines = 2000;  // 4 MB; the server keeps 256 KiB
  for (std::size_t i = 0; i < kLines; ++i) runtime_.Log("i1", 1, text);
  std::size_t seen = 0, lines = 0;  // each event is looked at once: there are many
  Collect("/stream?app=a&tail=2000", [&](const auto& got) {
    for (; seen < got.size(); ++seen) lines += LinesOf({got[seen]}).size();
    return lines >= kLines;
  });
  EXPECT_EQ(lines, kLines);
}

TEST_F(ApiTest, SaysThatALogEndsWithItsApp) {
  CreateApp("a");
  const auto events = Collect(
      "/stream?app=a",
      [](const auto& got) {
        return std::any_of(got.begin(), got.end(),
                           [](const auto& event) { return event.event == "log_end"; });
      },
      [&] { EXPECT_TRUE(line_.Remove("a").ok()); });
  EXPECT_EQ(events[0].event, "hello");
}

// ---- The stream of changes ----

TEST_F(ApiTest, TellsEveryTabWhatChanges) {
  Stop();
  line_.Record("", "daemon", "before");
  Start("");
  const auto events = Collect(
      "/stream",
      [](const auto& got) {
        return std::any_of(got.begin(), got.end(),
                           [](const auto& e) { return e.event == "app_removed"; });
      },
      [&] {
        CreateApp("a");
        Call("POST", "/volumes", R"({"name": "v"})");
        Call("DELETE", "/apps/a");
      });
  EXPECT_EQ(events[0].event, "hello");
  EXPECT_EQ(json::parse(events[0].data)["last_event_id"], 1);
  std::map<std::string, std::vector<json>> by_kind;
  for (const auto& event : events) by_kind[event.event].push_back(json::parse(event.data));
  ASSERT_EQ(by_kind["event"].size(), 2u);
  EXPECT_EQ(by_kind["event"][0]["kind"], "created");
  EXPECT_EQ(by_kind["event"][1]["kind"], "removed");
  EXPECT_EQ(by_kind["volumes"].size(), 1u);
  EXPECT_EQ(by_kind["app_removed"][0]["name"], "a");
}

TEST_F(ApiTest, SendsTheAppThatChanged) {
  const auto events = Collect(
      "/stream",
      [](const auto& got) {
        return std::any_of(got.begin(), got.end(), [](const auto& e) { return e.event == "app"; });
      },
      [&] { CreateApp("a"); });
  for (const auto& event : events) {
    if (event.event != "app") continue;
    std::vector<std::string> errors;
    Validate(Document()["components"]["schemas"]["App"], json::parse(event.data), "app", &errors);
    EXPECT_THAT(errors, IsEmpty());
  }
}

TEST_F(ApiTest, ResumesAfterTheLastEventThatTheTabHas) {
  const std::size_t recorded = kMaxReplayedEvents + 10;
  for (std::size_t i = 0; i < recorded; ++i) line_.Record("a", "started", "");
  Collect(
      "/stream", [&](const auto& got) { return !got.empty(); }, nullptr);
  // The hub learns of events in its own time: ask until it has them all.
  const auto end = std::chrono::steady_clock::now() + seconds(20);
  std::vector<net::ServerSentEvent> events;
  const auto caught_up = [&] {
    events = Collect(
        "/stream?after=1000", [](const auto& got) { return !got.empty(); }, nullptr);
    return json::parse(events[0].data)["last_event_id"] == recorded;
  };
  while (!caught_up() && std::chrono::steady_clock::now() < end) std::this_thread::yield();
  const auto resumed = Collect(
      "/stream", [](const auto& got) { return got.size() == 4; }, nullptr, StrCat(recorded - 3));
  EXPECT_EQ(json::parse(resumed[0].data)["truncated"], false);
  EXPECT_EQ(resumed[1].id, StrCat(recorded - 2));
  EXPECT_EQ(resumed[3].id, StrCat(recorded));
  const auto cut = Collect("/stream?after=1",
                           [&](const auto& got) { return got.size() == kMaxReplayedEvents + 1; });
  EXPECT_EQ(json::parse(cut[0].data)["truncated"], true);
  EXPECT_EQ(cut[1].id, StrCat(recorded - kMaxReplayedEvents + 1));
}

TEST_F(ApiTest, KeepsASilentStreamAlive) {
  net::HttpCall call;
  call.target = "/api/v1/stream";
  net::HttpClient client(ClientOptions());
  std::string text;
  const auto reply = client.Stream(call, [&](std::string_view piece) {
    text.append(piece);
    return text.find("\n\n:\n\n") == std::string::npos;
  });
  EXPECT_TRUE(reply.ok()) << reply.status();
}

TEST_F(ApiTest, DropsATabThatDoesNotReadAndServesTheOthers) {
  const int idle =
      net::Connect("127.0.0.1", server_->port(), std::chrono::steady_clock::now() + seconds(20))
          .value();
  const std::string request = "GET /api/v1/stream HTTP/1.1\r\nHost: localhost\r\n\r\n";
  ASSERT_EQ(send(idle, request.data(), request.size(), 0), std::ssize(request));
  const std::string data = StrCat("\"", std::string(100'000, 'x'), "\"");
  constexpr std::size_t kMessages = 400;  // 40 MB; kernels hold a few, the server 256 KiB
  std::size_t sent = 0;
  const auto events = Collect("/stream", [&](const auto& got) {
    if (sent < kMessages && got.size() > sent) {
      ++sent;
      api_->Broadcast("test", data);
    }
    return got.size() > kMessages;
  });
  EXPECT_EQ(events.size(), kMessages + 1);
  std::size_t received = 0;
  std::vector<char> buffer(1 << 20);
  pollfd wait{.fd = idle, .events = POLLIN, .revents = 0};
  while (poll(&wait, 1, 20000) == 1) {
    const ssize_t n = recv(idle, buffer.data(), buffer.size(), 0);
    if (n <= 0) break;
    received += static_cast<std::size_t>(n);
  }
  close(idle);
  EXPECT_GT(received, 0u);
  EXPECT_LT(received, kMessages * data.size()) << "nobody was dropped";
}

TEST_F(ApiTest, CutsALogAnswerAtItsLimitAndGoesOn) {
  CreateApp("a");
  runtime::InstanceStatus instance;
  instance.id = "i1";
  line_.AddInstance("a", instance);
  const std::string text(1 << 20, 'x');
  const std::size_t lines = kMaxLogAnswerBytes / text.size() + 4;
  for (std::size_t i = 0; i < lines; ++i) runtime_.Log("i1", 1, text);
  const std::size_t newest = Get("/apps/a/logs").body["lines"].size();
  EXPECT_EQ(newest, kMaxLogAnswerBytes / text.size());
  std::string cursor;
  std::size_t read = 0;
  for (int i = 0; i < 3; ++i) {
    const Answer answer = Get(StrCat("/apps/a/logs?cursor=", net::UrlEncode(cursor)));
    read += answer.body["lines"].size();
    cursor = answer.body["cursor"];
  }
  EXPECT_EQ(read, lines);
}

TEST_F(ApiTest, RefusesStreamsBeyondTheLimit) {
  std::vector<std::unique_ptr<net::HttpClient>> clients;
  std::vector<std::thread> threads;
  std::atomic<std::size_t> open = 0;
  std::atomic<bool> stop = false;
  net::HttpCall call;
  call.target = "/api/v1/stream";
  for (std::size_t i = 0; i < kMaxStreamClients; ++i) {
    threads.emplace_back([&] {
      bool counted = false;
      net::HttpClient client(ClientOptions());
      const auto reply = client.Stream(
          call,
          [&](std::string_view) {
            if (!std::exchange(counted, true)) ++open;
            return !stop;
          },
          [&] { return !stop.load(); });
      EXPECT_TRUE(reply.ok()) << reply.status();
    });
  }
  const auto end = std::chrono::steady_clock::now() + seconds(20);
  while (open < kMaxStreamClients && std::chrono::steady_clock::now() < end) {
    std::this_thread::yield();
  }
  EXPECT_EQ(open, kMaxStreamClients);
  const Answer answer = Get("/stream");
  EXPECT_EQ(answer.status, 429);
  EXPECT_EQ(answer.body["code"], "RESOURCE_EXHAUSTED");
  stop = true;
  for (std::thread& each : threads) each.join();
}

// ---- Runs and models ----

class RunsApiTest : public ApiTest {
 protected:
  void SetUp() override {
    ApiTest::SetUp();
    ASSERT_TRUE(volumes_->Create("models", "local", {}).ok());
    directory_ = volumes_->Resolve("models", "digits").value();
    ASSERT_EQ(CreateApp("mnist").status, 201);
    ASSERT_EQ(CreateApp("server").status, 201);
    line::ServiceView trainer = Service("training", "/models/digits");
    runtime::InstanceStatus& instance = trainer.instances[0];
    instance.created = instance.started = clock_.Now();
    instance.cpu_seconds = 12.5;
    line_.SetService("mnist", trainer);
    line_.SetService("server", Service("serving", "--model_base_path=/models/digits"));
    Observe();
  }
  static line::ServiceView Service(const std::string& role, const std::string& argument) {
    line::ServiceView service;
    service.spec.name = "main";
    service.role = role;
    service.spec.command = std::vector<std::string>{"program", argument};
    templates::Mount mount;
    mount.source = "models";
    mount.target = "/models";
    service.spec.mounts.push_back(mount);
    runtime::InstanceStatus& instance = service.instances.emplace_back();
    instance.id = role + "-1";
    instance.revision = 1;
    instance.state = runtime::InstanceState::kRunning;
    return service;
  }
  void Observe() {
    ASSERT_TRUE(runs_->Observe(line_.Get("mnist").value(), *volumes_, clock_.Now()).ok());
  }
  // The run ends well after a minute, having exported version 2.
  void End() {
    ASSERT_TRUE(MakeDirs(directory_ + "/2").ok());
    ASSERT_TRUE(WriteFileWhole(directory_ + "/2/saved_model.pb", "graph").ok());
    std::error_code error;
    std::filesystem::last_write_time(directory_ + "/2/saved_model.pb",
                                     std::chrono::file_clock::from_sys(clock_.Now() + seconds(30)),
                                     error);
    ASSERT_FALSE(error) << error.message();
    clock_.Advance(seconds(60));
    line::ServiceView trainer = line_.Get("mnist")->services[0];
    trainer.instances[0].state = runtime::InstanceState::kExited;
    trainer.instances[0].exit_code = 0;
    trainer.instances[0].finished = clock_.Now();
    line_.SetService("mnist", trainer);
    Observe();
  }
  void WriteEvents() {
    const double start = std::chrono::duration<double>(clock_.Now().time_since_epoch()).count();
    std::string file;
    for (int step = 1; step <= 3; ++step) {
      learning::AppendScalarEvent(start + step, step, "loss", step == 2 ? 0.25F : 0.5F, file);
      learning::AppendScalarEvent(start + step, step, "accuracy", step == 2 ? 0.75F : 0.5F, file);
      learning::AppendScalarEvent(start + step, step, "rate", 2, file);
    }
    ASSERT_TRUE(MakeDirs(dir_.path() + "/events").ok());
    ASSERT_TRUE(WriteFileWhole(dir_.path() + "/events/events.out.tfevents.1.host", file).ok());
    ASSERT_TRUE(learning_store_->Scan({"mnist", "main", dir_.path() + "/events"}).ok());
  }

  std::string directory_;
};

TEST_F(RunsApiTest, ARunShowsWhatItWasGivenWhatItReachedAndWhatItMade) {
  json run = Get("/runs/mnist/1").body;
  EXPECT_EQ(run["state"], "running");
  EXPECT_EQ(run["ended"], nullptr);
  EXPECT_EQ(run["values"], json({{"A", "1"}}));
  WriteEvents();
  End();
  serving_["server/main/default"] = {2};
  run = Get("/runs/mnist/1").body;
  EXPECT_EQ(run["state"], "completed");
  EXPECT_EQ(run["started"], "2026-01-01T00:00:00.000Z");
  EXPECT_EQ(run["ended"], "2026-01-01T00:01:00.000Z");
  EXPECT_EQ(run["exit_code"], 0);
  EXPECT_EQ(run["cpu_seconds"], 12.5);
  std::map<std::string, json> metrics;
  for (const json& each : run["metrics"]) metrics[each["tag"]] = each;
  ASSERT_EQ(metrics.size(), 3u);
  EXPECT_EQ(metrics["loss"]["last"], 0.5);
  EXPECT_EQ(metrics["loss"]["best"], 0.25);
  EXPECT_EQ(metrics["loss"]["best_is"], "lowest");
  EXPECT_EQ(metrics["accuracy"]["best"], 0.75);
  EXPECT_EQ(metrics["accuracy"]["best_is"], "highest");
  EXPECT_EQ(metrics["rate"]["last"], 2);
  EXPECT_EQ(metrics["rate"]["best"], nullptr);
  const json& model = run["model"];
  EXPECT_EQ(model["name"], "digits");
  EXPECT_EQ(model["volume"], "models");
  ASSERT_EQ(model["versions"].size(), 1u);
  EXPECT_EQ(model["versions"][0]["number"], 2);
  EXPECT_EQ(model["versions"][0]["serves"], true);
  EXPECT_EQ(model["loaded_by"], json::array({{{"app", "server"},
                                              {"service", "main"},
                                              {"live", true},
                                              {"versions", json::array()},
                                              {"serving", json::array({2})}}}));
}

TEST_F(RunsApiTest, AVersionLeadsToItsRunAndToWhoLoadsIt) {
  End();
  serving_["server/main/default"] = {2};
  ASSERT_TRUE(MakeDirs(directory_ + "/1").ok());  // nobody's, and not whole
  for (const char* app : {"", "?app=mnist", "?app=server"}) {
    const json models = Get(StrCat("/models", app)).body["models"];
    ASSERT_EQ(models.size(), 1u) << app;
    EXPECT_EQ(models[0]["made_by"], json::array({"mnist"}));
    EXPECT_EQ(models[0]["loaded_by"][0]["app"], "server");
    ASSERT_EQ(models[0]["versions"].size(), 2u);
    EXPECT_EQ(models[0]["versions"][0]["number"], 2);
    EXPECT_EQ(models[0]["versions"][0]["served_by"], json({"server"}));
    EXPECT_EQ(models[0]["versions"][0]["run"], json({{"app", "mnist"}, {"number", 1}}));
    EXPECT_EQ(models[0]["versions"][1]["complete"], false);
    EXPECT_THAT(models[0]["versions"][1]["served_by"], IsEmpty());
    EXPECT_EQ(models[0]["versions"][1]["run"], nullptr);
  }
  EXPECT_THAT(Get("/models?app=other").body["models"], IsEmpty());
  // What counts is what the server says, not what lies there or what it is told.
  serving_["server/main/default"] = {1};
  EXPECT_THAT(Get("/models").body["models"][0]["versions"][0]["served_by"], IsEmpty());
  EXPECT_EQ(Get("/runs/mnist/1").body["model"]["versions"][0]["serves"], false);
  EXPECT_EQ(Get("/models").body["models"][0]["versions"][1]["served_by"], json({"server"}));
  // Under the name that the server's configuration gives the model.
  line::ServiceView named = Service("serving", "--model_config_file=/models.config");
  named.spec.files["/models.config"] =
      R"(config { name: "a" base_path: "/models/digits" model_platform: "tensorflow" })";
  line_.SetService("server", named);
  serving_ = {{"server/main/a", {2}}};
  EXPECT_EQ(Get("/runs/mnist/1").body["model"]["versions"][0]["serves"], true);
  // One that does not say.
  serving_.clear();
  EXPECT_EQ(Get("/models").body["models"][0]["loaded_by"][0]["serving"], nullptr);
  EXPECT_EQ(Get("/runs/mnist/1").body["model"]["versions"][0]["serves"], false);
  // Version 2 is gone, and with it what the run serves.
  ASSERT_TRUE(RemoveAll(directory_ + "/2").ok());
  const json version = Get("/runs/mnist/1").body["model"]["versions"][0];
  EXPECT_EQ(version["exists"], false);
  EXPECT_EQ(version["serves"], false);
}

TEST_F(RunsApiTest, ListsRunsAndKeepsNotes) {
  EXPECT_EQ(Get("/runs").body["runs"].size(), 1u);
  EXPECT_EQ(Get("/runs?app=mnist&limit=1").body["runs"].size(), 1u);
  EXPECT_THAT(Get("/runs?app=other").body["runs"], IsEmpty());
  EXPECT_EQ(Get("/apps/mnist/runs").body["runs"].size(), 1u);
  EXPECT_EQ(Get("/apps/nothing/runs").status, 404);
  EXPECT_EQ(Get(StrCat("/runs?limit=", kMaxListedRuns + 1)).status, 400);
  const Answer put = Call("PUT", "/runs/mnist/1", R"({"note": "good", "tags": ["b", "a"]})");
  EXPECT_EQ(put.status, 200);
  EXPECT_EQ(put.body["tags"], json({"a", "b"}));
  Call("PUT", "/runs/mnist/1", R"({"tags": []})");
  EXPECT_EQ(Get("/runs/mnist/1").body["note"], "good");
  EXPECT_THAT(Get("/runs/mnist/1").body["tags"], IsEmpty());
  for (const auto& [target, body, status] : std::vector<std::tuple<std::string, std::string, int>>{
           {"/runs/mnist/2", "{}", 404},
           {"/runs/mnist/0", "{}", 400},
           {"/runs/mnist/x", "{}", 400},
           {"/runs/mnist/1", R"({"tags": "a"})", 400},
           {"/runs/mnist/1", R"({"tags": [1]})", 400},
           {"/runs/mnist/1", R"({"notes": "a"})", 400}}) {
    EXPECT_EQ(Call("PUT", target, body).status, status) << target << " " << body;
  }
  EXPECT_EQ(Get("/runs/mnist/2").status, 404);
}

TEST_F(RunsApiTest, CurvesCanBeAskedOfOneRun) {
  WriteEvents();
  End();
  EXPECT_EQ(Get("/apps/mnist/learning?run=1").body["series"].size(), 3u);
  const json curve = Get("/apps/mnist/learning/curve?service=main&tag=loss&run=1").body;
  EXPECT_EQ(curve["values"], json({0.5, 0.25, 0.5}));
  EXPECT_EQ(Get("/apps/mnist/learning?run=2").status, 404);
  const Answer both = Get("/apps/mnist/learning?run=1&from=2026-01-01T00:00:00Z");
  EXPECT_EQ(both.status, 400);
  EXPECT_THAT(both.body["message"].get<std::string>(), HasSubstr("got both"));
}

TEST_F(RunsApiTest, HistogramsAndImagesOfARun) {
  const double start = std::chrono::duration<double>(clock_.Now().time_since_epoch()).count();
  const std::string png = "\x89PNG\r\n\x1a\nrest", evil = "<svg onload=alert(1)>";
  std::string file;
  for (int step = 1; step <= 3; ++step) {
    learning::AppendHistogramEvent(start + step, step, "weights", step, 2, file);
    learning::AppendImageEvent(start + step, step, "digit", step == 3 ? evil : png, file);
  }
  ASSERT_TRUE(MakeDirs(dir_.path() + "/events").ok());
  ASSERT_TRUE(WriteFileWhole(dir_.path() + "/events/events.out.tfevents.1.host", file).ok());
  ASSERT_TRUE(learning_store_->Scan({"mnist", "main", dir_.path() + "/events"}).ok());

  const std::string of = "?service=main&run=1&tag=";
  json items = Get(StrCat("/apps/mnist/learning/items", of, "weights&limit=2")).body["items"];
  ASSERT_EQ(items.size(), 2u);  // the newest two
  EXPECT_EQ(items[0]["step"], 2);
  EXPECT_EQ(items[0]["kind"], "histogram");
  EXPECT_EQ(items[1]["buckets"], json({{-1.0, 0.0, 3.0}, {0.0, 1.0, 2.0}}));

  items = Get(StrCat("/apps/mnist/learning/items", of, "digit")).body["items"];
  ASSERT_EQ(items.size(), 3u);
  EXPECT_EQ(items[0]["bytes"], png.size());
  const auto image = [&](int step) {
    net::HttpCall call;
    call.target = StrCat("/api/v1/apps/mnist/learning/image", of, "digit&step=", step);
    return net::HttpClient(ClientOptions()).Call(call).value();
  };
  const net::HttpReply reply = image(2);
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(reply.Header("content-type"), "image/png");
  EXPECT_EQ(reply.Header("x-content-type-options"), "nosniff");
  EXPECT_EQ(reply.body, png);
  EXPECT_EQ(image(3).status, 501);  // what could run a script is no image
  EXPECT_EQ(image(4).status, 404);
  EXPECT_EQ(Get(StrCat("/apps/mnist/learning/image", of, "weights&step=1")).status, 404);
  EXPECT_THAT(Get(StrCat("/apps/mnist/learning/items", of, "none")).body["items"], IsEmpty());
}

TEST_F(ApiTest, MetricsAreForWhoeverMayUseTheApi) {
  net::HttpCall call;
  call.target = "/metrics";
  auto reply = net::HttpClient(ClientOptions()).Call(call).value();
  EXPECT_EQ(reply.status, 200);
  EXPECT_EQ(reply.body, "takt_apps 1\n");
  EXPECT_THAT(reply.Header("content-type"), HasSubstr("text/plain; version=0.0.4"));
  call.method = "POST";
  EXPECT_EQ(net::HttpClient(ClientOptions()).Call(call).value().status, 405);
  Stop();
  Start("0123456789abcdef0123");
  call.method = "GET";
  EXPECT_EQ(net::HttpClient(ClientOptions()).Call(call).value().status, 401);
  call.headers = {{"Authorization", "Bearer 0123456789abcdef0123"}};
  EXPECT_EQ(net::HttpClient(ClientOptions()).Call(call).value().status, 200);
}

}  // namespace
}  // namespace takt::api
