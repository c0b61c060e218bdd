#include "api/runs.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "absl/strings/numbers.h"
#include "api/convert.h"
#include "api/json_reader.h"
#include "api/json_writer.h"
#include "learning/diagnose.h"

namespace takt::api {
namespace {

using Result = absl::StatusOr<Reply>;
using operate::Model;
using operate::Run;
using operate::Version;

constexpr std::int64_t kDefaultListedRuns = 50;

// Which services load from which directory, and what lies there.
struct Shelf {
  struct Loader {
    std::string app, service;
    bool live = false;
    std::vector<std::int64_t> versions;        // that it is told to serve; empty = the newest
    std::optional<operate::Versions> serving;  // by its own word; nullopt = it does not say
  };
  std::map<std::string, std::vector<Loader>> loaders;      // by directory
  std::map<std::string, Model> models;                     // that a service of now makes or loads
  std::map<std::string, std::vector<std::string>> makers;  // apps that are there, by directory
};

Shelf Look(line::Line& line, storage::VolumeStore& volumes, const Serving& serving) {
  Shelf shelf;
  for (const line::App& app : line.List()) {
    for (const line::ServiceView& service : app.services) {
      if (service.role == "serving") {
        const bool live = std::any_of(service.instances.begin(), service.instances.end(),
                                      [](const auto& instance) {
                                        return instance.state == runtime::InstanceState::kRunning;
                                      });
        for (const operate::Loaded& loaded : operate::LoadedBy(service.spec, volumes)) {
          shelf.loaders[loaded.model.directory].push_back(
              {app.name, service.spec.name, live, loaded.versions,
               live ? serving(app.name, service.spec.name, loaded.served_as) : std::nullopt});
          shelf.models.emplace(loaded.model.directory, loaded.model);
        }
      } else if (service.role == "training") {
        const auto model = operate::MadeBy(service.spec, volumes);
        if (!model) continue;
        shelf.makers[model->directory].push_back(app.name);
        shelf.models.insert_or_assign(model->directory, *model);
      }
    }
  }
  return shelf;
}

// The version that a model server takes: the newest that is whole. Null where there is none.
const Version* NewestOf(const std::vector<Version>& versions) {
  const auto newest = std::find_if(versions.rbegin(), versions.rend(),
                                   [](const Version& version) { return version.complete; });
  return newest == versions.rend() ? nullptr : &*newest;
}

void WriteLoaders(JsonWriter& w, const Shelf& shelf, const std::string& directory) {
  w.Key("loaded_by").BeginArray();
  const auto it = shelf.loaders.find(directory);
  if (it != shelf.loaders.end()) {
    for (const Shelf::Loader& loader : it->second) {
      w.BeginObject()
          .Field("app", loader.app)
          .Field("service", loader.service)
          .Field("live", loader.live)
          .Field("versions", loader.versions)
          .Key("serving");
      if (loader.serving) {
        w.Value(std::vector<std::int64_t>(loader.serving->begin(), loader.serving->end()));
      } else {
        w.Null();
      }
      w.EndObject();
    }
  }
  w.EndArray();
}

// The apps whose model servers say that they serve this version. What they serve is what they have
// read: another version that lies there now under the same number is not it, which nobody can tell.
std::vector<std::string> ServedBy(const Shelf& shelf, const std::string& directory,
                                  std::int64_t version) {
  std::vector<std::string> apps;
  const auto it = shelf.loaders.find(directory);
  if (it == shelf.loaders.end()) return apps;
  for (const Shelf::Loader& loader : it->second) {
    if (loader.serving && loader.serving->contains(version)) apps.push_back(loader.app);
  }
  return apps;
}

void WriteModelOfRun(JsonWriter& w, const Run& run, const Shelf& shelf) {
  w.Key("model");
  if (!run.model) {
    w.Null();
    return;
  }
  const std::vector<Version> there = operate::ListVersions(run.model->directory);
  const Version* newest = NewestOf(there);
  w.BeginObject()
      .Field("name", run.model->name)
      .Field("volume", run.model->volume)
      .Field("path", run.model->path)
      .Key("newest_version");
  if (newest != nullptr) {
    w.Value(newest->number);
  } else {
    w.Null();
  }
  w.Key("versions").BeginArray();
  for (const Version& version : run.versions) {
    const bool is_there = std::any_of(there.begin(), there.end(), [&](const Version& each) {
      return each.number == version.number && each.modified_ns == version.modified_ns;
    });
    w.BeginObject();
    WriteVersionFields(w, version);
    w.Field("exists", is_there)
        .Field("serves", is_there && !ServedBy(shelf, run.model->directory, version.number).empty())
        .EndObject();
  }
  w.EndArray();
  WriteLoaders(w, shelf, run.model->directory);
  w.EndObject();
}

absl::Status WriteRun(JsonWriter& w, const Run& run, const Shelf& shelf,
                      learning::LearningStore& learning) {
  TAKT_ASSIGN_OR_RETURN(const auto series, learning.List(run.app, run.window()));
  TAKT_ASSIGN_OR_RETURN(const auto parameters, learning.Hyperparameters(run.app, run.window()));
  w.BeginObject()
      .Field("app", run.app)
      .Field("number", run.number)
      .Field("service", run.service)
      .Field("revision", run.revision)
      .Field("values", run.values)
      .Field("why", run.why)
      .Field("author", run.author)
      .Field("state", operate::RunStateName(run.state))
      .Field("reason", run.reason);
  WriteTime(w, "started", run.started);
  WriteTime(w, "ended", run.ended);
  w.Field("exit_code", run.exit_code)
      .Field("signal", run.signal)
      .Field("restarts", run.restarts)
      .Field("cpu_seconds", run.cpu_seconds)
      .Field("gpus", run.gpus)
      .Field("node", run.node)
      .Field("note", run.note)
      .Field("tags", run.tags);
  WriteModelOfRun(w, run, shelf);
  w.Key("findings").BeginArray();
  for (const learning::Finding& finding : run.findings) {
    w.BeginObject()
        .Field("kind", learning::FindingName(finding.kind))
        .Field("alert", finding.alert)
        .Field("message", finding.message)
        .EndObject();
  }
  w.EndArray().Key("hyperparameters").BeginObject();
  for (const auto& [name, value] : parameters) w.Field(name, value);
  w.EndObject().Key("metrics").BeginArray();
  std::size_t written = 0;
  for (const learning::SeriesInfo& each : series) {
    if (each.kind != learning::Kind::kScalar || each.service != run.service) continue;
    if (++written > kMaxRunMetrics) break;
    const learning::Better better = learning::BetterOf(each.tag);
    w.BeginObject()
        .Field("writer", each.writer)
        .Field("tag", each.tag)
        .Field("last_step", each.last_step)
        .Key("last");
    WriteNumber(w, each.last_value);
    w.Key("best");
    switch (better) {
      case learning::Better::kUnknown:
        w.Null().Key("best_is").Null();
        break;
      case learning::Better::kLower:
        w.Value(each.min).Field("best_is", "lowest");
        break;
      case learning::Better::kHigher:
        w.Value(each.max).Field("best_is", "highest");
        break;
    }
    w.EndObject();
  }
  w.EndArray().EndObject();
  return absl::OkStatus();
}

// ---- The routes ----

struct Rooms {
  operate::Runs& runs;
  learning::LearningStore& learning;
  Serving serving;
  line::Line& line;
  storage::VolumeStore& volumes;
};

Shelf LookAt(const Rooms& rooms) { return Look(rooms.line, rooms.volumes, rooms.serving); }

Result WriteRuns(const Rooms& rooms, const std::string& app, std::size_t limit) {
  TAKT_ASSIGN_OR_RETURN(const std::vector<Run> runs, rooms.runs.List(app, limit));
  const Shelf shelf = LookAt(rooms);
  std::string body;
  JsonWriter w(&body);
  w.BeginObject().Key("runs").BeginArray();
  for (const Run& run : runs) TAKT_RETURN_IF_ERROR(WriteRun(w, run, shelf, rooms.learning));
  w.EndArray().EndObject();
  return Reply::Json(std::move(body));
}

Result WriteOne(const Rooms& rooms, const Run& run) {
  std::string body;
  JsonWriter w(&body);
  TAKT_RETURN_IF_ERROR(WriteRun(w, run, LookAt(rooms), rooms.learning));
  return Reply::Json(std::move(body));
}

absl::StatusOr<int> RunNumber(const Call& call) {
  int number = 0;
  if (!absl::SimpleAtoi(call.path(1), &number) || number < 1) {
    return absl::InvalidArgumentError(
        StrCat("expected the number of a run, from 1, got \"", call.path(1), "\""));
  }
  return number;
}

Result PutRun(const Rooms& rooms, Call& call) {
  TAKT_ASSIGN_OR_RETURN(const int number, RunNumber(call));
  TAKT_ASSIGN_OR_RETURN(const nlohmann::json json, ParseJsonObject(call.request().body));
  ObjectReader reader(json);
  std::optional<std::string> note;
  std::optional<std::vector<std::string>> tags;
  if (reader.Has("note")) reader.Read("note", &note.emplace());
  if (reader.Has("tags")) reader.Read("tags", &tags.emplace());
  TAKT_RETURN_IF_ERROR(reader.Done());
  TAKT_ASSIGN_OR_RETURN(const Run run, rooms.runs.Annotate(call.path(0), number, note, tags));
  return WriteOne(rooms, run);
}

Result WriteModels(const Rooms& rooms, const std::string& app) {
  Shelf shelf = LookAt(rooms);
  TAKT_ASSIGN_OR_RETURN(const std::vector<Model> made, rooms.runs.Models());
  for (const Model& model : made) shelf.models.emplace(model.directory, model);
  std::string body;
  JsonWriter w(&body);
  w.BeginObject().Key("models").BeginArray();
  for (const auto& [directory, model] : shelf.models) {
    TAKT_ASSIGN_OR_RETURN(const std::vector<Run> runs, rooms.runs.MakersOf(directory));
    const auto loaders = shelf.loaders.find(directory);
    const auto makers = shelf.makers.find(directory);
    const bool concerns =
        app.empty() ||
        std::any_of(runs.begin(), runs.end(), [&](const Run& run) { return run.app == app; }) ||
        (loaders != shelf.loaders.end() &&
         std::any_of(loaders->second.begin(), loaders->second.end(),
                     [&](const Shelf::Loader& loader) { return loader.app == app; })) ||
        (makers != shelf.makers.end() &&
         std::find(makers->second.begin(), makers->second.end(), app) != makers->second.end());
    if (!concerns) continue;
    const std::vector<Version> versions = operate::ListVersions(directory);
    w.BeginObject()
        .Field("name", model.name)
        .Field("volume", model.volume)
        .Field("path", model.path)
        .Key("made_by")
        .Value(makers == shelf.makers.end() ? std::vector<std::string>() : makers->second);
    WriteLoaders(w, shelf, directory);
    w.Key("versions").BeginArray();
    for (auto version = versions.rbegin(); version != versions.rend(); ++version) {
      w.BeginObject();
      WriteVersionFields(w, *version);
      w.Field("served_by", ServedBy(shelf, directory, version->number)).Key("run");
      const auto maker = std::find_if(runs.begin(), runs.end(), [&](const Run& run) {
        return std::any_of(run.versions.begin(), run.versions.end(), [&](const Version& each) {
          return each.number == version->number && each.modified_ns == version->modified_ns;
        });
      });
      if (maker == runs.end()) {
        w.Null();
      } else {
        w.BeginObject().Field("app", maker->app).Field("number", maker->number).EndObject();
      }
      w.EndObject();
    }
    w.EndArray().EndObject();
  }
  w.EndArray().EndObject();
  return Reply::Json(std::move(body));
}

}  // namespace

void AddRunRoutes(Router& router, operate::Runs& runs, learning::LearningStore& learning,
                  Serving serving, line::Line& line, storage::VolumeStore& volumes,
                  Workers& workers) {
  const Rooms rooms{runs, learning, std::move(serving), line, volumes};
  const auto limit_of = [](const Call& call) {
    return call.QueryInt("limit", kDefaultListedRuns, 1, static_cast<std::int64_t>(kMaxListedRuns));
  };
  router.Add("GET", "/runs", {"app", "limit"}, [=, &workers](Call& call) -> Result {
    TAKT_ASSIGN_OR_RETURN(const std::int64_t limit, limit_of(call));
    return workers.Answer(call, [=, app = std::string(call.Query("app"))] {
      return WriteRuns(rooms, app, static_cast<std::size_t>(limit));
    });
  });
  router.Add("GET", "/apps/{name}/runs", {"limit"}, [=, &workers](Call& call) -> Result {
    TAKT_ASSIGN_OR_RETURN(const std::int64_t limit, limit_of(call));
    TAKT_RETURN_IF_ERROR(rooms.line.Get(call.path(0)).status());
    return workers.Answer(call, [=, app = call.path(0)] {
      return WriteRuns(rooms, app, static_cast<std::size_t>(limit));
    });
  });
  router.Add("GET", "/runs/{app}/{number}", {}, [=, &workers](Call& call) -> Result {
    TAKT_ASSIGN_OR_RETURN(const int number, RunNumber(call));
    return workers.Answer(call, [=, app = call.path(0)]() -> Result {
      TAKT_ASSIGN_OR_RETURN(const Run run, rooms.runs.Get(app, number));
      return WriteOne(rooms, run);
    });
  });
  router.Add("PUT", "/runs/{app}/{number}", {},
             [=](Call& call) -> Result { return PutRun(rooms, call); });
  router.Add("GET", "/models", {"app"}, [=, &workers](Call& call) -> Result {
    return workers.Answer(
        call, [=, app = std::string(call.Query("app"))] { return WriteModels(rooms, app); });
  });
}

}  // namespace takt::api
