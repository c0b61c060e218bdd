#include "api/operate.h"

#include <cmath>
#include <cstring>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "api/convert.h"
#include "api/errors.h"
#include "api/json_writer.h"

namespace takt::api {
namespace {

using Result = absl::StatusOr<Reply>;

Result QueryMetrics(metrics::MetricStore& store, Workers& workers, Call& call) {
  metrics::Question q;
  q.name = std::string(call.Query("name"));
  if (q.name.empty()) return absl::InvalidArgumentError("query parameter name: expected a metric");
  TAKT_ASSIGN_OR_RETURN(q.matchers, metrics::ParseMatchers(call.Query("match")));
  TAKT_ASSIGN_OR_RETURN(const std::int64_t from_us, QueryTimeUs(call, "from", 0));
  TAKT_ASSIGN_OR_RETURN(const std::int64_t to_us, QueryTimeUs(call, "to", 0));
  if (!call.HasQuery("from") || !call.HasQuery("to")) {
    return absl::InvalidArgumentError("query parameters from and to: expected both");
  }
  q.from_ms = from_us / 1000;
  q.to_ms = to_us / 1000;
  TAKT_ASSIGN_OR_RETURN(q.step_ms, call.QueryInt("step_ms", 0, 0, 31LL * 86'400'000));
  if (call.HasQuery("function")) {
    const auto function = metrics::FunctionFromName(call.Query("function"));
    if (!function) {
      return absl::InvalidArgumentError(ToAbsl(
          StrCat("query parameter function: expected avg, min, max, sum, last, count, rate or "
                 "increase, got ",
                 call.Query("function"))));
    }
    q.function = *function;
  }
  if (call.HasQuery("aggregate")) {
    const auto aggregation = metrics::AggregationFromName(call.Query("aggregate"));
    if (!aggregation) {
      return absl::InvalidArgumentError(
          ToAbsl(StrCat("query parameter aggregate: expected none, sum, avg, min or max, got ",
                        call.Query("aggregate"))));
    }
    q.aggregation = *aggregation;
  }
  if (call.HasQuery("by")) q.by = absl::StrSplit(ToAbsl(call.Query("by")), ',');
  if (call.HasQuery("quantile")) {
    TAKT_ASSIGN_OR_RETURN(q.quantile, QueryNumber(call, "quantile", 0));
  }
  q.divide_by = std::string(call.Query("divided_by"));
  TAKT_ASSIGN_OR_RETURN(q.divide_matchers, metrics::ParseMatchers(call.Query("divided_by_match")));
  if (q.divide_by.empty() && !q.divide_matchers.empty()) {
    return absl::InvalidArgumentError(
        "query parameter divided_by_match: expected together with divided_by only");
  }
  return workers.Answer(call, [&store, q]() -> Result {
    TAKT_ASSIGN_OR_RETURN(const metrics::Answer answer, store.Ask(q));
    std::string body;
    JsonWriter w(&body);
    w.BeginObject()
        .Field("from", Rfc3339FromUs(answer.from_ms * 1000))
        .Field("step_ms", answer.step_ms)
        .Key("series")
        .BeginArray();
    for (const metrics::AnswerSeries& series : answer.series) {
      w.BeginObject();
      WriteLabels(w, series.labels);
      w.Field("values", series.values).EndObject();
    }
    w.EndArray().EndObject();
    return Reply::Json(std::move(body));
  });
}

Result ListMetrics(metrics::MetricStore& store) {
  const metrics::MetricStats stats = store.Stats();
  std::string body;
  JsonWriter w(&body);
  w.BeginObject().Key("metrics").BeginArray();
  for (const auto& [name, type] : store.Names()) {
    w.BeginObject()
        .Field("name", name)
        .Field("type", type == metrics::Type::kCounter ? "counter" : "gauge")
        .EndObject();
  }
  w.EndArray()
      .Field("series", stats.series)
      .Field("disk_bytes", stats.disk_bytes)
      .Field("refused_series", stats.refused_series)
      .EndObject();
  return Reply::Json(std::move(body));
}

Result NewestMetrics(metrics::MetricStore& store, Call& call) {
  TAKT_ASSIGN_OR_RETURN(const auto matchers, metrics::ParseMatchers(call.Query("match")));
  TAKT_ASSIGN_OR_RETURN(const std::int64_t max_age_ms,
                        call.QueryInt("max_age_ms", 30'000, 1, 86'400'000));
  std::string body;
  JsonWriter w(&body);
  w.BeginObject().Key("series").BeginArray();
  for (const auto& latest : store.Newest(std::string(call.Query("name")), matchers, max_age_ms)) {
    w.BeginObject();
    WriteLabels(w, latest.labels);
    w.Field("time", Rfc3339FromUs(latest.sample.time_ms * 1000))
        .Field("value", latest.sample.value)
        .EndObject();
  }
  w.EndArray().EndObject();
  return Reply::Json(std::move(body));
}

}  // namespace

void AddMetricRoutes(Router& router, metrics::MetricStore& store, Workers& workers) {
  router.Add("GET", "/metrics", {}, [&](Call&) { return ListMetrics(store); });
  router.Add("GET", "/metrics/newest", {"name", "match", "max_age_ms"},
             [&](Call& call) { return NewestMetrics(store, call); });
  router.Add("GET", "/metrics/query",
             {"name", "match", "from", "to", "step_ms", "function", "aggregate", "by", "quantile",
              "divided_by", "divided_by_match"},
             [&](Call& call) { return QueryMetrics(store, workers, call); });
}

}  // namespace takt::api
