#include "operate/runs.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "base/str.h"
#include "template/template.h"

namespace takt::operate {
namespace {

// A replica is known by its newest instance: restarts are counted, and the CPU of those before is
// in run.past_cpu, so a run that restarts for ever takes no more space.
constexpr const char* kSchema = R"(
  CREATE TABLE counter (app TEXT PRIMARY KEY, last INTEGER NOT NULL);
  CREATE TABLE run (
    id INTEGER PRIMARY KEY AUTOINCREMENT, app TEXT NOT NULL, number INTEGER NOT NULL,
    service TEXT NOT NULL, revision INTEGER NOT NULL, why TEXT NOT NULL, author TEXT NOT NULL,
    started REAL NOT NULL, ended REAL, state INTEGER NOT NULL, reason TEXT NOT NULL,
    exit_code INTEGER, signal INTEGER, past_cpu REAL NOT NULL, stopping INTEGER NOT NULL,
    node TEXT NOT NULL, model TEXT, volume TEXT, path TEXT, directory TEXT, note TEXT NOT NULL,
    UNIQUE (app, number));
  CREATE INDEX run_by_directory ON run(directory);
  CREATE INDEX run_by_state ON run(state, app);
  CREATE TABLE replica (
    run INTEGER NOT NULL REFERENCES run(id) ON DELETE CASCADE, replica INTEGER NOT NULL,
    instance TEXT NOT NULL, created REAL NOT NULL, restarts INTEGER NOT NULL, cpu REAL NOT NULL,
    PRIMARY KEY (run, replica));
  CREATE TABLE value (
    run INTEGER NOT NULL REFERENCES run(id) ON DELETE CASCADE, name TEXT NOT NULL,
    value TEXT NOT NULL, PRIMARY KEY (run, name));
  CREATE TABLE version (
    run INTEGER NOT NULL REFERENCES run(id) ON DELETE CASCADE, number INTEGER NOT NULL,
    modified INTEGER NOT NULL, complete INTEGER NOT NULL, before INTEGER NOT NULL,
    PRIMARY KEY (run, before, number));
  CREATE TABLE finding (
    run INTEGER NOT NULL REFERENCES run(id) ON DELETE CASCADE, kind INTEGER NOT NULL,
    alert INTEGER NOT NULL, message TEXT NOT NULL, PRIMARY KEY (run, kind));
  CREATE TABLE tag (
    run INTEGER NOT NULL REFERENCES run(id) ON DELETE CASCADE, tag TEXT NOT NULL,
    PRIMARY KEY (run, tag));
  PRAGMA user_version=1;)";
constexpr int kVersion = 2;
constexpr const char* kToVersion2 = R"(
  ALTER TABLE run ADD COLUMN gpus INTEGER NOT NULL DEFAULT 0;
  PRAGMA user_version=2;)";

// What is written within this of a run's end is the run's: file systems round times.
constexpr double kEndSlackSeconds = 2;
// The kernel stamps files by its tick, which may be this much behind.
constexpr double kTickSeconds = 0.01;

double Seconds(std::chrono::system_clock::time_point time) {
  return std::chrono::duration<double>(time.time_since_epoch()).count();
}

double CreatedOf(const runtime::InstanceStatus& instance) { return Seconds(instance.created); }

SqlValue OrNull(const std::optional<int>& value) {
  if (!value) return nullptr;
  return static_cast<std::int64_t>(*value);
}

std::optional<int> IntOrNull(const SqlRows& rows, int column) {
  if (rows.IsNull(column)) return std::nullopt;
  return static_cast<int>(rows.Int(column));
}

// The values of a revision, and the template's defaults for those that were not given.
std::map<std::string, std::string> GivenTo(const line::Configuration& configuration) {
  std::map<std::string, std::string> given = configuration.values;
  templates::LoadOptions options;
  options.values = configuration.values;
  for (const templates::Parameter& parameter :
       templates::LoadTemplate(configuration.template_text, options).parameters) {
    // `:-` takes effect where the value is empty too; that it was given so is not worth a row.
    if (!parameter.default_value) continue;
    std::string& value = given[parameter.name];
    if (value.empty()) value = *parameter.default_value;
  }
  return given;
}

