#include "api/alerts.h"

#include "absl/time/time.h"
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

const char* OriginName(operate::AlertRule::Origin origin) {
  switch (origin) {
    case operate::AlertRule::Origin::kBuiltIn:
      return "built_in";
    case operate::AlertRule::Origin::kChanged:
      return "changed";
    case operate::AlertRule::Origin::kOwn:
      return "own";
  }
  return "";
}

void WriteRule(JsonWriter& w, const operate::AlertRule& rule, const std::string& problem) {
  w.BeginObject()
      .Field("name", rule.name)
      .Field("origin", OriginName(rule.origin))
      .Field("metric", rule.metric)
      .Field("match", metrics::MatchersText(rule.matchers))
      .Field("function", metrics::FunctionName(rule.function))
      .Field("aggregate", metrics::AggregationName(rule.aggregation))
      .Field("by", rule.by)
      .Field("divided_by", rule.divide_by)
      .Field("divided_by_match", metrics::MatchersText(rule.divide_matchers))
      .Field("above", rule.above)
      .Field("threshold", rule.threshold)
      .Field("window_seconds", rule.window.count())
      .Field("for_seconds", rule.for_at_least.count())
      .Field("severity", operate::SeverityName(rule.severity))
      .Field("summary", rule.summary)
      .Field("summary_zh", rule.summary_zh)
      .Field("enabled", rule.enabled)
      .Field("problem", problem)
      .EndObject();
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
        .Field("summary_zh", alert.summary_zh)
        .EndObject();
  }
  w.EndArray().Key("rules").BeginArray();
  auto problems = alerts.Problems();
  for (const operate::AlertRule& rule : alerts.Rules()) WriteRule(w, rule, problems[rule.name]);
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
  std::string until;
  ObjectReader reader(body);
  reader.Read("rule", &silence.rule);
  reader.Read("labels", &labels);
  reader.Read("minutes", &minutes);
  reader.Read("until", &until);
  reader.Read("why", &silence.why);
  TAKT_RETURN_IF_ERROR(reader.Done());
  const auto most = std::chrono::minutes(kMaxSilenceMinutes);
  if (reader.Has("minutes") == reader.Has("until")) {
    return absl::InvalidArgumentError("minutes, until: expected one of them");
  }
  if (reader.Has("until")) {
    absl::Time time;
    std::string error;
    if (!absl::ParseTime(absl::RFC3339_full, until, &time, &error) ||
        absl::ToChronoTime(time) <= clock.Now() || absl::ToChronoTime(time) > clock.Now() + most) {
      return absl::InvalidArgumentError(
          StrCat("until: expected an RFC 3339 time within the next 90 days, got \"", until, "\""));
    }
    silence.until = absl::ToChronoTime(time);
  } else {
    if (minutes < 1 || minutes > kMaxSilenceMinutes) {
      return absl::InvalidArgumentError(
          absl::StrCat("minutes: expected 1 to ", kMaxSilenceMinutes, ", got ", minutes));
    }
    silence.until = clock.Now() + std::chrono::minutes(minutes);
  }
  silence.labels.assign(labels.begin(), labels.end());
  TAKT_ASSIGN_OR_RETURN(const operate::Silence added, alerts.AddSilence(std::move(silence)));
  std::string text;
  JsonWriter w(&text);
  WriteSilence(w, added);
  return Reply::Json(std::move(text), 201);
}

// Reads the text `name` and finds what it stands for; `expected` lists the names.
template <typename T>
absl::Status ReadName(ObjectReader& reader, std::string_view name, std::string_view expected,
                      std::optional<T> (*find)(std::string_view), T* out) {
  std::string text;
  reader.Read(name, &text);
  if (!reader.Has(name) || text.empty()) return absl::OkStatus();  // Done tells of a wrong type
  const auto found = find(text);
  if (!found) {
    return absl::InvalidArgumentError(
        StrCat(name, ": expected ", expected, ", got \"", text, "\""));
  }
  *out = *found;
  return absl::OkStatus();
}

absl::Status ReadMatchers(ObjectReader& reader, std::string_view name,
                          std::vector<metrics::Matcher>* out) {
  if (!reader.Has(name)) return absl::OkStatus();
  std::string text;
  reader.Read(name, &text);
  auto matchers = metrics::ParseMatchers(text);
  if (!matchers.ok()) {
    return absl::InvalidArgumentError(
        StrCat(name, ToStd(matchers.status().message()).substr(std::string_view("match").size())));
  }
  *out = *std::move(matchers);
  return absl::OkStatus();
}

