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

absl::StatusOr<double> QueryNumber(const Call& call, std::string_view name, double fallback) {
  if (!call.HasQuery(name)) return fallback;
  double value = 0;
  if (!absl::SimpleAtod(ToAbsl(call.Query(name)), &value) || !std::isfinite(value)) {
    return absl::InvalidArgumentError(
        ToAbsl(StrCat("query parameter ", name, ": expected a number, got ", call.Query(name))));
  }
  return value;
}

// ---- Metrics ----

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

// ---- Learning ----

// What from and to say, or the run that run=N names.
absl::StatusOr<learning::Window> QueryWindow(const Call& call, operate::Runs& runs) {
  learning::Window window;
  if (call.HasQuery("run")) {
    if (call.HasQuery("from") || call.HasQuery("to")) {
      return absl::InvalidArgumentError("query parameters: expected run, or from and to, got both");
    }
    TAKT_ASSIGN_OR_RETURN(const std::int64_t number, call.QueryInt("run", 0, 1, INT32_MAX));
    TAKT_ASSIGN_OR_RETURN(const operate::Run run, runs.Get(call.path(0), static_cast<int>(number)));
    return run.window();
  }
  if (call.HasQuery("from")) {
    TAKT_ASSIGN_OR_RETURN(const std::int64_t from_us, QueryTimeUs(call, "from", 0));
    window.from = static_cast<double>(from_us) / 1e6;
  }
  if (call.HasQuery("to")) {
    TAKT_ASSIGN_OR_RETURN(const std::int64_t to_us, QueryTimeUs(call, "to", 0));
    window.to = static_cast<double>(to_us) / 1e6;
  }
  return window;
}

Result ListLearning(learning::LearningStore& store, operate::Runs& runs, Workers& workers,
                    Call& call) {
  TAKT_ASSIGN_OR_RETURN(const learning::Window window, QueryWindow(call, runs));
  return workers.Answer(call, [&store, window, app = call.path(0)]() -> Result {
    TAKT_ASSIGN_OR_RETURN(const auto list, store.List(app, window));
    TAKT_ASSIGN_OR_RETURN(const auto parameters, store.Hyperparameters(app, window));
    TAKT_ASSIGN_OR_RETURN(const learning::Statistics stats, store.Stats(app, window));
    std::string body;
    JsonWriter w(&body);
    w.BeginObject().Key("series").BeginArray();
    for (const learning::SeriesInfo& s : list) {
      w.BeginObject()
          .Field("service", s.service)
          .Field("writer", s.writer)
          .Field("tag", s.tag)
          .Field("kind", learning::KindName(s.kind))
          .Field("count", s.count)
          .Field("last_step", s.last_step)
          .Field("last_time", Rfc3339FromSeconds(s.last_wall_time));
      w.Key("last_value");
      if (s.kind == learning::Kind::kScalar) {
        WriteNumber(w, s.last_value);
      } else {
        w.Null();
      }
      w.Field("min", s.min).Field("max", s.max).EndObject();
    }
    w.EndArray().Key("hyperparameters").BeginObject();
    for (const auto& [name, value] : parameters) w.Field(name, value);
    w.EndObject()
        .Field("corrupt_records", stats.corrupt_records)
        .Field("skipped_values", stats.skipped_values)
        .Field("unknown_plugins", stats.unknown_plugins)
        .EndObject();
    return Reply::Json(std::move(body));
  });
}

Result GetCurve(learning::LearningStore& store, operate::Runs& runs, Workers& workers, Call& call) {
  TAKT_ASSIGN_OR_RETURN(const learning::Window window, QueryWindow(call, runs));
  TAKT_ASSIGN_OR_RETURN(const std::int64_t points,
                        call.QueryInt("points", static_cast<std::int64_t>(kMaxCurvePoints), 4,
                                      static_cast<std::int64_t>(kMaxCurvePoints)));
  TAKT_ASSIGN_OR_RETURN(const double smoothing, QueryNumber(call, "smoothing", 0));
  TAKT_ASSIGN_OR_RETURN(const std::int64_t from_step,
                        call.QueryInt("from_step", INT64_MIN, INT64_MIN, INT64_MAX));
  TAKT_ASSIGN_OR_RETURN(const std::int64_t to_step,
                        call.QueryInt("to_step", INT64_MAX, INT64_MIN, INT64_MAX));
  if (smoothing < 0 || smoothing >= 1) {
    return absl::InvalidArgumentError("query parameter smoothing: expected 0 up to below 1");
  }
  return workers.Answer(
      call,
      [&store, window, points, smoothing, from_step, to_step, app = call.path(0),
       service = std::string(call.Query("service")), writer = std::string(call.Query("writer")),
       tag = std::string(call.Query("tag"))]() -> Result {
        TAKT_ASSIGN_OR_RETURN(auto curve, store.Curve(app, service, writer, tag, window));
        const auto smoothed =
            smoothing > 0 ? learning::Smooth(curve, smoothing) : std::vector<double>();
        std::vector<std::size_t> kept;  // within the steps asked for
        if (from_step != INT64_MIN || to_step != INT64_MAX) {
          std::vector<learning::Point> part;
          for (std::size_t i = 0; i < curve.size(); ++i) {
            if (curve[i].step < from_step || curve[i].step > to_step) continue;
            part.push_back(curve[i]);
            kept.push_back(i);
          }
          curve = std::move(part);
        }
        const auto chosen = learning::Choose(curve, static_cast<std::size_t>(points));
        std::string body;
        JsonWriter w(&body);
        w.BeginObject().Field("count", curve.size()).Key("steps").BeginArray();
        for (const std::size_t i : chosen) w.Value(curve[i].step);
        w.EndArray().Key("times").BeginArray();
        for (const std::size_t i : chosen) w.Value(std::llround(curve[i].wall_time * 1000));
        w.EndArray().Key("values").BeginArray();
        for (const std::size_t i : chosen) WriteNumber(w, curve[i].value);
        w.EndArray().Key("smoothed").BeginArray();
        if (!smoothed.empty()) {
          for (const std::size_t i : chosen) WriteNumber(w, smoothed[kept.empty() ? i : kept[i]]);
        }
        w.EndArray().EndObject();
        return Reply::Json(std::move(body));
      });
}

}  // namespace

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

void AddMetricRoutes(Router& router, metrics::MetricStore& store, Workers& workers) {
  router.Add("GET", "/metrics", {}, [&](Call&) { return ListMetrics(store); });
  router.Add("GET", "/metrics/newest", {"name", "match", "max_age_ms"},
             [&](Call& call) { return NewestMetrics(store, call); });
  router.Add("GET", "/metrics/query",
             {"name", "match", "from", "to", "step_ms", "function", "aggregate", "by", "quantile"},
             [&](Call& call) { return QueryMetrics(store, workers, call); });
}

void AddLearningRoutes(Router& router, learning::LearningStore& store, operate::Runs& runs,
                       Workers& workers) {
  router.Add("GET", "/apps/{name}/learning", {"from", "to", "run"},
             [&](Call& call) { return ListLearning(store, runs, workers, call); });
  router.Add("GET", "/apps/{name}/learning/curve",
             {"service", "writer", "tag", "from", "to", "run", "from_step", "to_step", "points",
              "smoothing"},
             [&](Call& call) { return GetCurve(store, runs, workers, call); });
}

}  // namespace takt::api