absl::Status NoSuchRun(const std::string& app, int number) {
  return absl::NotFoundError(StrCat("app \"", app, "\" has no run ", number));
}

}  // namespace

const char* RunStateName(RunState state) {
  switch (state) {
    case RunState::kRunning:
      return "running";
    case RunState::kCompleted:
      return "completed";
    case RunState::kFailed:
      return "failed";
    case RunState::kStopped:
      return "stopped";
  }
  return "unknown";
}

learning::Window Run::window() const {
  learning::Window window;
  window.from = started;
  if (ended) window.to = *ended;
  return window;
}

// The newest run of a service, as far as observing needs it.
struct Runs::Known {
  struct Replica {
    std::string instance;
    double created = 0, cpu = 0;
    int restarts = 0;
  };
  std::int64_t id = 0;  // 0 = there is none
  RunState state = RunState::kRunning;
  int revision = 0;
  bool stopping = false;
  std::map<int, Replica> replicas;
};

absl::StatusOr<std::unique_ptr<Runs>> Runs::Open(const std::string& path, std::size_t max_runs) {
  std::unique_ptr<Runs> self(new Runs(max_runs));
  TAKT_ASSIGN_OR_RETURN(self->db_, Sqlite::Open(path, {.durable = false}));
  int version = 0;
  {
    TAKT_ASSIGN_OR_RETURN(SqlRows rows, self->db_->Query("PRAGMA user_version"));
    TAKT_ASSIGN_OR_RETURN(const bool any, rows.Next());
    if (any) version = static_cast<int>(rows.Int(0));
  }
  if (version > kVersion) {
    return absl::FailedPreconditionError(StrCat(path, ": written by a newer Takt (version ",
                                                version, ", this one knows ", kVersion, ")"));
  }
  if (version == 0) {
    TAKT_ASSIGN_OR_RETURN(SqlTransaction transaction, SqlTransaction::Begin(*self->db_));
    TAKT_RETURN_IF_ERROR(self->db_->Script(kSchema));
    TAKT_RETURN_IF_ERROR(self->db_->Script(kToVersion2));
    TAKT_RETURN_IF_ERROR(transaction.Commit());
  } else if (version == 1) {
    TAKT_ASSIGN_OR_RETURN(SqlTransaction transaction, SqlTransaction::Begin(*self->db_));
    TAKT_RETURN_IF_ERROR(self->db_->Script(kToVersion2));
    TAKT_RETURN_IF_ERROR(transaction.Commit());
  }
  return self;
}

absl::StatusOr<Runs::Known> Runs::Newest(const std::string& app, const std::string& service) {
  Known known;
  {
    TAKT_ASSIGN_OR_RETURN(SqlRows rows,
                          db_->Query("SELECT id, state, revision, stopping FROM run WHERE app=? "
                                     "AND service=? ORDER BY number DESC LIMIT 1",
                                     {std::string_view(app), std::string_view(service)}));
    TAKT_ASSIGN_OR_RETURN(const bool any, rows.Next());
    if (!any) return known;
    known.id = rows.Int(0);
    known.state = static_cast<RunState>(rows.Int(1));
    known.revision = static_cast<int>(rows.Int(2));
    known.stopping = rows.Int(3) != 0;
  }
  TAKT_ASSIGN_OR_RETURN(
      SqlRows rows,
      db_->Query("SELECT replica, instance, created, cpu, restarts FROM replica WHERE run=?",
                 {known.id}));
  while (true) {
    TAKT_ASSIGN_OR_RETURN(const bool more, rows.Next());
    if (!more) return known;
    known.replicas[static_cast<int>(rows.Int(0))] = {std::string(rows.Text(1)), rows.Real(2),
                                                     rows.Real(3), static_cast<int>(rows.Int(4))};
  }
}