// The rule `name` with what the body changes; of a new rule, of the defaults.
absl::StatusOr<operate::AlertRule> ReadRule(const operate::Alerts& alerts, Call& call) {
  TAKT_ASSIGN_OR_RETURN(const nlohmann::json body, ParseJsonObject(call.request().body));
  const auto before = alerts.Rule(call.path(0));
  operate::AlertRule rule = before.value_or(operate::AlertRule{.name = call.path(0)});
  int window = static_cast<int>(rule.window.count());
  int for_seconds = static_cast<int>(rule.for_at_least.count());
  ObjectReader reader(body);
  if (!before) {
    for (const char* field : {"metric", "threshold", "summary"}) reader.Require(field);
  }
  reader.Read("metric", &rule.metric);
  TAKT_RETURN_IF_ERROR(ReadMatchers(reader, "match", &rule.matchers));
  TAKT_RETURN_IF_ERROR(ReadName(reader, "function",
                                "avg, min, max, sum, last, count, rate or increase",
                                metrics::FunctionFromName, &rule.function));
  TAKT_RETURN_IF_ERROR(ReadName(reader, "aggregate", "none, sum, avg, min or max",
                                metrics::AggregationFromName, &rule.aggregation));
  reader.Read("by", &rule.by);
  reader.Read("divided_by", &rule.divide_by);
  TAKT_RETURN_IF_ERROR(ReadMatchers(reader, "divided_by_match", &rule.divide_matchers));
  reader.Read("above", &rule.above);
  reader.Read("threshold", &rule.threshold);
  reader.Read("window_seconds", &window);
  reader.Read("for_seconds", &for_seconds);
  TAKT_RETURN_IF_ERROR(ReadName(reader, "severity", "info, warning or critical",
                                operate::SeverityFromName, &rule.severity));
  reader.Read("summary", &rule.summary);
  reader.Read("summary_zh", &rule.summary_zh);
  reader.Read("enabled", &rule.enabled);
  TAKT_RETURN_IF_ERROR(reader.Done());
  rule.window = std::chrono::seconds(window);
  rule.for_at_least = std::chrono::seconds(for_seconds);
  return rule;
}

Result TestRule(const operate::Alerts& alerts, Call& call) {
  TAKT_ASSIGN_OR_RETURN(const operate::AlertRule rule, ReadRule(alerts, call));
  TAKT_ASSIGN_OR_RETURN(const auto readings, alerts.Try(rule));
  std::string text;
  JsonWriter w(&text);
  w.BeginObject().Key("rule");
  WriteRule(w, rule, "");
  w.Key("readings").BeginArray();
  for (const operate::Reading& reading : readings) {
    w.BeginObject();
    WriteLabels(w, reading.labels);
    w.Field("value", reading.value)  // null: unknown
        .Field("holds", rule.Holds(reading.value))
        .EndObject();
  }
  w.EndArray().EndObject();
  return Reply::Json(std::move(text));
}

// ---- Receivers ----

Result GetReceivers(const operate::Receivers& receivers) {
  std::string body;
  JsonWriter w(&body);
  w.BeginObject().Key("receivers").BeginArray();
  for (const auto& [r, state] : receivers.List()) {
    w.BeginObject()
        .Field("name", r.name)
        .Field("kind", operate::KindName(r.kind))
        .Field("url", operate::ShownUrl(r.url))
        .Field("secret_set", !r.secret.empty())
        .Field("server", r.mail.server)
        .Field("security", operate::SecurityName(r.mail.security))
        .Field("user", r.mail.user)
        .Field("password_set", !r.mail.password.empty())
        .Field("from", r.mail.from)
        .Field("to", r.mail.to)
        .Field("ca_file", r.mail.ca_file)
        .Field("language", r.language == operate::Language::kChinese ? "zh" : "en")
        .Field("least_severity", operate::SeverityName(r.least_severity))
        .Field("send_resolved", r.send_resolved)
        .Field("enabled", r.enabled)
        .Field("fixed", r.fixed)
        .Field("waiting", state.waiting)
        .Field("delivered", state.delivered)
        .Field("given_up", state.given_up)
        .Field("last_error", state.last_error)
        .EndObject();
  }
  w.EndArray().EndObject();
  return Reply::Json(std::move(body));
}

std::optional<operate::Language> LanguageFromName(std::string_view name) {
  if (name == "en") return operate::Language::kEnglish;
  if (name == "zh") return operate::Language::kChinese;
  return std::nullopt;
}

