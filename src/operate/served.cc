#include "operate/served.h"

#include <algorithm>
#include <nlohmann/json.hpp>

#include "absl/strings/numbers.h"
#include "base/str.h"
#include "net/http_client.h"
#include "operate/models.h"

namespace takt::operate {
namespace {

constexpr double kAvailable = 30;  // of takt_serving_version_state
constexpr std::int64_t kGaugeAgeMs = 15'000;

std::string Listed(const Versions& versions) {
  std::string text;
  for (const std::int64_t version : versions) {
    text += StrCat(text.empty() ? "" : ", ", version);
  }
  return text;
}

// A name as one segment of a URL's path.
std::string Escaped(std::string_view name) {
  constexpr std::string_view kPlain =
      "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~";
  constexpr char kHex[] = "0123456789ABCDEF";
  std::string out;
  for (const char c : name) {
    if (kPlain.find(c) != std::string_view::npos) {
      out += c;
    } else {
      const auto byte = static_cast<unsigned char>(c);
      out += {'%', kHex[byte >> 4], kHex[byte & 15]};
    }
  }
  return out;
}

absl::StatusOr<Versions> Ask(const std::string& host, std::uint16_t port,
                             const std::string& model) {
  net::HttpClientOptions options;
  options.host = host;
  options.port = port;
  options.timeout = kServedTimeout;
  options.max_body_bytes = kMaxStatusBytes;
  TAKT_ASSIGN_OR_RETURN(
      const net::HttpReply reply,
      net::HttpClient(options).Call({.target = StrCat("/v1/models/", Escaped(model))}));
  // What a model server says of a model that has no version yet.
  if (reply.status == 404 && reply.body.find("versions of model") != std::string::npos) {
    return Versions();
  }
  if (reply.status != 200) return absl::UnavailableError(StrCat("HTTP ", reply.status));
  return ParseModelStatus(reply.body);
}

}  // namespace

absl::StatusOr<Versions> ParseModelStatus(std::string_view body) {
  const nlohmann::json json = nlohmann::json::parse(body, nullptr, false);
  const auto list = json.is_object() ? json.find("model_version_status") : json.end();
  if (!json.is_object() || list == json.end() || !list->is_array()) {
    return absl::InvalidArgumentError("expected the status of a model");
  }
  Versions versions;
  for (const nlohmann::json& each : *list) {
    if (!each.is_object()) continue;
    const auto state = each.find("state");
    const auto version = each.find("version");
    std::int64_t number = 0;
    if (state == each.end() || *state != "AVAILABLE" || version == each.end() ||
        !version->is_string() ||
        !absl::SimpleAtoi(version->get_ref<const std::string&>(), &number)) {
      continue;
    }
    versions.insert(number);
  }
  return versions;
}

std::vector<std::string> ServedChanges(const std::string& model, const Versions& before,
                                       const Versions& after) {
  Versions came;
  std::set_difference(after.begin(), after.end(), before.begin(), before.end(),
                      std::inserter(came, came.end()));
  const std::string name = StrCat("model \"", model, "\": ");
  if (!came.empty()) {
    return {StrCat(name, came.size() == 1 ? "version " : "versions ", Listed(came),
                   came.size() == 1 ? " serves now" : " serve now",
                   before.empty() ? std::string() : StrCat(", before it ", Listed(before)))};
  }
  if (after.empty() && !before.empty()) return {StrCat(name, "no version serves any more")};
  return {};  // the older one has gone, as it was to
}

Served::Served(line::Line& line, storage::VolumeStore& volumes, metrics::MetricStore& metrics,
               const Clock& clock, Record record)
    : line_(line),
      volumes_(volumes),
      metrics_(metrics),
      clock_(clock),
      record_(std::move(record)),
      begun_(clock.Now()),
      thread_([this] { Run(); }) {}

Served::~Served() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

std::optional<Versions> Served::Of(const std::string& app, const std::string& service,
                                   const std::string& model) const {
  {
    const std::lock_guard lock(mutex_);
    const auto it = known_.find({app, service, model});
    if (it != known_.end()) return it->second;
  }
  using Op = metrics::Matcher::Op;
  const auto states = metrics_.Newest("takt_serving_version_state",
                                      {{.label = "app", .op = Op::kEqual, .value = app},
                                       {.label = "service", .op = Op::kEqual, .value = service},
                                       {.label = "model", .op = Op::kEqual, .value = model}},
                                      kGaugeAgeMs);
  if (states.empty()) return std::nullopt;
  Versions versions;
  for (const auto& state : states) {
    const auto version = std::find_if(state.labels.begin(), state.labels.end(),
                                      [](const auto& label) { return label.first == "version"; });
    std::int64_t number = 0;
    if (state.sample.value == kAvailable && version != state.labels.end() &&
        absl::SimpleAtoi(version->second, &number)) {
      versions.insert(number);
    }
  }
  return versions;
}

void Served::Look() {
  std::map<std::string, Instance> instances;
  std::map<Key, Versions> found;
  std::set<Key> old;  // served before this daemon looked: no news
  for (const line::App& app : line_.List()) {
    for (const line::ServiceView& service : app.services) {
      if (service.role != "serving") continue;
      std::vector<Loaded> models;
      for (const runtime::InstanceStatus& status : service.instances) {
        if (status.state != runtime::InstanceState::kRunning) continue;
        if (models.empty()) models = LoadedBy(service.spec, volumes_);
        Instance& instance = instances[status.id] = instances_[status.id];
        if (clock_.Steady() < instance.not_before) continue;
        bool answered = false;
        for (const Loaded& model : models) {
          const Key key{app.name, service.spec.name, model.served_as};
          for (const runtime::Endpoint& endpoint : status.endpoints) {
            if (endpoint.protocol != "tcp") continue;
            if (instance.port != 0 &&
                (instance.port != endpoint.port || instance.host != endpoint.host)) {
              continue;  // another one answers
            }
            const auto versions = Ask(endpoint.host, endpoint.port, model.served_as);
            if (!versions.ok()) continue;
            answered = true;
            instance.host = endpoint.host;
            instance.port = endpoint.port;
            found[key].insert(versions->begin(), versions->end());
            if (status.started < begun_) old.insert(key);
            break;
          }
        }
        if (answered) {
          instance.pause = {};
        } else {
          instance.port = 0;
          instance.pause = std::min<std::chrono::steady_clock::duration>(
              kMaxServedPause, 2 * instance.pause + kServedInterval);
          instance.not_before = clock_.Steady() + instance.pause;
        }
      }
    }
  }
  instances_.swap(instances);
  std::map<Key, Versions> before;
  {
    const std::lock_guard lock(mutex_);
    before.swap(known_);
    known_ = found;
  }
  for (const auto& [key, versions] : found) {
    const auto was = before.find(key);
    if (was == before.end() && old.contains(key)) continue;
    for (const std::string& message : ServedChanges(
             std::get<2>(key), was == before.end() ? Versions() : was->second, versions)) {
      record_(std::get<0>(key), message);
    }
  }
}

void Served::Run() {
  std::unique_lock lock(mutex_);
  while (!stop_) {
    lock.unlock();
    Look();
    lock.lock();
    wake_.wait_for(lock, kServedInterval, [this] { return stop_; });
  }
}

}  // namespace takt::operate
