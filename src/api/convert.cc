#include "api/convert.h"

#include <cmath>

#include "base/clock.h"
#include "logs/entry.h"

namespace takt::api {
namespace {

const char* Name(runtime::InstanceState state) {
  switch (state) {
    case runtime::InstanceState::kStarting:
      return "starting";
    case runtime::InstanceState::kRunning:
      return "running";
    case runtime::InstanceState::kStopping:
      return "stopping";
    case runtime::InstanceState::kExited:
      return "exited";
    case runtime::InstanceState::kBackingOff:
      return "backing_off";
  }
  return "";
}

const char* Name(runtime::Health health) {
  switch (health) {
    case runtime::Health::kNone:
      return "none";
    case runtime::Health::kStarting:
      return "starting";
    case runtime::Health::kHealthy:
      return "healthy";
    case runtime::Health::kUnhealthy:
      return "unhealthy";
  }
  return "";
}

const char* Name(templates::ParameterType type) {
  switch (type) {
    case templates::ParameterType::kText:
      return "text";
    case templates::ParameterType::kInteger:
      return "integer";
    case templates::ParameterType::kNumber:
      return "number";
    case templates::ParameterType::kPath:
      return "path";
    case templates::ParameterType::kEndpoint:
      return "endpoint";
  }
  return "";
}

const char* Name(templates::RestartPolicy policy) {
  switch (policy) {
    case templates::RestartPolicy::kNo:
      return "no";
    case templates::RestartPolicy::kAlways:
      return "always";
    case templates::RestartPolicy::kOnFailure:
      return "on-failure";
    case templates::RestartPolicy::kUnlessStopped:
      return "unless-stopped";
  }
  return "";
}

const char* Name(templates::DependencyCondition condition) {
  switch (condition) {
    case templates::DependencyCondition::kStarted:
      return "started";
    case templates::DependencyCondition::kHealthy:
      return "healthy";
    case templates::DependencyCondition::kCompletedSuccessfully:
      return "completed_successfully";
  }
  return "";
}

const char* Name(templates::HealthCheck::Kind kind) {
  switch (kind) {
    case templates::HealthCheck::Kind::kNone:
      return "none";
    case templates::HealthCheck::Kind::kCommand:
      return "command";
    case templates::HealthCheck::Kind::kShell:
      return "shell";
    case templates::HealthCheck::Kind::kHttp:
      return "http";
    case templates::HealthCheck::Kind::kTcp:
      return "tcp";
  }
  return "";
}

const char* Name(templates::Mount::Kind kind) {
  switch (kind) {
    case templates::Mount::Kind::kVolume:
      return "volume";
    case templates::Mount::Kind::kBind:
      return "bind";
    case templates::Mount::Kind::kTmpfs:
      return "tmpfs";
  }
  return "";
}

const char* Name(line::Change::Kind kind) {
  switch (kind) {
    case line::Change::Kind::kAdded:
      return "added";
    case line::Change::Kind::kRemoved:
      return "removed";
    case line::Change::Kind::kChanged:
      return "changed";
  }
  return "";
}

void WriteConfiguration(JsonWriter& w, const line::Configuration& configuration) {
  w.BeginObject()
      .Field("template", configuration.template_text)
      .Field("template_name", configuration.template_name)
      .Field("values", configuration.values);
  w.Key("volume_options").BeginObject();
  for (const auto& [volume, option] : configuration.volume_options) {
    w.Key(volume).BeginObject().Field("subdirectory", option.subdirectory).EndObject();
  }
  w.EndObject().EndObject();
}

void WriteRevisionFields(JsonWriter& w, const line::Revision& revision) {
  w.Field("number", revision.number)
      .Field("created_at", revision.created_at)
      .Field("author", revision.author)
      .Field("why", revision.why)
      .Field("rollback_of", revision.rollback_of)
      .Field("image_digests", revision.image_digests);
}

void WriteService(JsonWriter& w, const line::ServiceView& service, AppForm form) {
  w.BeginObject()
      .Field("name", service.spec.name)
      .Field("role", service.role)
      .Field("state", line::AppStateName(service.state))
      .Field("reason", service.reason)
      .Field("image", service.spec.image)
      .Field("replicas", service.spec.replicas);
  WriteArray(w, "instances", service.instances);
  if (form == AppForm::kDetail) {
    w.Key("spec");
    Write(w, service.spec);
  }
  w.EndObject();
}

}  // namespace

void WriteTime(JsonWriter& w, std::string_view name, std::chrono::system_clock::time_point time) {
  w.Key(name);
  if (time.time_since_epoch().count() == 0) {
    w.Null();
  } else {
    w.Value(FormatRfc3339(time));
  }
}

void WriteTime(JsonWriter& w, std::string_view name, std::optional<double> seconds) {
  w.Key(name);
  if (seconds) {
    w.Value(Rfc3339FromSeconds(*seconds));
  } else {
    w.Null();
  }
}

void WriteVersionFields(JsonWriter& w, const operate::Version& version) {
  w.Field("number", version.number);
  WriteTime(w, "modified", static_cast<double>(version.modified_ns) / 1e9);
  w.Field("complete", version.complete);
}

void WriteEndpointFields(JsonWriter& w, const runtime::Endpoint& endpoint) {
  const bool v6 = endpoint.host.find(':') != std::string::npos;
  w.Field("host", endpoint.host)
      .Field("port", endpoint.port)
      .Field("target", endpoint.target)
      .Field("protocol", endpoint.protocol)
      .Field("address", v6 ? StrCat("[", endpoint.host, "]:", endpoint.port)
                           : StrCat(endpoint.host, ":", endpoint.port));
}

void Write(JsonWriter& w, const runtime::InstanceStatus& instance) {
  w.BeginObject()
      .Field("id", instance.id)
      .Field("replica", instance.replica)
      .Field("restarts", instance.restarts)
      .Field("revision", instance.revision)
      .Field("node", instance.node)
      .Field("state", Name(instance.state))
      .Field("health", Name(instance.health))
      .Field("reason", instance.reason)
      .Field("exit_code", instance.exit_code)
      .Field("signal", instance.signal)
      .Field("oom_killed", instance.oom_killed)
      .Field("pid", instance.pid);
  WriteTime(w, "created_at", instance.created);
  WriteTime(w, "started_at", instance.started);
  WriteTime(w, "finished_at", instance.finished);
  w.Key("endpoints").BeginArray();
  for (const runtime::Endpoint& each : instance.endpoints) {
    w.BeginObject();
    WriteEndpointFields(w, each);
    w.EndObject();
  }
  w.EndArray()
      .Field("cpu_seconds", instance.cpu_seconds)
      .Field("memory_bytes", instance.memory_bytes)
      .EndObject();
}

void Write(JsonWriter& w, const templates::ServiceSpec& spec) {
  w.BeginObject()
      .Field("name", spec.name)
      .Field("image", spec.image)
      .Field("entrypoint", spec.entrypoint)
      .Field("command", spec.command)
      .Field("environment", spec.environment)
      .Field("labels", spec.labels);
  w.Key("ports").BeginArray();
  for (const templates::Port& port : spec.ports) {
    w.BeginObject()
        .Field("host_ip", port.host_ip)
        .Field("published", port.published)
        .Field("target", port.target)
        .Field("protocol", port.protocol)
        .EndObject();
  }
  w.EndArray().Key("mounts").BeginArray();
  for (const templates::Mount& mount : spec.mounts) {
    w.BeginObject()
        .Field("kind", Name(mount.kind))
        .Field("source", mount.source)
        .Field("target", mount.target)
        .Field("read_only", mount.read_only)
        .Field("subdirectory", mount.subdirectory)
        .EndObject();
  }
  w.EndArray().Key("depends_on").BeginObject();
  for (const auto& [service, condition] : spec.depends_on) w.Field(service, Name(condition));
  w.EndObject()
      .Field("restart", Name(spec.restart))
      .Field("replicas", spec.replicas)
      .Field("cpus", spec.cpus)
      .Field("memory_bytes", spec.memory_bytes)
      .Field("gpus", spec.gpus)
      .Field("health_check", Name(spec.health.kind));
  w.Key("log_stores").BeginArray();
  for (const templates::LogStore& store : spec.log_stores) {
    w.BeginObject()
        .Field("name", store.name)
        .Field("source", store.source)
        .Field("ttl_days", store.ttl_days)
        .EndObject();
  }
  w.EndArray()
      .Field("model", spec.model)
      .Field("model_path", spec.model_path)
      .Field("serves", spec.serves)
      .Field("learning", spec.learning)
      .Field("checkpoint", spec.checkpoint)
      .EndObject();
}

void Write(JsonWriter& w, const templates::Parameter& parameter) {
  w.BeginObject()
      .Field("name", parameter.name)
      .Field("default_value", parameter.default_value)
      .Field("required", parameter.required)
      .Field("message", parameter.message)
      .Field("type", Name(parameter.type));
  w.Key("uses").BeginArray();
  for (const auto& use : parameter.uses) {
    w.BeginObject()
        .Field("path", use.path)
        .Field("line", use.line)
        .Field("column", use.column)
        .EndObject();
  }
  w.EndArray().EndObject();
}

void Write(JsonWriter& w, const templates::Issue& issue) {
  const bool error = issue.severity == templates::Issue::Severity::kError;
  w.BeginObject()
      .Field("severity", error ? "error" : "warning")
      .Field("file", issue.file)
      .Field("line", issue.line)
      .Field("column", issue.column)
      .Field("path", issue.path)
      .Field("message", issue.message)
      .Field("suggestion", issue.suggestion)
      .Field("text", issue.ToString())
      .EndObject();
}

void Write(JsonWriter& w, const line::Change& change) {
  w.BeginObject()
      .Field("kind", Name(change.kind))
      .Field("path", change.path)
      .Field("before", change.before)
      .Field("after", change.after)
      .EndObject();
}

void Write(JsonWriter& w, const line::Event& event) {
  w.BeginObject()
      .Field("id", event.id)
      .Field("time", event.time)
      .Field("app", event.app)
      .Field("kind", event.kind)
      .Field("message", event.message)
      .Field("level", event.level)
      .EndObject();
}

void Write(JsonWriter& w, const line::Revision& revision) {
  w.BeginObject();
  WriteRevisionFields(w, revision);
  w.Key("configuration");
  WriteConfiguration(w, revision.configuration);
  w.EndObject();
}

void Write(JsonWriter& w, const line::Preview& preview) {
  w.BeginObject().Field("anything_changes", preview.anything_changes());
  WriteArray(w, "changes", preview.changes);
  w.Key("services").BeginArray();
  for (const line::ServicePlan& plan : preview.services) {
    w.BeginObject()
        .Field("service", plan.service)
        .Field("action", line::ServiceActionName(plan.action));
    WriteArray(w, "changes", plan.changes);
    w.EndObject();
  }
  w.EndArray().Field("missing_volumes", preview.missing_volumes);
  WriteArray(w, "parameters", preview.parameters);
  WriteArray(w, "issues", preview.issues);
  w.Field("template_diff", preview.template_diff).Key("suggestions").BeginArray();
  for (const line::Suggestion& each : preview.suggestions) {
    w.BeginObject().Field("service", each.service).Field("volume", each.volume);
    w.Key("option").BeginObject().Field("subdirectory", each.option.subdirectory).EndObject();
    w.Field("message", each.message).EndObject();
  }
  w.EndArray().EndObject();
}

void Write(JsonWriter& w, const line::Removal& removal) {
  w.BeginObject()
      .Field("volumes_kept", removal.volumes_kept)
      .Field("shared_with", removal.shared_with)
      .EndObject();
}

void Write(JsonWriter& w, const line::App& app, AppForm form) {
  w.BeginObject()
      .Field("name", app.name)
      .Field("state", line::AppStateName(app.state))
      .Field("reason", app.reason)
      .Field("stopped", app.stopped)
      .Field("created_at", app.created_at)
      .Field("updated_at", app.updated_at)
      .Key("revision");
  if (form == AppForm::kDetail) {
    Write(w, app.revision);
  } else {
    w.BeginObject();
    WriteRevisionFields(w, app.revision);
    w.EndObject();
  }
  w.Field("values", app.revision.configuration.values).Key("services").BeginArray();
  for (const line::ServiceView& each : app.services) WriteService(w, each, form);
  w.EndArray().EndObject();
}

void WriteLabels(JsonWriter& w, const metrics::Labels& labels) {
  w.Key("labels").BeginObject();
  for (const auto& [name, value] : labels) w.Field(name, value);
  w.EndObject();
}

std::string Rfc3339FromUs(std::int64_t us) {
  return FormatRfc3339(std::chrono::system_clock::time_point(
      std::chrono::duration_cast<std::chrono::system_clock::duration>(
          std::chrono::microseconds(us))));
}

absl::StatusOr<std::int64_t> QueryTimeUs(const Call& call, std::string_view name,
                                         std::int64_t fallback) {
  if (!call.HasQuery(name)) return fallback;
  const auto time = logs::RecogniseTime(call.Query(name));
  if (!time) {
    return absl::InvalidArgumentError(
        ToAbsl(StrCat("query parameter ", name, ": expected a time like 2026-01-31T12:00:00Z, got ",
                      call.Query(name))));
  }
  return *time;
}

std::string Rfc3339FromSeconds(double seconds) {
  return Rfc3339FromUs(std::llround(seconds * 1e6));
}

void WriteNumber(JsonWriter& w, double value) {
  if (std::isfinite(value)) {
    w.Value(value);
  } else {
    w.Value(std::isnan(value) ? "NaN" : value > 0 ? "Infinity" : "-Infinity");
  }
}

absl::StatusOr<double> QueryNumber(const Call& call, std::string_view name, double fallback) {
  if (!call.HasQuery(name)) return fallback;
  double value = 0;
  if (!absl::SimpleAtod(ToAbsl(call.Query(name)), &value) || !std::isfinite(value)) {
    return absl::InvalidArgumentError(
        ToAbsl(StrCat("query parameter ", name, ": expected a number, got ", call.Query(name))));
  }
  return value;
}

}  // namespace takt::api
