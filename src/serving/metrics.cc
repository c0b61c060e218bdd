#include "serving/metrics.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <map>
#include <tuple>
#include <unordered_map>

#include "absl/strings/str_format.h"

namespace takt::serving {
namespace {

constexpr std::size_t kBuckets = 33;

// Upper bounds in microseconds: TensorFlow Serving's, 10 * 1.8^i.
const std::array<double, kBuckets>& Bounds() {
  static const std::array<double, kBuckets> bounds = [] {
    std::array<double, kBuckets> made{};
    double bound = 10;
    for (double& b : made) {
      b = bound;
      bound *= 1.8;
    }
    return made;
  }();
  return bounds;
}

struct Histogram {
  std::array<std::uint64_t, kBuckets + 1> counts{};
  std::uint64_t count = 0;
  double sum = 0;

  void Add(double micros) {
    const auto& bounds = Bounds();
    ++counts[static_cast<std::size_t>(std::upper_bound(bounds.begin(), bounds.end(), micros) -
                                      bounds.begin())];
    ++count;
    sum += micros;
  }
  void Merge(const Histogram& other) {
    for (std::size_t i = 0; i < counts.size(); ++i) counts[i] += other.counts[i];
    count += other.count;
    sum += other.sum;
  }
};

double Micros(std::chrono::nanoseconds d) {
  return std::max(0.0, static_cast<double>(d.count()) / 1e3);
}

// Label values: backslash, quote and line feed escaped.
std::string Escaped(std::string_view value) {
  std::string out;
  for (const char c : value) {
    if (c == '\\' || c == '"') out.push_back('\\');
    if (c == '\n') {
      out.append("\\n");
    } else {
      out.push_back(c);
    }
  }
  return out;
}

void AppendHistogram(std::string_view name, std::string_view labels, const Histogram& histogram,
                     double scale, std::string* out) {
  std::uint64_t cumulative = 0;
  for (std::size_t i = 0; i <= kBuckets; ++i) {
    cumulative += histogram.counts[i];
    absl::StrAppend(out, ToAbsl(name), "_bucket{", ToAbsl(labels), ",le=\"");
    if (i == kBuckets) {
      out->append("+Inf");
    } else {
      absl::StrAppendFormat(out, "%.6g", Bounds()[i] * scale);
    }
    absl::StrAppend(out, "\"} ", cumulative, "\n");
  }
  absl::StrAppend(out, ToAbsl(name), "_sum{", ToAbsl(labels), "} ");
  absl::StrAppendFormat(out, "%.9g\n", histogram.sum * scale);
  absl::StrAppend(out, ToAbsl(name), "_count{", ToAbsl(labels), "} ", histogram.count, "\n");
}

// What one series is about.
struct Key {
  std::string model;
  std::int64_t version = 0;
  std::string signature;
  std::string api;
  std::string entrypoint;
  absl::StatusCode code = absl::StatusCode::kOk;

  bool Matches(const RequestSample& s) const {
    return version == s.version && code == s.code && model == s.model && signature == s.signature &&
           api == s.api && entrypoint == s.entrypoint;
  }
};

std::size_t HashOf(const RequestSample& s) {
  const std::hash<std::string_view> hash;
  std::size_t h = hash(s.model);
  for (const std::size_t part :
       {hash(s.signature), hash(s.api), hash(s.entrypoint), static_cast<std::size_t>(s.version),
        static_cast<std::size_t>(s.code)}) {
    h = h * 0x9e3779b97f4a7c15u + part;
  }
  return h;
}

struct Series {
  Key key;
  Histogram latency;
  Histogram queue;
  Histogram compute;
};

std::atomic<std::uint64_t> next_metrics_id{1};

}  // namespace

struct Metrics::Shard {
  std::mutex mutex;  // the owning thread's, and a scrape's
  std::unordered_multimap<std::size_t, std::unique_ptr<Series>> series;
  std::size_t unknown_series = 0;
  Series* last = nullptr;

