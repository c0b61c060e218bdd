#include "api/api.h"

#include <algorithm>
#include <fstream>
#include <mutex>

#include <sys/resource.h>
#include <unistd.h>

#include "absl/strings/match.h"
#include "api/convert.h"
#include "api/errors.h"
#include "api/guard.h"
#include "api/json_reader.h"
#include "api/logs.h"
#include "api/streams.h"
#include "base/gzip.h"
#include "operate/tensorboard.h"

namespace takt::api {
namespace {

constexpr std::string_view kMetricsPath = "/metrics";
constexpr std::int64_t kDefaultRevisions = 100;
constexpr std::int64_t kDefaultEvents = 200;
constexpr std::int64_t kDefaultLogLines = 1000;
constexpr std::int64_t kDefaultStreamLines = 100;

std::string MachineName() {
  char name[256] = "";
  gethostname(name, sizeof(name) - 1);
  return name;
}

// What a body says about a configuration; what it does not say stays as it is.
struct ConfigurationBody {
  line::Configuration configuration;
  line::ApplyOptions options;

  void Read(ObjectReader& reader) {
    reader.Read("template", &configuration.template_text);
    reader.Read("template_name", &configuration.template_name);
    reader.Read("values", &configuration.values);
    if (reader.Has("volume_options")) configuration.volume_options.clear();
    reader.ReadEach("volume_options", [this](const std::string& volume, ObjectReader option) {
      option.Read("subdirectory", &configuration.volume_options[volume].subdirectory);
      return option.Done();
    });
    reader.Read("create_volumes", &options.create_volumes);
    reader.Read("why", &options.why);
  }
};

net::HttpResponse MethodRefused() {
  net::HttpResponse response = ErrorResponse(
      WithHttpStatus(absl::InvalidArgumentError("the methods here are GET, HEAD"), 405));
  response.headers.emplace_back("Allow", "GET, HEAD");
  return response;
}

class ApiImpl final : public Api {
 public:
  ApiImpl(ApiOptions options, line::Line& line, runtime::Runtime& runtime,
          storage::VolumeStore& volumes, const Clock& clock)
      : options_(std::move(options)),
        line_(line),
        runtime_(runtime),
        volumes_(volumes),
        clock_(clock),
        machine_(MachineName()),
        started_(clock.Now()),
        started_steady_(clock.Steady()),
        changes_(line, options_.keep_alive),
        logs_(line, runtime) {
    ears_->api = this;
    line_.AddListener([ears = ears_](const std::string& app) {
      const std::lock_guard lock(ears->mutex);
      if (ears->api == nullptr) return;
      ears->api->changes_.OnChange(app);
      ears->api->logs_.OnChange(app);
    });
    AddPlatformRoutes();
    AddAppRoutes();
    AddLogRoutes();
  }
  ~ApiImpl() override {
    const std::lock_guard lock(ears_->mutex);
    ears_->api = nullptr;
  }

  Router& router() override { return router_; }
  void SetMetrics(std::function<std::string()> metrics) override { metrics_ = std::move(metrics); }
  void SetTensorBoard(Handler handler) override { tensorboard_ = std::move(handler); }
  void SetFollow(Follow follow) override { follow_ = std::move(follow); }
  void OnLog(const std::string& instance) override { logs_.OnLog(instance); }
  void Broadcast(std::string_view event, std::string_view data) override {
    changes_.Broadcast(event, data);
  }
  void Handle(const net::HttpRequest& request,
              const std::shared_ptr<net::HttpResponder>& responder) override;

 private:
  using Result = absl::StatusOr<Reply>;
  // Held by line and runtime, which may outlive this.
  struct Ears {
    std::mutex mutex;
    ApiImpl* api = nullptr;  // guarded by mutex
  };

  void AddPlatformRoutes();
  void AddAppRoutes();
  void AddLogRoutes();

  absl::Status Admit(const net::HttpRequest& request, Bodies bodies = Bodies::kJson) const;
  void ServeFile(const net::HttpRequest& request,
                 const std::shared_ptr<net::HttpResponder>& responder) const;