absl::StatusOr<Runs::Known> Runs::Begin(const line::App& app, const line::ServiceView& service,
                                        const runtime::InstanceStatus& first, int previous_revision,
                                        storage::VolumeStore& volumes) {
  TAKT_RETURN_IF_ERROR(
      db_->Run("INSERT INTO counter VALUES(?, 1) ON CONFLICT(app) DO UPDATE SET last=last+1",
               {std::string_view(app.name)}));
  // Values and reason are those of the app's current revision: an instance of an older one that is
  // first seen now was replaced before anybody looked.
  const line::Revision& revision = app.revision;
  const bool current = first.revision == revision.number;
  const std::string why = !current                              ? ""
                          : first.revision == previous_revision ? "run again"
                                                                : revision.why;
  const double started =
      Seconds(first.started.time_since_epoch().count() != 0 ? first.started : first.created);
  const std::optional<Model> model = MadeBy(service.spec, volumes);
  const auto text = [&](const std::string& value) -> SqlValue {
    if (!model) return nullptr;
    return std::string_view(value);
  };
  static const Model kNone;
  const Model& m = model ? *model : kNone;
  TAKT_RETURN_IF_ERROR(db_->Run(
      "INSERT INTO run(app, number, service, revision, why, author, started, state, reason, "
      "past_cpu, stopping, node, model, volume, path, directory, note, gpus) VALUES(?, (SELECT "
      "last "
      "FROM counter WHERE app=?), ?, ?, ?, ?, ?, ?, '', 0, 0, ?, ?, ?, ?, ?, '', ?)",
      {std::string_view(app.name), std::string_view(app.name), std::string_view(service.spec.name),
       static_cast<std::int64_t>(first.revision), std::string_view(why),
       std::string_view(current ? revision.author : kNone.name), started,
       static_cast<std::int64_t>(RunState::kRunning), std::string_view(first.node), text(m.name),
       text(m.volume), text(m.path), text(m.directory),
       static_cast<std::int64_t>(service.spec.gpus)}));
  Known known;
  known.id = db_->last_insert_id();
  known.revision = first.revision;
  if (current) {
    for (const auto& [name, value] : GivenTo(revision.configuration)) {
      TAKT_RETURN_IF_ERROR(db_->Run("INSERT INTO value VALUES(?, ?, ?)",
                                    {known.id, std::string_view(name), std::string_view(value)}));
    }
  }
  // What lies there already is not this run's; what was written since it started may be, though
  // the daemon sees it only now.
  for (const Version& version : ListVersions(m.directory)) {
    if (static_cast<double>(version.modified_ns) / 1e9 >= started - kTickSeconds) continue;
    TAKT_RETURN_IF_ERROR(db_->Run("INSERT INTO version VALUES(?, ?, ?, ?, 1)",
                                  {known.id, version.number, version.modified_ns,
                                   static_cast<std::int64_t>(version.complete)}));
  }
  TAKT_RETURN_IF_ERROR(Prune(app.name));
  return known;
}

absl::Status Runs::Prune(const std::string& app) {
  const auto limit = [&](std::string_view count, std::string_view remove, std::size_t most,
                         std::initializer_list<SqlValue> values) -> absl::Status {
    std::int64_t there = 0;
    {
      TAKT_ASSIGN_OR_RETURN(SqlRows rows, db_->Query(count, values));
      TAKT_ASSIGN_OR_RETURN(const bool any, rows.Next());
      if (any) there = rows.Int(0);
    }
    return there > static_cast<std::int64_t>(most) ? db_->Run(remove, values) : absl::OkStatus();
  };
  TAKT_RETURN_IF_ERROR(limit("SELECT count(*) FROM run WHERE app=?",
                             "DELETE FROM run WHERE id=(SELECT min(id) FROM run WHERE app=? AND "
                             "ended IS NOT NULL)",
                             kMaxRunsPerApp, {std::string_view(app)}));
  return limit("SELECT count(*) FROM run",
               "DELETE FROM run WHERE id=(SELECT min(id) FROM run WHERE ended IS NOT NULL)",
               max_runs_, {});
}

