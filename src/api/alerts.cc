#include "api/alerts.h"

#include "api/convert.h"
#include "api/json_reader.h"
#include "api/json_writer.h"

namespace takt::api {
namespace {

using Result = absl::StatusOr<Reply>;

constexpr int kMaxSilenceMinutes = 60 * 24 * 90;

void WriteSilence(JsonWriter& w, const operate::Silence& silence) {
  w.BeginObject().Field("id", silence.id).Field("rule", silence.rule);
  WriteLabels(w, silence.labels);
  w.Field("until", FormatRfc3339(silence.until)).Field("why", silence.why).EndObject();
}

Result GetAlerts(const operate::Alerts& alerts) {
  std::string body;
  JsonWriter w(&body);
  w.BeginObject().Key("alerts").BeginArray();
  for (const operate::Alert& alert : alerts.Active()) {
    w.BeginObject()
        .Field("rule", alert.rule)
        .Field("severity", operate::SeverityName(alert.severity))
        .Field("state", alert.firing ? "firing" : "pending")
        .Field("silenced", alert.silenced);
    WriteLabels(w, alert.labels);
    w.Field("since", FormatRfc3339(alert.since))
        .Field("value", alert.value)
        .Field("summary", alert.summary)
        .EndObject();
  }
  w.EndArray().Key("rules").BeginArray();
  for (const operate::AlertRule& rule : alerts.Rules()) {
    w.BeginObject()
        .Field("name", rule.name)
        .Field("metric", rule.metric)
        .Field("divided_by", rule.divide_by)
        .Field("above", rule.above)
        .Field("threshold", rule.threshold)
        .Field("window_seconds", rule.window.count())
        .Field("for_seconds", rule.for_at_least.count())
        .Field("severity", operate::SeverityName(rule.severity))
        .Field("summary", rule.summary)
        .Field("enabled", rule.enabled)
        .EndObject();
  }
  w.EndArray().Key("silences").BeginArray();
  for (const operate::Silence& silence : alerts.Silences()) WriteSilence(w, silence);
  w.EndArray().EndObject();
  return Reply::Json(std::move(body));
}

Result PostSilence(operate::Alerts& alerts, const Clock& clock, Call& call) {
  TAKT_ASSIGN_OR_RETURN(const nlohmann::json body, ParseJsonObject(call.request().body));
  operate::Silence silence;
  std::map<std::string, std::string> labels;
  int minutes = 0;
  ObjectReader reader(body);
  reader.Read("rule", &silence.rule);
  reader.Read("labels", &labels);
  reader.Require("minutes");
  reader.Read("minutes", &minutes);
  reader.Read("why", &silence.why);
  TAKT_RETURN_IF_ERROR(reader.Done());
  if (minutes < 1 || minutes > kMaxSilenceMinutes) {
    return absl::InvalidArgumentError(
        absl::StrCat("minutes: expected 1 to ", kMaxSilenceMinutes, ", got ", minutes));
  }
  silence.labels.assign(labels.begin(), labels.end());
  silence.until = clock.Now() + std::chrono::minutes(minutes);
  TAKT_ASSIGN_OR_RETURN(const operate::Silence added, alerts.AddSilence(std::move(silence)));
  std::string text;
  JsonWriter w(&text);
  WriteSilence(w, added);
  return Reply::Json(std::move(text), 201);
}

Result PutRule(operate::Alerts& alerts, Call& call) {
  TAKT_ASSIGN_OR_RETURN(const nlohmann::json body, ParseJsonObject(call.request().body));
  bool enabled = true;
  ObjectReader reader(body);
  reader.Require("enabled");
  reader.Read("enabled", &enabled);
  TAKT_RETURN_IF_ERROR(reader.Done());
  TAKT_RETURN_IF_ERROR(alerts.SetEnabled(call.path(0), enabled));
  return GetAlerts(alerts);
}

}  // namespace

void AddAlertRoutes(Router& router, operate::Alerts& alerts, const Clock& clock) {
  router.Add("GET", "/alerts", {}, [&](Call&) { return GetAlerts(alerts); });
  router.Add("POST", "/alerts/silences", {},
             [&](Call& call) { return PostSilence(alerts, clock, call); });
  router.Add("DELETE", "/alerts/silences/{id}", {}, [&](Call& call) -> Result {
    TAKT_RETURN_IF_ERROR(alerts.RemoveSilence(call.path(0)));
    return GetAlerts(alerts);
  });
  router.Add("PUT", "/alerts/rules/{name}", {}, [&](Call& call) { return PutRule(alerts, call); });
}

}  // namespace takt::api