// The receiver `name` with what the body changes. Secrets that are left out stay, unless what they
// are for goes to another place: nobody gets a password by giving his own address.
absl::StatusOr<operate::Receiver> ReadReceiver(const operate::Receivers& receivers, Call& call) {
  TAKT_ASSIGN_OR_RETURN(const nlohmann::json body, ParseJsonObject(call.request().body));
  const auto before = receivers.Get(call.path(0));
  operate::Receiver r = before.value_or(operate::Receiver{.name = call.path(0)});
  ObjectReader reader(body);
  if (!before) reader.Require("kind");
  TAKT_RETURN_IF_ERROR(
      ReadName(reader, "kind", "alertmanager, dingtalk or email", operate::KindFromName, &r.kind));
  reader.Read("url", &r.url);
  reader.Read("secret", &r.secret);
  reader.Read("server", &r.mail.server);
  TAKT_RETURN_IF_ERROR(ReadName(reader, "security", "none, starttls or tls",
                                operate::SecurityFromName, &r.mail.security));
  reader.Read("user", &r.mail.user);
  reader.Read("password", &r.mail.password);
  reader.Read("from", &r.mail.from);
  reader.Read("to", &r.mail.to);
  reader.Read("ca_file", &r.mail.ca_file);
  TAKT_RETURN_IF_ERROR(ReadName(reader, "language", "en or zh", LanguageFromName, &r.language));
  TAKT_RETURN_IF_ERROR(ReadName(reader, "least_severity", "info, warning or critical",
                                operate::SeverityFromName, &r.least_severity));
  reader.Read("send_resolved", &r.send_resolved);
  reader.Read("enabled", &r.enabled);
  TAKT_RETURN_IF_ERROR(reader.Done());
  if (before) {
    if (r.url == operate::ShownUrl(before->url)) r.url = before->url;  // sent back as it was shown
    const bool moved = r.mail.server != before->mail.server ||
                       r.mail.security != before->mail.security ||
                       r.mail.ca_file != before->mail.ca_file;
    if (moved && !r.mail.password.empty() && !reader.Has("password")) {
      return absl::InvalidArgumentError(
          "password: expected again, since the server, its security or its CA changes");
    }
  }
  return r;
}

}  // namespace

void AddAlertRoutes(Router& router, operate::Alerts& alerts, operate::Receivers& receivers,
                    Workers& workers, const Clock& clock) {
  router.Add("GET", "/alerts", {}, [&](Call&) { return GetAlerts(alerts); });
  router.Add("POST", "/alerts/silences", {},
             [&](Call& call) { return PostSilence(alerts, clock, call); });
  router.Add("DELETE", "/alerts/silences/{id}", {}, [&](Call& call) -> Result {
    TAKT_RETURN_IF_ERROR(alerts.RemoveSilence(call.path(0)));
    return GetAlerts(alerts);
  });
  router.Add("PUT", "/alerts/rules/{name}", {}, [&](Call& call) -> Result {
    TAKT_ASSIGN_OR_RETURN(operate::AlertRule rule, ReadRule(alerts, call));
    TAKT_RETURN_IF_ERROR(alerts.PutRule(std::move(rule)));
    return GetAlerts(alerts);
  });
  router.Add("POST", "/alerts/rules/{name}/test", {},
             [&](Call& call) { return TestRule(alerts, call); });
  router.Add("DELETE", "/alerts/rules/{name}", {}, [&](Call& call) -> Result {
    TAKT_RETURN_IF_ERROR(alerts.RemoveRule(call.path(0)));
    return GetAlerts(alerts);
  });
  router.Add("GET", "/alerts/receivers", {}, [&](Call&) { return GetReceivers(receivers); });
  router.Add("PUT", "/alerts/receivers/{name}", {}, [&](Call& call) -> Result {
    TAKT_ASSIGN_OR_RETURN(operate::Receiver receiver, ReadReceiver(receivers, call));
    TAKT_RETURN_IF_ERROR(receivers.Put(std::move(receiver)));
    return GetReceivers(receivers);
  });
  router.Add("DELETE", "/alerts/receivers/{name}", {}, [&](Call& call) -> Result {
    TAKT_RETURN_IF_ERROR(receivers.Remove(call.path(0)));
    return GetReceivers(receivers);
  });
  router.Add("POST", "/alerts/receivers/{name}/test", {}, [&](Call& call) -> Result {
    TAKT_ASSIGN_OR_RETURN(operate::Receiver receiver, ReadReceiver(receivers, call));
    return workers.Answer(call, [&receivers, receiver = std::move(receiver)]() -> Result {
      TAKT_RETURN_IF_ERROR(receivers.Test(receiver));
      return Reply::Json(R"({"delivered":true})");
    });
  });
}

}  // namespace takt::api