absl::Status Runs::Finish(const Known& run, RunState state, double ended, const std::string& reason,
                          std::optional<int> exit_code, std::optional<int> signal) {
  TAKT_RETURN_IF_ERROR(db_->Run(
      "UPDATE run SET state=?, ended=max(started, ?), reason=?, exit_code=?, signal=? WHERE id=?",
      {static_cast<std::int64_t>(state), ended, std::string_view(reason), OrNull(exit_code),
       OrNull(signal), run.id}));
  TAKT_RETURN_IF_ERROR(db_->Run("DELETE FROM finding WHERE run=?", {run.id}));
  return FindVersions(run.id);
}

// What the run has exported so far: versions that were not there when it began, or are others now.
absl::Status Runs::FindVersions(std::int64_t id) {
  std::string directory;
  double latest = HUGE_VAL;
  {
    TAKT_ASSIGN_OR_RETURN(SqlRows rows,
                          db_->Query("SELECT directory, ended FROM run WHERE id=?", {id}));
    TAKT_ASSIGN_OR_RETURN(const bool any, rows.Next());
    if (!any || rows.IsNull(0)) return absl::OkStatus();
    directory = std::string(rows.Text(0));
    if (!rows.IsNull(1)) latest = rows.Real(1) + kEndSlackSeconds;
  }
  std::map<std::int64_t, std::int64_t> before, made;
  std::set<std::int64_t> incomplete;
  {
    TAKT_ASSIGN_OR_RETURN(
        SqlRows rows,
        db_->Query("SELECT before, number, modified, complete FROM version WHERE run=?", {id}));
    while (true) {
      TAKT_ASSIGN_OR_RETURN(const bool more, rows.Next());
      if (!more) break;
      (rows.Int(0) != 0 ? before : made)[rows.Int(1)] = rows.Int(2);
      if (rows.Int(0) == 0 && rows.Int(3) == 0) incomplete.insert(rows.Int(1));
    }
  }
  for (const Version& version : ListVersions(directory)) {
    const auto was = before.find(version.number);
    if (was != before.end() && was->second == version.modified_ns) continue;
    if (static_cast<double>(version.modified_ns) / 1e9 > latest) continue;  // of a later one
    const auto known = made.find(version.number);
    if (known != made.end() && known->second == version.modified_ns &&
        incomplete.contains(version.number) != version.complete) {
      continue;
    }
    TAKT_RETURN_IF_ERROR(db_->Run(
        "INSERT OR REPLACE INTO version VALUES(?, ?, ?, ?, 0)",
        {id, version.number, version.modified_ns, static_cast<std::int64_t>(version.complete)}));
  }
  return absl::OkStatus();
}

