#include "api/learning.h"

#include <cmath>
#include <cstring>

#include "api/convert.h"
#include "api/json_writer.h"

namespace takt::api {
namespace {

using Result = absl::StatusOr<Reply>;

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

// Which series a question is about.
struct Asked {
  std::string app, service, writer, tag;
  learning::Window window;
};

absl::StatusOr<Asked> AskedOf(const Call& call, operate::Runs& runs) {
  Asked asked{call.path(0),
              std::string(call.Query("service")),
              std::string(call.Query("writer")),
              std::string(call.Query("tag")),
              {}};
  TAKT_ASSIGN_OR_RETURN(asked.window, QueryWindow(call, runs));
  return asked;
}

// The type of an encoded image by its first bytes; "" where it is none that browsers draw.
std::string_view ImageType(std::string_view data) {
  using namespace std::string_view_literals;
  if (data.starts_with("\x89PNG\r\n\x1a\n"sv)) return "image/png";
  if (data.starts_with("\xff\xd8\xff"sv)) return "image/jpeg";
  if (data.starts_with("GIF87a"sv) || data.starts_with("GIF89a"sv)) return "image/gif";
  return "";
}

Result ListItems(learning::LearningStore& store, operate::Runs& runs, Workers& workers,
                 Call& call) {
  TAKT_ASSIGN_OR_RETURN(const Asked asked, AskedOf(call, runs));
  TAKT_ASSIGN_OR_RETURN(const std::int64_t limit,
                        call.QueryInt("limit", 50, 1, learning::kMaxItemsPerSeries));
  return workers.Answer(call, [&store, asked, limit]() -> Result {
    learning::ItemOptions options{.limit = static_cast<std::size_t>(limit), .data = false};
    TAKT_ASSIGN_OR_RETURN(auto items, store.Items(asked.app, asked.service, asked.writer, asked.tag,
                                                  asked.window, options));
    const bool image = !items.empty() && items[0].kind == learning::Kind::kImage;
    if (!image && !items.empty()) {
      options.data = true;
      TAKT_ASSIGN_OR_RETURN(items, store.Items(asked.app, asked.service, asked.writer, asked.tag,
                                               asked.window, options));
    }
    std::string body;
    JsonWriter w(&body);
    w.BeginObject().Key("items").BeginArray();
    for (const learning::Item& item : items) {
      w.BeginObject()
          .Field("step", item.step)
          .Field("time", Rfc3339FromSeconds(item.wall_time))
          .Field("kind", learning::KindName(item.kind))
          .Field("bytes", item.bytes);
      if (item.kind == learning::Kind::kText) w.Field("text", item.data);
      if (item.kind == learning::Kind::kHistogram) {
        w.Key("buckets").BeginArray();
        for (std::size_t at = 0; at + sizeof(double[3]) <= item.data.size();
             at += sizeof(double[3])) {
          double bucket[3];
          std::memcpy(bucket, item.data.data() + at, sizeof bucket);
          w.BeginArray();
          for (const double each : bucket) WriteNumber(w, each);
          w.EndArray();
        }
        w.EndArray();
      }
      w.EndObject();
    }
    w.EndArray().EndObject();
    return Reply::Json(std::move(body));
  });
}

Result GetImage(learning::LearningStore& store, operate::Runs& runs, Workers& workers, Call& call) {
  TAKT_ASSIGN_OR_RETURN(const Asked asked, AskedOf(call, runs));
  TAKT_ASSIGN_OR_RETURN(const std::int64_t step, call.QueryInt("step", 0, INT64_MIN, INT64_MAX));
  return workers.Answer(call, [&store, asked, step]() -> Result {
    TAKT_ASSIGN_OR_RETURN(auto items, store.Items(asked.app, asked.service, asked.writer, asked.tag,
                                                  asked.window, {.step = step}));
    if (items.empty() || items[0].kind != learning::Kind::kImage) {
      return absl::NotFoundError(StrCat("no image \"", asked.tag, "\" of step ", step));
    }
    const std::string_view type = ImageType(items[0].data);
    if (type.empty()) {
      return absl::UnimplementedError(
          StrCat("image \"", asked.tag, "\" of step ", step, " is neither PNG, JPEG nor GIF"));
    }
    Reply reply;
    reply.content_type = std::string(type);
    reply.body = std::move(items[0].data);
    // Whoever opens it by itself gets an image and nothing else.
    reply.headers = {{"Content-Security-Policy", "default-src 'none'; sandbox"},
                     {"X-Content-Type-Options", "nosniff"}};
    return reply;
  });
}

}  // namespace

void AddLearningRoutes(Router& router, learning::LearningStore& store, operate::Runs& runs,
                       Workers& workers) {
  router.Add("GET", "/apps/{name}/learning", {"from", "to", "run"},
             [&](Call& call) { return ListLearning(store, runs, workers, call); });
  router.Add("GET", "/apps/{name}/learning/curve",
             {"service", "writer", "tag", "from", "to", "run", "from_step", "to_step", "points",
              "smoothing"},
             [&](Call& call) { return GetCurve(store, runs, workers, call); });
  router.Add("GET", "/apps/{name}/learning/items",
             {"service", "writer", "tag", "from", "to", "run", "limit"},
             [&](Call& call) { return ListItems(store, runs, workers, call); });
  router.Add("GET", "/apps/{name}/learning/image",
             {"service", "writer", "tag", "from", "to", "run", "step"},
             [&](Call& call) { return GetImage(store, runs, workers, call); });
}

}  // namespace takt::api