  Result GetSystem(Call& call);
  Result PostSession(Call& call);
  Result OpenStream(Call& call);
  Result CreateApp(Call& call);
  Result ConfigureApp(Call& call);
  Result RollbackApp(Call& call);
  Result ListEvents(Call& call);
  Result ListEndpoints(Call& call);
  Result CheckTemplate(Call& call);
  Result ListVolumes(Call& call);
  Result CreateVolume(Call& call);
  Result DeleteVolume(Call& call);
  Result GetLogs(Call& call);
  absl::StatusOr<LogCursor> BeginOfLog(Call& call, const std::string& name,
                                       const LogSelection& selection);

  absl::StatusOr<line::Revision> FindRevision(const std::string& app, int number);
  absl::Status Explain(absl::Status status, const absl::StatusOr<line::Preview>& preview) const;
  void WriteVolume(JsonWriter& w, const storage::Volume& volume);
  void VolumesChanged() { Broadcast("volumes", "{}"); }
  Result AppReply(absl::StatusOr<line::App> app, int status = 200) {
    TAKT_RETURN_IF_ERROR(app.status());
    return Reply::Json(ToJson(*app, AppForm::kDetail), status);
  }

  const ApiOptions options_;
  line::Line& line_;
  runtime::Runtime& runtime_;
  storage::VolumeStore& volumes_;
  const Clock& clock_;
  const std::string machine_;
  const std::chrono::system_clock::time_point started_;
  const std::chrono::steady_clock::time_point started_steady_;
  const std::shared_ptr<Ears> ears_ = std::make_shared<Ears>();
  Router router_;
  std::function<std::string()> metrics_;
  Handler tensorboard_;
  Follow follow_;
  ChangeStream changes_;
  LogStream logs_;
};

// ---- Who may ask, and the console's files ----

absl::Status ApiImpl::Admit(const net::HttpRequest& request, Bodies bodies) const {
  TAKT_RETURN_IF_ERROR(CheckOrigin(request, bodies));
  if (options_.token.empty()) return CheckHost(request, machine_);
  if (request.path == StrCat(kApiPrefix, "/session")) return absl::OkStatus();
  return CheckToken(request, options_.token);
}

void ApiImpl::Handle(const net::HttpRequest& request,
                     const std::shared_ptr<net::HttpResponder>& responder) {
  const bool api = request.path == kApiPrefix ||
                   absl::StartsWith(request.path, absl::StrCat(ToAbsl(kApiPrefix), "/"));
  if (metrics_ && request.path == kMetricsPath) {
    const absl::Status admitted = Admit(request);
    net::HttpResponse response;
    if (!admitted.ok()) {
      response = ErrorResponse(admitted);
    } else if (request.method != "GET" && request.method != "HEAD") {
      response = MethodRefused();
    } else {
      response.content_type = "text/plain; version=0.0.4; charset=utf-8";
      response.body = metrics_();
    }
    responder->Send(std::move(response));
    return;
  }
  if (tensorboard_ && absl::StartsWith(request.path, ToAbsl(operate::kTensorBoardPath))) {
    const absl::Status admitted = Admit(request, Bodies::kAny);
    if (admitted.ok()) {
      tensorboard_(request, responder);
    } else {
      responder->Send(ErrorResponse(admitted));
    }
    return;
  }
  if (!api) {
    // The files hold nothing secret; a page of ours can only be had under a name of ours.
    const absl::Status host =
        options_.token.empty() ? CheckHost(request, machine_) : absl::OkStatus();
    if (host.ok()) {
      ServeFile(request, responder);
    } else {
      responder->Send(ErrorResponse(host));
    }
    return;
  }
  const absl::Status admitted = Admit(request);
  if (admitted.ok()) {
    router_.Answer(request, responder);
  } else {
    responder->Send(ErrorResponse(admitted));
  }
}

void ApiImpl::ServeFile(const net::HttpRequest& request,
                        const std::shared_ptr<net::HttpResponder>& responder) const {
  net::HttpResponse response;
  if (request.method != "GET" && request.method != "HEAD") {
    responder->Send(MethodRefused());
    return;
  }
  const auto find = [this](std::string_view path) {
    return std::find_if(options_.files.begin(), options_.files.end(),
                        [&](const StaticFile& file) { return file.path == path; });
  };
  std::string_view path = std::string_view(request.path).substr(1);
  auto file = find(path);
  // An address of the console is the console; only a file that is missing is missing.
  const bool page = path.substr(path.rfind('/') + 1).find('.') == std::string_view::npos;
  if (file == options_.files.end() && page) file = find("index.html");
  if (file == options_.files.end()) {
    responder->Send(ErrorResponse(absl::NotFoundError(StrCat("no such address: ", request.path))));
    return;
  }
  const std::string etag = StrCat("\"", file->etag, "\"");
  response.headers = {
      {"ETag", etag},
      {"Cache-Control", file->immutable ? "public, max-age=31536000, immutable" : "no-cache"},
      {"Content-Security-Policy", options_.content_security_policy},
      {"X-Content-Type-Options", "nosniff"},
      {"X-Frame-Options", "DENY"},
      {"Referrer-Policy", "same-origin"},
      {"Cross-Origin-Opener-Policy", "same-origin"},
      {"Vary", "Accept-Encoding"}};
  response.content_type = file->content_type;
  if (request.Header("if-none-match") == etag) {
    response.status = 304;
  } else if (request.Header("accept-encoding").find("gzip") != std::string_view::npos) {
    response.headers.emplace_back("Content-Encoding", "gzip");
    response.body = file->gzip;
  } else {
    // For the rare client that does not take gzip; what is built in does unpack.
    response.body = Gunzip(file->gzip, file->bytes).value();
  }
  responder->Send(std::move(response));
}

// ---- The platform ----

void ApiImpl::AddPlatformRoutes() {
  router_.Add("GET", "/openapi.json", {},
              [](Call&) -> Result { return Reply::Json(std::string(OpenApiDocument())); });
  router_.Add("GET", "/system", {}, [this](Call& call) { return GetSystem(call); });
  router_.Add("POST", "/session", {}, [this](Call& call) { return PostSession(call); });
  router_.Add("DELETE", "/session", {}, [](Call&) -> Result {
    Reply reply = Reply::Json("", 204);
    reply.headers.emplace_back("Set-Cookie",
                               "takt_token=; Path=/; Max-Age=0; HttpOnly; SameSite=Strict");
    return reply;
  });
  router_.Add("GET", "/stream", {"after", "app", "service", "instance", "tail", "cursor", "query"},
              [this](Call& call) { return OpenStream(call); });
  router_.Add("GET", "/events", {"app", "after", "limit"},
              [this](Call& call) { return ListEvents(call); });
  router_.Add("GET", "/endpoints", {}, [this](Call& call) { return ListEndpoints(call); });
  router_.Add("POST", "/templates/check", {"resolved"},
              [this](Call& call) { return CheckTemplate(call); });
  router_.Add("GET", "/volumes", {}, [this](Call& call) { return ListVolumes(call); });
  router_.Add("POST", "/volumes", {}, [this](Call& call) { return CreateVolume(call); });
  router_.Add("GET", "/volumes/{name}", {}, [this](Call& call) -> Result {
    TAKT_ASSIGN_OR_RETURN(const storage::Volume volume, volumes_.Get(call.path(0)));
    std::string body;
    JsonWriter w(&body);
    WriteVolume(w, volume);
    return Reply::Json(std::move(body));
  });
  router_.Add("DELETE", "/volumes/{name}", {}, [this](Call& call) { return DeleteVolume(call); });
  router_.Add("GET", "/images", {}, [this](Call&) -> Result {
    std::string body;
    JsonWriter w(&body);
    w.BeginObject().Key("images").BeginArray();
    for (const runtime::KnownImage& image : runtime_.Images()) {
      w.BeginObject()
          .Field("name", image.name)
          .Field("role", image.role)
          .Field("description", image.description)
          .Field("available", image.reason.empty())
          .Field("reason", image.reason)
          .EndObject();
    }
    w.EndArray().Field("pulls_images", runtime_.capabilities().pulls_images).EndObject();
    return Reply::Json(std::move(body));
  });
  router_.Add("GET", "/images/resolve", {"image"}, [this](Call& call) -> Result {
    if (call.Query("image").empty()) {
      return absl::InvalidArgumentError("query parameter image: expected an image's name");
    }
    TAKT_ASSIGN_OR_RETURN(const runtime::ImageInfo image,
                          runtime_.ResolveImage(std::string(call.Query("image"))));
    std::string body;
    JsonWriter(&body)
        .BeginObject()
        .Field("name", image.name)
        .Field("digest", image.digest)
        .Field("role", image.role)
        .EndObject();
    return Reply::Json(std::move(body));
  });
}

ApiImpl::Result ApiImpl::GetSystem(Call&) {
  const std::vector<line::App> apps = line_.List();
  int running = 0, instances = 0;
  for (const line::App& app : apps) {
    running += app.state == line::AppState::kRunning ? 1 : 0;
    for (const line::ServiceView& service : app.services) {
      for (const runtime::InstanceStatus& each : service.instances) {
        instances += each.state == runtime::InstanceState::kRunning ||
                             each.state == runtime::InstanceState::kStarting ||
                             each.state == runtime::InstanceState::kStopping
                         ? 1
                         : 0;
      }
    }
  }
  std::int64_t pages = 0, resident = 0;
  std::ifstream("/proc/self/statm") >> pages >> resident;
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6;
  };
  const runtime::Capabilities capabilities = runtime_.capabilities();
  std::string body;
  JsonWriter w(&body);
  w.BeginObject()
      .Field("version", options_.version)
      .Field("started_at", FormatRfc3339(started_))
      .Field("uptime_seconds",
             std::chrono::duration_cast<std::chrono::seconds>(clock_.Steady() - started_steady_)
                 .count())
      .Field("pid", getpid())
      .Field("data_dir", options_.data_dir)
      .Field("listen", options_.listen);
  w.Key("runtime")
      .BeginObject()
      .Field("name", capabilities.name)
      .Field("features",
             std::vector<std::string>(capabilities.features.begin(), capabilities.features.end()))
      .Field("pulls_images", capabilities.pulls_images)
      .Field("many_nodes", capabilities.many_nodes)
      .Field("private_mounts", capabilities.private_mounts)
      .Field("warnings", capabilities.warnings)
      .EndObject();
  w.Key("counts")
      .BeginObject()
      .Field("apps", apps.size())
      .Field("running_apps", running)
      .Field("instances", instances)
      .Field("volumes", volumes_.List().size())
      .EndObject();
  w.Field("memory_bytes", resident * sysconf(_SC_PAGESIZE))
      .Field("cpu_seconds", seconds(usage.ru_utime) + seconds(usage.ru_stime))
      .EndObject();
  return Reply::Json(std::move(body));
}

ApiImpl::Result ApiImpl::PostSession(Call& call) {
  TAKT_ASSIGN_OR_RETURN(const nlohmann::json body, ParseJsonObject(call.request().body));
  std::string token;
  ObjectReader reader(body);
  reader.Require("token");
  reader.Read("token", &token);
  TAKT_RETURN_IF_ERROR(reader.Done());
  if (!options_.token.empty() && !EqualSecrets(token, options_.token)) {
    return absl::UnauthenticatedError("the token is not this daemon's");
  }
  Reply reply = Reply::Json("", 204);
  reply.headers.emplace_back("Set-Cookie",
                             StrCat("takt_token=", options_.token,
                                    "; Path=/; Max-Age=2592000; HttpOnly; SameSite=Strict"));
  return reply;
}

ApiImpl::Result ApiImpl::OpenStream(Call& call) {
  TAKT_ASSIGN_OR_RETURN(std::int64_t after, call.QueryInt("after", 0, 0, INT64_MAX));
  const std::string_view header = call.request().Header("last-event-id");
  if (!header.empty()) {
    // A browser sends back what it was given; anything else begins anew.
    if (!absl::SimpleAtoi(ToAbsl(header), &after) || after < 0) after = 0;
  }
  // What can be refused is refused before the answer begins.
  std::shared_ptr<const logs::Query> query;
  if (call.HasQuery("query")) {
    if (!follow_) return absl::UnimplementedError("query parameter query: no logs are kept here");
    TAKT_ASSIGN_OR_RETURN(logs::Query parsed, logs::Query::Parse(call.Query("query")));
    query = std::make_shared<const logs::Query>(std::move(parsed));
  }
  const std::string app(call.Query("app"));
  LogSelection selection{.service = std::string(call.Query("service")),
                         .instance = std::string(call.Query("instance"))};
  LogCursor cursor;
  if (!app.empty()) {
    TAKT_ASSIGN_OR_RETURN(cursor, BeginOfLog(call, app, selection));
  } else {
    for (const char* name : {"service", "instance", "tail", "cursor"}) {
      if (!call.HasQuery(name)) continue;
      return absl::InvalidArgumentError(
          StrCat("query parameter ", name, ": expected with app, of whose log it speaks"));
    }
  }
  TAKT_RETURN_IF_ERROR(changes_.Add(call.responder(), after));
  if (!app.empty()) logs_.Add(call.responder(), app, std::move(selection), std::move(cursor));
  if (query != nullptr) follow_(call.responder(), std::move(query));
  return Reply::Streaming();
}

// Where a stream of an app's log begins: at the cursor, or where the last `tail` lines of all
// instances together begin.
absl::StatusOr<LogCursor> ApiImpl::BeginOfLog(Call& call, const std::string& name,
                                              const LogSelection& selection) {
  const auto most = static_cast<std::int64_t>(kMaxLogLines);
  TAKT_ASSIGN_OR_RETURN(const std::int64_t tail,
                        call.QueryInt("tail", kDefaultStreamLines, 0, most));
  TAKT_ASSIGN_OR_RETURN(LogCursor cursor, ParseLogCursor(call.Query("cursor")));
  TAKT_ASSIGN_OR_RETURN(const line::App app, line_.Get(name));
  TAKT_ASSIGN_OR_RETURN(const auto instances, SelectInstances(app, selection));
  if (call.HasQuery("cursor")) return cursor;
  const LogPage page = TailLogs(runtime_, instances, static_cast<std::size_t>(tail), &cursor);
  std::map<std::string, std::size_t> shown;
  for (const LogEntry& entry : page.entries) ++shown[entry.line.instance];
  for (const auto& [instance, service] : instances) {
    const auto from = runtime_.TailCursor(instance, shown[instance]);
    if (from.ok()) cursor[instance] = *from;
  }
  return cursor;
}

ApiImpl::Result ApiImpl::ListEvents(Call& call) {
  const auto most = static_cast<std::int64_t>(line::kMaxEvents);
  TAKT_ASSIGN_OR_RETURN(const std::int64_t limit, call.QueryInt("limit", kDefaultEvents, 1, most));
  TAKT_ASSIGN_OR_RETURN(const std::int64_t after, call.QueryInt("after", 0, 0, INT64_MAX));
  const std::string app(call.Query("app"));
  const bool newest = !call.HasQuery("after");
  std::vector<line::Event> events =
      line_.Events(app, after, newest ? line::kMaxEvents : static_cast<std::size_t>(limit));
  if (std::ssize(events) > limit) events.erase(events.begin(), events.end() - limit);
  std::string body;
  JsonWriter w(&body);
  w.BeginObject();
  WriteArray(w, "events", events);
  w.Field("last_id", events.empty() ? after : events.back().id).EndObject();
  return Reply::Json(std::move(body));
}

ApiImpl::Result ApiImpl::ListEndpoints(Call&) {
  std::string body;
  JsonWriter w(&body);
  w.BeginObject().Key("endpoints").BeginArray();
  for (const line::App& app : line_.List()) {
    for (const line::ServiceView& service : app.services) {
      for (const runtime::InstanceStatus& instance : service.instances) {
        if (instance.state != runtime::InstanceState::kRunning) continue;
        for (const runtime::Endpoint& endpoint : instance.endpoints) {
          w.BeginObject()
              .Field("app", app.name)
              .Field("service", service.spec.name)
              .Field("role", service.role)
              .Field("instance", instance.id)
              .Field("replica", instance.replica);
          WriteEndpointFields(w, endpoint);
          w.EndObject();
        }
      }
    }
  }
  w.EndArray().EndObject();
  return Reply::Json(std::move(body));
}

ApiImpl::Result ApiImpl::CheckTemplate(Call& call) {
  TAKT_ASSIGN_OR_RETURN(const bool resolved, call.QueryBool("resolved", false));
  TAKT_ASSIGN_OR_RETURN(const nlohmann::json body, ParseJsonObject(call.request().body));
  std::string text;
  templates::LoadOptions options;
  ObjectReader reader(body);
  reader.Require("template");
  reader.Read("template", &text);
  reader.Read("template_name", &options.file_name);
  reader.Read("values", &options.values);
  TAKT_RETURN_IF_ERROR(reader.Done());

  const templates::LoadResult result = templates::LoadTemplate(text, options);
  const std::set<std::string> features = runtime_.capabilities().features;
  std::vector<templates::FeatureUse> unsupported = result.spec.features;
  std::erase_if(unsupported, [&](const auto& use) { return features.contains(use.feature); });
  std::string out;
  JsonWriter w(&out);
  w.BeginObject().Field("ok", result.ok() && unsupported.empty()).Field("name", result.spec.name);
  WriteArray(w, "parameters", result.parameters);
  WriteArray(w, "issues", result.issues);
  WriteArray(w, "services", result.spec.services);
  w.Key("volumes").BeginArray();
  for (const auto& [name, volume] : result.spec.volumes) {
    w.BeginObject()
        .Field("name", name)
        .Field("actual_name", volume.actual_name)
        .Field("external", volume.external)
        .Field("driver", volume.driver)
        .Field("exists", volumes_.Get(volume.actual_name).ok())
        .EndObject();
  }
  w.EndArray().Key("unsupported").BeginArray();
  for (const templates::FeatureUse& use : unsupported) {
    w.BeginObject()
        .Field("feature", use.feature)
        .Field("path", use.path)
        .Field("line", use.line)
        .Field("column", use.column)
        .EndObject();
  }
  w.EndArray().Key("resolved");
  if (resolved && result.ok() && !result.canonical_json.empty()) {
    w.Raw(result.canonical_json);
  } else {
    w.Null();
  }
  w.EndObject();
  return Reply::Json(std::move(out));
}

void ApiImpl::WriteVolume(JsonWriter& w, const storage::Volume& volume) {
  const absl::Status ready = volumes_.Ready(volume.name);
  w.BeginObject()
      .Field("name", volume.name)
      .Field("driver", volume.driver)
      .Field("options", volume.options)
      .Field("created_at", volume.created_at)
      .Field("host_path", volume.host_path)
      .Field("ready", ready.ok())
      .Field("reason", ToStd(ready.message()))
      .Field("users", line_.UsersOfVolume(volume.name))
      .EndObject();
}

ApiImpl::Result ApiImpl::ListVolumes(Call&) {
  std::string body;
  JsonWriter w(&body);
  w.BeginObject().Key("volumes").BeginArray();
  for (const storage::Volume& volume : volumes_.List()) WriteVolume(w, volume);
  w.EndArray().EndObject();
  return Reply::Json(std::move(body));
}

ApiImpl::Result ApiImpl::CreateVolume(Call& call) {
  TAKT_ASSIGN_OR_RETURN(const nlohmann::json body, ParseJsonObject(call.request().body));
  std::string name, driver = "local";
  std::map<std::string, std::string> options;
  ObjectReader reader(body);
  reader.Require("name");
  reader.Read("name", &name);
  reader.Read("driver", &driver);
  reader.Read("options", &options);
  TAKT_RETURN_IF_ERROR(reader.Done());
  TAKT_ASSIGN_OR_RETURN(const storage::Volume volume, volumes_.Create(name, driver, options));
  VolumesChanged();
  std::string out;
  JsonWriter w(&out);
  WriteVolume(w, volume);
  return Reply::Json(std::move(out), 201);
}

ApiImpl::Result ApiImpl::DeleteVolume(Call& call) {
  const std::string& name = call.path(0);
  TAKT_RETURN_IF_ERROR(volumes_.Get(name).status());
  const std::vector<std::string> users = line_.UsersOfVolume(name);
  if (!users.empty()) {
    std::string names;
    for (const std::string& each : users) names += (names.empty() ? "" : ", ") + each;
    return WithDetails(
        absl::FailedPreconditionError(StrCat("volume ", name, " is in use by ", names)),
        [&](JsonWriter& w) { w.Field("users", users); });
  }
  TAKT_RETURN_IF_ERROR(volumes_.Remove(name));
  VolumesChanged();
  return Reply::Json("", 204);
}

// ---- Apps ----

void ApiImpl::AddAppRoutes() {
  router_.Add("GET", "/apps", {}, [this](Call&) -> Result {
    std::string body;
    JsonWriter w(&body);
    w.BeginObject().Key("apps").BeginArray();
    for (const line::App& app : line_.List()) Write(w, app, AppForm::kList);
    w.EndArray().EndObject();
    return Reply::Json(std::move(body));
  });
  router_.Add("POST", "/apps", {"dry_run"}, [this](Call& call) { return CreateApp(call); });
  router_.Add("GET", "/apps/{name}", {},
              [this](Call& call) { return AppReply(line_.Get(call.path(0))); });
  router_.Add("DELETE", "/apps/{name}", {}, [this](Call& call) -> Result {
    TAKT_ASSIGN_OR_RETURN(const line::Removal removal, line_.PreviewRemove(call.path(0)));
    TAKT_RETURN_IF_ERROR(line_.Remove(call.path(0)));
    return Reply::Json(ToJson(removal));
  });
  router_.Add("GET", "/apps/{name}/removal", {}, [this](Call& call) -> Result {
    TAKT_ASSIGN_OR_RETURN(const line::Removal removal, line_.PreviewRemove(call.path(0)));
    return Reply::Json(ToJson(removal));
  });
  router_.Add("PUT", "/apps/{name}/configuration", {"dry_run"},
              [this](Call& call) { return ConfigureApp(call); });
  router_.Add("GET", "/apps/{name}/revisions", {"limit"}, [this](Call& call) -> Result {
    const auto most = static_cast<std::int64_t>(line::kMaxRevisionsPerApp);
    TAKT_ASSIGN_OR_RETURN(const std::int64_t limit,
                          call.QueryInt("limit", kDefaultRevisions, 1, most));
    TAKT_ASSIGN_OR_RETURN(std::vector<line::Revision> revisions, line_.Revisions(call.path(0)));
    if (std::ssize(revisions) > limit) revisions.resize(static_cast<std::size_t>(limit));
    std::string body;
    JsonWriter w(&body);
    w.BeginObject();
    WriteArray(w, "revisions", revisions);
    w.EndObject();
    return Reply::Json(std::move(body));
  });
  router_.Add("GET", "/apps/{name}/revisions/{number}", {}, [this](Call& call) -> Result {
    int number = 0;
    if (!absl::SimpleAtoi(call.path(1), &number)) {
      return absl::InvalidArgumentError(
          StrCat("revision: expected a number, got \"", call.path(1), "\""));
    }
    TAKT_ASSIGN_OR_RETURN(const line::Revision revision, FindRevision(call.path(0), number));
    return Reply::Json(ToJson(revision));
  });
  router_.Add("POST", "/apps/{name}/rollback", {"dry_run"},
              [this](Call& call) { return RollbackApp(call); });
  router_.Add("POST", "/apps/{name}/stop", {},
              [this](Call& call) { return AppReply(line_.Stop(call.path(0))); });
  router_.Add("POST", "/apps/{name}/start", {},
              [this](Call& call) { return AppReply(line_.Start(call.path(0))); });
}

// Adds to a refusal what a program can use of the preview: issues, missing volumes.
absl::Status ApiImpl::Explain(absl::Status status,
                              const absl::StatusOr<line::Preview>& preview) const {
  if (!preview.ok() || (preview->issues.empty() && preview->missing_volumes.empty())) {
    return status;
  }
  return WithDetails(std::move(status), [&](JsonWriter& w) {
    WriteArray(w, "issues", preview->issues);
    w.Field("missing_volumes", preview->missing_volumes);
  });
}

ApiImpl::Result ApiImpl::CreateApp(Call& call) {
  TAKT_ASSIGN_OR_RETURN(const bool dry_run, call.QueryBool("dry_run", false));
  TAKT_ASSIGN_OR_RETURN(const nlohmann::json body, ParseJsonObject(call.request().body));
  std::string name;
  ConfigurationBody asked;
  ObjectReader reader(body);
  reader.Require("name");
  reader.Require("template");
  reader.Read("name", &name);
  asked.Read(reader);
  TAKT_RETURN_IF_ERROR(reader.Done());
  if (dry_run) {
    TAKT_ASSIGN_OR_RETURN(const line::Preview preview,
                          line_.PreviewCreate(name, asked.configuration));
    return Reply::Json(ToJson(preview));
  }
  auto app = line_.Create(name, asked.configuration, asked.options);
  if (!app.ok()) return Explain(app.status(), line_.PreviewCreate(name, asked.configuration));
  if (asked.options.create_volumes) VolumesChanged();
  return AppReply(std::move(app), 201);
}

ApiImpl::Result ApiImpl::ConfigureApp(Call& call) {
  TAKT_ASSIGN_OR_RETURN(const bool dry_run, call.QueryBool("dry_run", false));
  TAKT_ASSIGN_OR_RETURN(const nlohmann::json body, ParseJsonObject(call.request().body));
  const std::string& name = call.path(0);
  TAKT_ASSIGN_OR_RETURN(const line::App current, line_.Get(name));
  ConfigurationBody asked;
  asked.configuration = current.revision.configuration;
  ObjectReader reader(body);
  asked.Read(reader);
  TAKT_RETURN_IF_ERROR(reader.Done());
  if (dry_run) {
    TAKT_ASSIGN_OR_RETURN(const line::Preview preview,
                          line_.PreviewConfigure(name, asked.configuration));
    return Reply::Json(ToJson(preview));
  }
  auto app = line_.Configure(name, asked.configuration, asked.options);
  if (!app.ok()) return Explain(app.status(), line_.PreviewConfigure(name, asked.configuration));
  if (asked.options.create_volumes) VolumesChanged();
  return AppReply(std::move(app));
}

absl::StatusOr<line::Revision> ApiImpl::FindRevision(const std::string& app, int number) {
  TAKT_ASSIGN_OR_RETURN(const std::vector<line::Revision> revisions, line_.Revisions(app));
  for (const line::Revision& each : revisions) {
    if (each.number == number) return each;
  }
  return absl::NotFoundError(StrCat("app ", app, " has no revision ", number));
}

ApiImpl::Result ApiImpl::RollbackApp(Call& call) {
  TAKT_ASSIGN_OR_RETURN(const bool dry_run, call.QueryBool("dry_run", false));
  TAKT_ASSIGN_OR_RETURN(const nlohmann::json body, ParseJsonObject(call.request().body));
  int number = 0;
  line::ApplyOptions options;
  ObjectReader reader(body);
  reader.Require("revision");
  reader.Read("revision", &number);
  reader.Read("why", &options.why);
  TAKT_RETURN_IF_ERROR(reader.Done());
  if (dry_run) {
    TAKT_ASSIGN_OR_RETURN(const line::Revision revision, FindRevision(call.path(0), number));
    TAKT_ASSIGN_OR_RETURN(const line::Preview preview,
                          line_.PreviewConfigure(call.path(0), revision.configuration));
    return Reply::Json(ToJson(preview));
  }
  return AppReply(line_.Rollback(call.path(0), number, options));
}

// ---- Logs ----

void ApiImpl::AddLogRoutes() {
  router_.Add("GET", "/apps/{name}/logs", {"service", "instance", "tail", "cursor"},
              [this](Call& call) { return GetLogs(call); });
}

ApiImpl::Result ApiImpl::GetLogs(Call& call) {
  const auto most = static_cast<std::int64_t>(kMaxLogLines);
  TAKT_ASSIGN_OR_RETURN(const std::int64_t tail, call.QueryInt("tail", kDefaultLogLines, 0, most));
  TAKT_ASSIGN_OR_RETURN(LogCursor cursor, ParseLogCursor(call.Query("cursor")));
  TAKT_ASSIGN_OR_RETURN(const line::App app, line_.Get(call.path(0)));
  TAKT_ASSIGN_OR_RETURN(const auto instances,
                        SelectInstances(app, {.service = std::string(call.Query("service")),
                                              .instance = std::string(call.Query("instance"))}));
  const auto lines = static_cast<std::size_t>(tail);
  const LogPage page = call.HasQuery("cursor")
                           ? ReadLogs(runtime_, instances, lines, kMaxLogAnswerBytes, &cursor)
                           : TailLogs(runtime_, instances, lines, &cursor);
  std::string body;
  WriteLogPage(page, cursor, &body);
  return Reply::Json(std::move(body));
}

}  // namespace

std::unique_ptr<Api> Api::Create(ApiOptions options, line::Line& line, runtime::Runtime& runtime,
                                 storage::VolumeStore& volumes, const Clock& clock) {
  return std::make_unique<ApiImpl>(std::move(options), line, runtime, volumes, clock);
}

}  // namespace takt::api