absl::Status Runs::ObserveService(const line::App& app, const line::ServiceView& service,
                                  storage::VolumeStore& volumes, double now) {
  TAKT_ASSIGN_OR_RETURN(Known run, Newest(app.name, service.spec.name));
  std::map<std::string, std::size_t> index;  // by id; the list is oldest first
  for (std::size_t i = 0; i < service.instances.size(); ++i) index[service.instances[i].id] = i;
  std::map<int, std::size_t> newest;  // of each replica of the run
  for (const auto& [replica, known] : run.replicas) {
    const auto it = index.find(known.instance);
    if (it != index.end()) newest[replica] = it->second;
  }
  // How a run ended that something newer, or nothing, stands in for.
  const auto supersede = [&](const std::string& reason) -> absl::Status {
    double ended = 0;
    std::optional<int> code, signal;
    bool all_zero = !newest.empty();
    for (const auto& [replica, i] : newest) {
      const runtime::InstanceStatus& instance = service.instances[i];
      ended = std::max(ended, Seconds(instance.finished));
      if (instance.exit_code != 0) all_zero = false;
      if (instance.exit_code) code = instance.exit_code;
      if (instance.signal) signal = instance.signal;
    }
    if (ended == 0) ended = now;
    return all_zero && !run.stopping ? Finish(run, RunState::kCompleted, ended, "", 0, std::nullopt)
                                     : Finish(run, RunState::kStopped, ended, reason, code, signal);
  };

  for (std::size_t i = 0; i < service.instances.size(); ++i) {
    const runtime::InstanceStatus& instance = service.instances[i];
    const auto known = run.replicas.find(instance.replica);
    bool goes_on = false;
    if (known != run.replicas.end()) {
      const Known::Replica& last = known->second;
      const auto at = newest.find(instance.replica);
      if (instance.id == last.instance) continue;
      if (at != newest.end() ? i < at->second : CreatedOf(instance) <= last.created) continue;
      goes_on = run.state == RunState::kRunning && instance.restarts > last.restarts;
    } else if (run.id != 0) {
      // Another replica. Of an ended run only what came after it can be news.
      double newest_created = 0;
      for (const auto& [replica, each] : run.replicas) {
        newest_created = std::max(newest_created, each.created);
      }
      if (run.state == RunState::kRunning) {
        goes_on = true;
      } else if (CreatedOf(instance) <= newest_created) {
        continue;
      }
    }
    if (!goes_on) {
      if (run.id != 0 && run.state == RunState::kRunning) {
        TAKT_RETURN_IF_ERROR(supersede(instance.revision != run.revision
                                           ? StrCat("replaced by revision ", instance.revision)
                                           : "started anew"));
      }
      TAKT_ASSIGN_OR_RETURN(run, Begin(app, service, instance, run.revision, volumes));
      newest.clear();
    }
    Known::Replica& replica = run.replicas[instance.replica];
    if (!replica.instance.empty()) {
      TAKT_RETURN_IF_ERROR(
          db_->Run("UPDATE run SET past_cpu=past_cpu+? WHERE id=?", {replica.cpu, run.id}));
    }
    replica = {instance.id, CreatedOf(instance), 0, instance.restarts};
    newest[instance.replica] = i;
    TAKT_RETURN_IF_ERROR(db_->Run(
        "INSERT OR REPLACE INTO replica VALUES(?, ?, ?, ?, ?, ?)",
        {run.id, static_cast<std::int64_t>(instance.replica), std::string_view(instance.id),
         replica.created, static_cast<std::int64_t>(instance.restarts), instance.cpu_seconds}));
    replica.cpu = instance.cpu_seconds;
  }
  if (run.id == 0 || run.state != RunState::kRunning) return absl::OkStatus();

  bool stopping = run.stopping || app.stopped;
  bool live = false;
  const runtime::InstanceStatus* failed = nullptr;
  double ended = 0;
  for (const auto& [number, i] : newest) {
    const runtime::InstanceStatus& instance = service.instances[i];
    Known::Replica& replica = run.replicas[number];
    if (instance.cpu_seconds > replica.cpu) {
      TAKT_RETURN_IF_ERROR(
          db_->Run("UPDATE replica SET cpu=? WHERE run=? AND replica=?",
                   {instance.cpu_seconds, run.id, static_cast<std::int64_t>(number)}));
    }
    if (instance.state == runtime::InstanceState::kStopping) stopping = true;
    if (instance.state != runtime::InstanceState::kExited) {
      live = true;
      continue;
    }
    ended = std::max(ended, Seconds(instance.finished));
    if (instance.exit_code != 0 && failed == nullptr) failed = &instance;
  }
  if (stopping != run.stopping) {
    TAKT_RETURN_IF_ERROR(db_->Run("UPDATE run SET stopping=1 WHERE id=?", {run.id}));
    run.stopping = true;
  }
  if (live) return FindVersions(run.id);
  if (newest.empty()) return supersede("its instances are gone");
  if (ended == 0) ended = now;
  if (failed == nullptr && !stopping) {
    return Finish(run, RunState::kCompleted, ended, "", 0, std::nullopt);
  }
  const runtime::InstanceStatus& told =
      failed != nullptr ? *failed : service.instances[newest.begin()->second];
  return Finish(run, stopping ? RunState::kStopped : RunState::kFailed, ended,
                stopping ? "stopped" : told.reason, told.exit_code, told.signal);
}