  Series* Find(const RequestSample& sample) {
    if (last != nullptr && last->key.Matches(sample)) return last;
    const std::size_t hash = HashOf(sample);
    const auto [begin, end] = series.equal_range(hash);
    for (auto it = begin; it != end; ++it) {
      if (it->second->key.Matches(sample)) return last = it->second.get();
    }
    const bool unknown = sample.version == 0;
    if ((series.size() >= kMaxMetricSeries ||
         (unknown && unknown_series >= kMaxUnknownMetricSeries)) &&
        sample.model != "other") {
      RequestSample other = sample;
      other.model = "other";
      other.signature = "";
      other.version = 0;
      return Find(other);
    }
    if (unknown) ++unknown_series;
    auto made = std::make_unique<Series>();
    made->key = {std::string(sample.model),      sample.version,
                 std::string(sample.signature),  std::string(sample.api),
                 std::string(sample.entrypoint), sample.code};
    return last = series.emplace(hash, std::move(made))->second.get();
  }
};

struct Metrics::LoadSeries {
  std::map<std::pair<std::string, absl::StatusCode>, Histogram> by_model;
};

Metrics::Metrics() : id_(next_metrics_id.fetch_add(1)), loads_(std::make_unique<LoadSeries>()) {}
Metrics::~Metrics() = default;

Metrics::Shard& Metrics::MyShard() {
  thread_local std::uint64_t owner = 0;
  thread_local std::shared_ptr<Shard> shard;
  if (owner != id_) {
    shard = std::make_shared<Shard>();
    owner = id_;
    const std::lock_guard lock(mutex_);
    shards_.push_back(shard);
  }
  return *shard;
}

void Metrics::Record(const RequestSample& sample) {
  Shard& shard = MyShard();
  const std::lock_guard lock(shard.mutex);
  Series* series = shard.Find(sample);
  series->latency.Add(Micros(sample.latency));
  series->queue.Add(Micros(sample.queue));
  series->compute.Add(Micros(sample.latency - sample.queue));
}

void Metrics::RecordLoad(std::string_view model, const absl::Status& status,
                         std::chrono::nanoseconds took) {
  const std::lock_guard lock(mutex_);
  loads_->by_model[{std::string(model), status.code()}].Add(Micros(took));
}

void Metrics::AddGauge(Gauge gauge) {
  const std::lock_guard lock(mutex_);
  gauges_.push_back(std::move(gauge));
}

std::string Metrics::Expose() const {
  // Merged over shards. Keys are ordered, so that one scrape reads like the next.
  using FullKey = std::tuple<std::string, std::int64_t, std::string, std::string, std::string,
                             absl::StatusCode>;
  struct Merged {
    Histogram latency;
    Histogram queue;
    Histogram compute;
  };
  std::map<FullKey, Merged> all;
  std::vector<std::shared_ptr<Shard>> shards;
  std::vector<Gauge> gauges;
  std::map<std::pair<std::string, absl::StatusCode>, Histogram> loads;
  {
    const std::lock_guard lock(mutex_);
    shards = shards_;
    gauges = gauges_;
    loads = loads_->by_model;
  }
  for (const auto& shard : shards) {
    const std::lock_guard lock(shard->mutex);
    for (const auto& [hash, series] : shard->series) {
      const Key& key = series->key;
      Merged& merged =
          all[{key.model, key.version, key.signature, key.api, key.entrypoint, key.code}];
      merged.latency.Merge(series->latency);
      merged.queue.Merge(series->queue);
      merged.compute.Merge(series->compute);
    }
  }

  std::string out;
  std::map<std::pair<std::string, absl::StatusCode>, std::uint64_t> counts;
  std::map<std::tuple<std::string, std::string, std::string>, Histogram> latencies;
  std::map<std::pair<std::string, std::string>, Histogram> runtimes;
  for (const auto& [key, merged] : all) {
    const auto& [model, version, signature, api, entrypoint, code] = key;
    counts[{model, code}] += merged.latency.count;
    latencies[{model, api, entrypoint}].Merge(merged.latency);
    runtimes[{model, api}].Merge(merged.compute);
  }
  out.append("# TYPE :tensorflow:serving:request_count counter\n");
  for (const auto& [key, count] : counts) {
    absl::StrAppend(&out, ":tensorflow:serving:request_count{model_name=\"", Escaped(key.first),
                    "\",status=\"", ToAbsl(CodeName(key.second)), "\"} ", count, "\n");
  }
  out.append("# TYPE :tensorflow:serving:request_latency histogram\n");
  for (const auto& [key, histogram] : latencies) {
    const auto& [model, api, entrypoint] = key;
    AppendHistogram(":tensorflow:serving:request_latency",
                    StrCat("model_name=\"", Escaped(model), "\",API=\"", api, "\",entrypoint=\"",
                           entrypoint, "\""),
                    histogram, 1, &out);
  }
  out.append("# TYPE :tensorflow:serving:runtime_latency histogram\n");
  for (const auto& [key, histogram] : runtimes) {
    AppendHistogram(
        ":tensorflow:serving:runtime_latency",
        StrCat("model_name=\"", Escaped(key.first), "\",API=\"", key.second, "\",runtime=\"TF1\""),
        histogram, 1, &out);
  }
  out.append("# TYPE :tensorflow:cc:saved_model:load_attempt_count counter\n");
  for (const auto& [key, histogram] : loads) {
    absl::StrAppend(&out, ":tensorflow:cc:saved_model:load_attempt_count{model_path=\"",
                    Escaped(key.first), "\",status=\"",
                    key.second == absl::StatusCode::kOk ? "success" : "fail", "\"} ",
                    histogram.count, "\n");
  }

  out.append(
      "# HELP takt_serving_requests_total Requests answered, by version and signature.\n"
      "# TYPE takt_serving_requests_total counter\n");
  const auto labels_of = [](const FullKey& key) {
    const auto& [model, version, signature, api, entrypoint, code] = key;
    return StrCat("model=\"", Escaped(model), "\",version=\"", version, "\",signature=\"",
                  Escaped(signature), "\",api=\"", api, "\",entrypoint=\"", entrypoint,
                  "\",code=\"", CodeName(code), "\"");
  };
  for (const auto& [key, merged] : all) {
    absl::StrAppend(&out, "takt_serving_requests_total{", labels_of(key), "} ",
                    merged.latency.count, "\n");
  }
  const struct {
    const char* name;
    const char* help;
    Histogram Merged::*histogram;
  } kHistograms[] = {
      {"takt_serving_request_seconds", "From a request's last byte to its answer.",
       &Merged::latency},
      {"takt_serving_queue_seconds", "Of it, waiting for a run.", &Merged::queue},
      {"takt_serving_compute_seconds", "Of it, everything but waiting.", &Merged::compute},
  };
  for (const auto& row : kHistograms) {
    absl::StrAppend(&out, "# HELP ", row.name, " ", row.help, "\n# TYPE ", row.name,
                    " histogram\n");
    for (const auto& [key, merged] : all) {
      AppendHistogram(row.name, labels_of(key), merged.*row.histogram, 1e-6, &out);
    }
  }
  out.append(
      "# HELP takt_serving_load_seconds Loading a version, warm-up included.\n"
      "# TYPE takt_serving_load_seconds histogram\n");
  for (const auto& [key, histogram] : loads) {
    AppendHistogram(
        "takt_serving_load_seconds",
        StrCat("model=\"", Escaped(key.first), "\",code=\"", CodeName(key.second), "\""), histogram,
        1e-6, &out);
  }
  for (const Gauge& gauge : gauges) {
    absl::StrAppend(&out, "# HELP ", gauge.name, " ", gauge.help, "\n# TYPE ", gauge.name, " ",
                    gauge.type, "\n");
    for (const auto& [labels, value] : gauge.read()) {
      absl::StrAppend(&out, gauge.name, labels.empty() ? "" : "{", labels,
                      labels.empty() ? "" : "}", " ");
      absl::StrAppendFormat(&out, "%.17g\n", value);
    }
  }
  return out;
}

}  // namespace takt::serving