absl::Status Runs::Observe(const line::App& app, storage::VolumeStore& volumes,
                           std::chrono::system_clock::time_point now) {
  const std::lock_guard lock(mutex_);
  TAKT_ASSIGN_OR_RETURN(SqlTransaction transaction, SqlTransaction::Begin(*db_));
  std::set<std::string> training;
  for (const line::ServiceView& service : app.services) {
    if (service.role != "training") continue;
    training.insert(service.spec.name);
    TAKT_RETURN_IF_ERROR(ObserveService(app, service, volumes, Seconds(now)));
  }
  TAKT_ASSIGN_OR_RETURN(const std::vector<Run> running,
                        Select("app=? AND ended IS NULL", {std::string_view(app.name)}));
  for (const Run& run : running) {
    if (training.contains(run.service)) continue;
    TAKT_ASSIGN_OR_RETURN(const Known known, Newest(app.name, run.service));
    TAKT_RETURN_IF_ERROR(
        Finish(known, RunState::kStopped, Seconds(now),
               StrCat("revision ", app.revision.number, " has no such training service"),
               std::nullopt, std::nullopt));
  }
  return transaction.Commit();
}

absl::Status Runs::Removed(const std::string& app, std::chrono::system_clock::time_point now) {
  const std::lock_guard lock(mutex_);
  TAKT_ASSIGN_OR_RETURN(SqlTransaction transaction, SqlTransaction::Begin(*db_));
  TAKT_ASSIGN_OR_RETURN(const std::vector<Run> running,
                        Select("app=? AND ended IS NULL", {std::string_view(app)}));
  for (const Run& run : running) {
    TAKT_ASSIGN_OR_RETURN(const Known known, Newest(app, run.service));
    TAKT_RETURN_IF_ERROR(Finish(known, RunState::kStopped, Seconds(now), "the app was removed",
                                std::nullopt, std::nullopt));
  }
  return transaction.Commit();
}

absl::StatusOr<std::vector<Run>> Runs::Select(std::string_view where,
                                              std::initializer_list<SqlValue> values) {
  std::vector<Run> runs;
  std::vector<std::int64_t> ids;
  {
    TAKT_ASSIGN_OR_RETURN(
        SqlRows rows,
        db_->Query(
            StrCat("SELECT app, number, service, revision, why, author, started, ended, state, "
                   "reason, exit_code, signal, past_cpu + (SELECT total(cpu) FROM replica WHERE "
                   "run=id), (SELECT total(restarts) FROM replica WHERE run=id), node, model, "
                   "volume, path, directory, note, id, gpus FROM run WHERE ",
                   where),
            values));
    while (true) {
      TAKT_ASSIGN_OR_RETURN(const bool more, rows.Next());
      if (!more) break;
      Run& run = runs.emplace_back();
      run.app = std::string(rows.Text(0));
      run.number = static_cast<int>(rows.Int(1));
      run.service = std::string(rows.Text(2));
      run.revision = static_cast<int>(rows.Int(3));
      run.why = std::string(rows.Text(4));
      run.author = std::string(rows.Text(5));
      run.started = rows.Real(6);
      if (!rows.IsNull(7)) run.ended = rows.Real(7);
      run.state = static_cast<RunState>(rows.Int(8));
      run.reason = std::string(rows.Text(9));
      run.exit_code = IntOrNull(rows, 10);
      run.signal = IntOrNull(rows, 11);
      run.cpu_seconds = rows.Real(12);
      run.restarts = static_cast<int>(rows.Int(13));
      run.node = std::string(rows.Text(14));
      if (!rows.IsNull(15)) {
        run.model = Model{std::string(rows.Text(15)), std::string(rows.Text(16)),
                          std::string(rows.Text(17)), std::string(rows.Text(18))};
      }
      run.note = std::string(rows.Text(19));
      run.gpus = static_cast<int>(rows.Int(21));
      ids.push_back(rows.Int(20));
    }
  }
  const auto each = [&](std::string_view sql, std::int64_t id, const auto& take) -> absl::Status {
    TAKT_ASSIGN_OR_RETURN(SqlRows rows, db_->Query(sql, {id}));
    while (true) {
      TAKT_ASSIGN_OR_RETURN(const bool more, rows.Next());
      if (!more) return absl::OkStatus();
      take(rows);
    }
  };
  for (std::size_t i = 0; i < runs.size(); ++i) {
    Run& run = runs[i];
    TAKT_RETURN_IF_ERROR(
        each("SELECT name, value FROM value WHERE run=?", ids[i], [&](const SqlRows& rows) {
          run.values[std::string(rows.Text(0))] = std::string(rows.Text(1));
        }));
    TAKT_RETURN_IF_ERROR(each(
        "SELECT number, modified, complete FROM version WHERE run=? AND before=0 ORDER BY number",
        ids[i], [&](const SqlRows& rows) {
          run.versions.push_back({rows.Int(0), rows.Int(1), rows.Int(2) != 0});
        }));
    TAKT_RETURN_IF_ERROR(each("SELECT kind, alert, message FROM finding WHERE run=? ORDER BY kind",
                              ids[i], [&](const SqlRows& rows) {
                                run.findings.push_back(
                                    {static_cast<learning::Finding::Kind>(rows.Int(0)),
                                     rows.Int(1) != 0, std::string(rows.Text(2))});
                              }));
    TAKT_RETURN_IF_ERROR(each("SELECT tag FROM tag WHERE run=? ORDER BY tag", ids[i],
                              [&](const SqlRows& rows) { run.tags.emplace_back(rows.Text(0)); }));
  }
  return runs;
}

absl::StatusOr<std::vector<Run>> Runs::List(const std::string& app, std::size_t limit) {
  const std::lock_guard lock(mutex_);
  const auto most = static_cast<std::int64_t>(limit);
  if (app.empty()) return Select("1 ORDER BY id DESC LIMIT ?", {most});
  return Select("app=? ORDER BY number DESC LIMIT ?", {std::string_view(app), most});
}

absl::StatusOr<std::vector<Run>> Runs::Running() {
  const std::lock_guard lock(mutex_);
  return Select("ended IS NULL ORDER BY id", {});
}

absl::StatusOr<Run> Runs::Get(const std::string& app, int number) {
  const std::lock_guard lock(mutex_);
  TAKT_ASSIGN_OR_RETURN(
      std::vector<Run> runs,
      Select("app=? AND number=?", {std::string_view(app), static_cast<std::int64_t>(number)}));
  if (runs.empty()) return NoSuchRun(app, number);
  return std::move(runs[0]);
}

absl::StatusOr<std::vector<Run>> Runs::MakersOf(const std::string& directory) {
  const std::lock_guard lock(mutex_);
  return Select(
      "directory=? AND EXISTS(SELECT 1 FROM version WHERE run=id AND before=0) "
      "ORDER BY id DESC",
      {std::string_view(directory)});
}

absl::StatusOr<std::vector<Model>> Runs::Models() {
  const std::lock_guard lock(mutex_);
  TAKT_ASSIGN_OR_RETURN(SqlRows rows,
                        db_->Query("SELECT model, volume, path, directory, max(id) FROM run WHERE "
                                   "directory IS NOT NULL GROUP BY directory"));
  std::vector<Model> models;
  while (true) {
    TAKT_ASSIGN_OR_RETURN(const bool more, rows.Next());
    if (!more) return models;
    models.push_back({std::string(rows.Text(0)), std::string(rows.Text(1)),
                      std::string(rows.Text(2)), std::string(rows.Text(3))});
  }
}

absl::StatusOr<std::int64_t> Runs::IdOf(const std::string& app, int number) {
  TAKT_ASSIGN_OR_RETURN(SqlRows rows,
                        db_->Query("SELECT id FROM run WHERE app=? AND number=?",
                                   {std::string_view(app), static_cast<std::int64_t>(number)}));
  TAKT_ASSIGN_OR_RETURN(const bool any, rows.Next());
  if (!any) return NoSuchRun(app, number);
  return rows.Int(0);
}

absl::StatusOr<Run> Runs::Annotate(const std::string& app, int number,
                                   const std::optional<std::string>& note,
                                   const std::optional<std::vector<std::string>>& tags) {
  if (note && note->size() > kMaxRunNoteBytes) {
    return absl::ResourceExhaustedError(
        StrCat("note: at most ", kMaxRunNoteBytes, " bytes, got ", note->size()));
  }
  if (tags) {
    if (tags->size() > kMaxRunTags) {
      return absl::ResourceExhaustedError(
          StrCat("tags: at most ", kMaxRunTags, ", got ", tags->size()));
    }
    for (std::size_t i = 0; i < tags->size(); ++i) {
      if ((*tags)[i].empty()) return absl::InvalidArgumentError(StrCat("tags[", i, "] is empty"));
      if ((*tags)[i].size() > kMaxRunTagBytes) {
        return absl::ResourceExhaustedError(
            StrCat("tags[", i, "]: at most ", kMaxRunTagBytes, " bytes, got ", (*tags)[i].size()));
      }
    }
  }
  {
    const std::lock_guard lock(mutex_);
    TAKT_ASSIGN_OR_RETURN(SqlTransaction transaction, SqlTransaction::Begin(*db_));
    TAKT_ASSIGN_OR_RETURN(const std::int64_t id, IdOf(app, number));
    if (note) {
      TAKT_RETURN_IF_ERROR(
          db_->Run("UPDATE run SET note=? WHERE id=?", {std::string_view(*note), id}));
    }
    if (tags) {
      TAKT_RETURN_IF_ERROR(db_->Run("DELETE FROM tag WHERE run=?", {id}));
      for (const std::string& tag : *tags) {
        TAKT_RETURN_IF_ERROR(
            db_->Run("INSERT OR IGNORE INTO tag VALUES(?, ?)", {id, std::string_view(tag)}));
      }
    }
    TAKT_RETURN_IF_ERROR(transaction.Commit());
  }
  return Get(app, number);
}

absl::StatusOr<std::vector<learning::Finding>> Runs::SetFindings(
    const std::string& app, int number, const std::vector<learning::Finding>& findings) {
  const std::lock_guard lock(mutex_);
  TAKT_ASSIGN_OR_RETURN(SqlTransaction transaction, SqlTransaction::Begin(*db_));
  TAKT_ASSIGN_OR_RETURN(const std::int64_t id, IdOf(app, number));
  std::set<std::int64_t> before;
  {
    TAKT_ASSIGN_OR_RETURN(SqlRows rows, db_->Query("SELECT kind FROM finding WHERE run=?", {id}));
    while (true) {
      TAKT_ASSIGN_OR_RETURN(const bool more, rows.Next());
      if (!more) break;
      before.insert(rows.Int(0));
    }
  }
  std::vector<learning::Finding> fresh;
  if (before.empty() && findings.empty()) return fresh;
  TAKT_RETURN_IF_ERROR(db_->Run("DELETE FROM finding WHERE run=?", {id}));
  for (const learning::Finding& finding : findings) {
    const auto kind = static_cast<std::int64_t>(finding.kind);
    TAKT_RETURN_IF_ERROR(db_->Run(
        "INSERT OR REPLACE INTO finding VALUES(?, ?, ?, ?)",
        {id, kind, static_cast<std::int64_t>(finding.alert), std::string_view(finding.message)}));
    if (!before.contains(kind)) fresh.push_back(finding);
  }
  TAKT_RETURN_IF_ERROR(transaction.Commit());
  return fresh;
}

}  // namespace takt::operate
