#include "template/labels.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <utility>

#include "base/ids.h"
#include "base/str.h"
#include "base/text.h"

namespace takt::templates {
namespace {

using std::chrono::seconds;

std::vector<std::string_view> Split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (true) {
    const std::size_t at = text.find(separator);
    std::string_view part = text.substr(0, at);
    while (part.starts_with(' ')) part.remove_prefix(1);
    while (part.ends_with(' ')) part.remove_suffix(1);
    if (!part.empty()) parts.push_back(part);
    if (at == std::string_view::npos) return parts;
    text.remove_prefix(at + 1);
  }
}

std::optional<int> ParseInt(std::string_view text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (text.empty() || error != std::errc() || end != text.data() + text.size()) return {};
  return value;
}

std::optional<std::uint16_t> ParsePort(std::string_view text) {
  const auto port = ParseInt(text);
  if (!port || *port < 1 || *port > 65535) return std::nullopt;
  return static_cast<std::uint16_t>(*port);
}

struct Url {
  std::string_view scheme, host, port, path;
};

// scheme://host[:port][/path]
std::optional<Url> ParseUrl(std::string_view text) {
  Url url;
  const std::size_t scheme_end = text.find("://");
  if (scheme_end == std::string_view::npos || scheme_end == 0) return std::nullopt;
  url.scheme = text.substr(0, scheme_end);
  text.remove_prefix(scheme_end + 3);
  const std::size_t slash = text.find('/');
  if (slash != std::string_view::npos) url.path = text.substr(slash);
  text = text.substr(0, slash);
  const std::size_t colon = text.rfind(':');
  url.host = text.substr(0, colon);
  if (colon != std::string_view::npos) url.port = text.substr(colon + 1);
  if (url.host.empty() || url.host.find_first_of(" \t") != std::string_view::npos) {
    return std::nullopt;
  }
  return url;
}

class Labels {
 public:
  Labels(const Node& labels, std::string path, ServiceSpec& service,
         std::vector<FeatureUse>& features, Report& report)
      : labels_(labels),
        path_(std::move(path)),
        service_(service),
        features_(features),
        report_(report) {}

  void Apply() {
    for (const Entry& label : labels_.entries) {
      label_ = &label;
      if (label.key.starts_with("aliyun.") || label.key.starts_with("takt.")) ApplyOne();
    }
    ApplyTtls();
    ApplyProbe();
    CheckScaling();
  }

 private:
  struct Row {
    std::string_view name;  // ends with _ where the rest of the label is a name or port
    void (Labels::*apply)(std::string_view rest);
  };
  static constexpr std::size_t kRows = 38;
  static const std::array<Row, kRows>& Table();

  const std::string& value() const { return label_->value.text; }

  void Error(std::string_view expected, std::string suggestion = "") {
    report_.Error(label_->value.mark, StrCat(path_, ".", label_->key),
                  StrCat("expected ", expected, ", got ", label_->value.Describe()),
                  std::move(suggestion));
  }
  void Need(std::string_view feature) {
    features_.push_back({std::string(feature), StrCat(path_, ".", label_->key),
                         label_->value.mark.line, label_->value.mark.column});
  }

  void ApplyOne() {
    if (report_.full()) return;
    std::vector<std::string_view> names;
    for (const Row& row : Table()) {
      const bool prefix = row.name.ends_with('_');
      if (prefix ? label_->key.starts_with(row.name) : label_->key == row.name) {
        const std::string_view rest = std::string_view(label_->key).substr(row.name.size());
        if (prefix && !IsValidName(rest)) {
          report_.Error(label_->mark, StrCat(path_, ".", label_->key),
                        StrCat("expected a name after ", row.name, ", got \"", rest, "\""));
          return;
        }
        (this->*row.apply)(rest);
        return;
      }
      names.push_back(row.name);
    }
    const auto near = NearMiss(label_->key, names);
    const std::string suggestion = near ? StrCat("did you mean ", *near, "?") : "";
    const std::string path = StrCat(path_, ".", label_->key);
    if (label_->key.starts_with("takt.")) {
      report_.Error(label_->mark, path, StrCat("there is no label \"", label_->key, "\""),
                    suggestion);
    } else {
      report_.Warn(label_->mark, path,
                   StrCat("the label \"", label_->key, "\" is not known and has no effect"),
                   suggestion);
    }
  }

  std::optional<bool> Bool() {
    if (value() == "true") return true;
    if (value() == "false") return false;
    Error("true or false");
    return std::nullopt;
  }

  std::optional<int> Number(int minimum, int maximum) {
    const auto number = ParseInt(value());
    if (number && *number >= minimum && *number <= maximum) return number;
    Error(StrCat("a whole number from ", minimum, " to ", maximum));
    return std::nullopt;
  }

  // --- logs

  void LogStore(std::string_view name) {
    if (value() != "stdout" && !value().starts_with('/')) {
      Error("stdout, or the path of a log in the container, such as /var/log/*.log");
      return;
    }
    if (GivenTwice(stores_, name)) return;
    service_.log_stores.push_back({std::string(name), value(), kDefaultTtlDays});
  }
  void LogTtl(std::string_view name) {
    const auto days = Number(1, kMaxTtlDays);
    if (days && !GivenTwice(days_, name)) ttls_.emplace_back(name, *days, label_);
  }
  // An error where aliyun.log_... and takt.log_... speak of one name: neither could win in silence.
  bool GivenTwice(std::map<std::string, std::string, std::less<>>& given, std::string_view name) {
    const auto [first, added] = given.emplace(name, label_->key);
    if (added) return false;
    report_.Error(label_->mark, StrCat(path_, ".", label_->key),
                  StrCat("the label ", first->second, " says the same already: give one of them"));
    return true;
  }
  void ApplyTtls() {
    for (const auto& [name, days, label] : ttls_) {
      const auto store =
          std::find_if(service_.log_stores.begin(), service_.log_stores.end(),
                       [&, n = name](const auto& candidate) { return candidate.name == n; });
      if (store != service_.log_stores.end()) {
        store->ttl_days = days;
        continue;
      }
      std::vector<std::string_view> names;
      for (const auto& known : service_.log_stores) names.push_back(known.name);
      const auto near = NearMiss(name, names);
      const std::string family = label->key.substr(0, label->key.find('.') + 1);
      report_.Error(label->mark, StrCat(path_, ".", label->key),
                    StrCat("there is no label ", family, "log_store_", name),
                    near ? StrCat("did you mean ", family, "log_ttl_", *near, "?") : "");
    }
  }

  // --- how many, where, in which order

  void Scale(std::string_view) {
    if (const auto count = Number(0, kMaxScale)) {
      service_.replicas = *count;
      if (*count > 1) Need("replicas");
    }
  }
  void Global(std::string_view) {
    const auto global = Bool();
    if (!global) return;
    service_.one_per_node = *global;
    if (*global) Need("global");
  }
  void Depends(std::string_view) {
    for (const std::string_view name : Split(value(), ',')) {
      service_.depends_on.emplace(name, DependencyCondition::kStarted);
    }
  }
  void Gpu(std::string_view) {
    const auto count = Number(0, kMaxGpus);
    if (!count) return;
    service_.gpus = *count;
    if (*count > 0) Need("gpus");
  }

  // --- the ways in

  // [scheme://]domain-or-prefix[:port][/path], several with ; between.
  void Route(std::string_view port) {
    if (!ParsePort(port)) {
      report_.Error(
          label_->mark, StrCat(path_, ".", label_->key),
          StrCat("expected a port from 1 to 65535 after aliyun.routing.port_, got \"", port, "\""));
      return;
    }
    constexpr std::array<std::string_view, 4> kSchemes{"http", "https", "ws", "wss"};
    const auto routes = Split(value(), ';');
    for (const std::string_view route : routes) {
      const std::string text = route.find("://") == std::string_view::npos
                                   ? StrCat("http://", route)
                                   : std::string(route);
      const auto url = ParseUrl(text);
      if (!url || std::find(kSchemes.begin(), kSchemes.end(), url->scheme) == kSchemes.end() ||
          (!url->port.empty() && !ParsePort(url->port))) {
        Error("[http|https|ws|wss://]name[/path], several with ; between");
        return;
      }
    }
    if (routes.empty()) {
      Error("[http|https|ws|wss://]name[/path], several with ; between");
      return;
    }
    Need("routing");
  }
  void Sticky(std::string_view) {
    if (const auto sticky = Bool(); sticky && *sticky) Need("routing");
  }
  void Weight(std::string_view) {
    if (Number(0, 100)) Need("routing");
  }
  // tcp://name:frontPort: the machine's own port is the front.
  void LoadBalancer(std::string_view port) {
    const auto target = ParsePort(port);
    if (!target) {
      report_.Error(
          label_->mark, StrCat(path_, ".", label_->key),
          StrCat("expected a port from 1 to 65535 after aliyun.lb.port_, got \"", port, "\""));
      return;
    }
    constexpr std::array<std::string_view, 4> kSchemes{"tcp", "udp", "http", "https"};
    const auto url = ParseUrl(value());
    const auto front = url ? ParsePort(url->port) : std::nullopt;
    if (!front || std::find(kSchemes.begin(), kSchemes.end(), url->scheme) == kSchemes.end()) {
      Error("tcp|udp|http|https://name:port");
      return;
    }
    if (url->scheme == "https") Need("tls");
    Port published;
    published.published = *front;
    published.target = *target;
    published.protocol = url->scheme == "udp" ? "udp" : "tcp";
    if (std::find(service_.ports.begin(), service_.ports.end(), published) ==
        service_.ports.end()) {
      service_.ports.push_back(published);
    }
  }

  // --- health

  void ProbeUrl(std::string_view) {
    const auto url = ParseUrl(value());
    const bool http = url && url->scheme == "http";
    const bool tcp = url && url->scheme == "tcp" && ParsePort(url->port).has_value();
    if ((!http && !tcp) || (!url->port.empty() && !ParsePort(url->port))) {
      Error("http://container[:port][/path] or tcp://container:port");
      return;
    }
    probe_.kind = http ? HealthCheck::Kind::kHttp : HealthCheck::Kind::kTcp;
    probe_.url = http ? value() : StrCat(url->host, ":", url->port);
    probe_label_ = label_;
  }
  void ProbeCommand(std::string_view) {
    if (value().empty()) {
      Error("a command");
      return;
    }
    probe_.kind = HealthCheck::Kind::kShell;
    probe_.command = {value()};
    probe_label_ = label_;
  }
  void ProbeDelay(std::string_view) {
    if (const auto delay = Number(0, kMaxProbeSeconds)) probe_.start_period = seconds(*delay);
  }
  void ProbeTimeout(std::string_view) {
    if (const auto timeout = Number(1, kMaxProbeSeconds)) probe_.timeout = seconds(*timeout);
  }
  void ApplyProbe() {
    if (probe_label_ == nullptr) return;
    label_ = probe_label_;
    if (service_.health.kind != HealthCheck::Kind::kNone) {
      report_.Error(label_->mark, StrCat(path_, ".", label_->key),
                    "expected a healthcheck or a probe label, got both");
      return;
    }
    service_.health = probe_;
    Need("healthcheck");
  }

  // --- updates and scaling

  void RollingUpdates(std::string_view) {
    if (const auto rolling = Bool(); rolling && *rolling) Need("rolling_updates");
  }
  void Parallelism(std::string_view) {
    if (Number(1, kMaxScale)) Need("rolling_updates");
  }
  void LatestImage(std::string_view) { (void)Bool(); }
  // aliyun.auto_scaling.NAME or takt.auto_scaling.NAME
  std::string_view ScalingName() const {
    return std::string_view(label_->key).substr(label_->key.rfind('.') + 1);
  }
  AutoScaling& Scaling() {
    if (!service_.scaling) service_.scaling.emplace();
    scaling_label_ = label_;
    return *service_.scaling;
  }
  void AutoScalingPercent(std::string_view) {
    const auto percent = Number(0, 100);
    if (!percent) return;
    Need("auto_scaling");
    const std::string_view name = ScalingName();
    (name == "max_cpu"      ? Scaling().max_cpu
     : name == "min_cpu"    ? Scaling().min_cpu
     : name == "max_memory" ? Scaling().max_memory
                            : Scaling().min_memory) = *percent;
  }
  void AutoScalingCount(std::string_view) {
    const auto count = Number(1, kMaxScaledInstances);
    if (!count) return;
    Need("auto_scaling");
    const std::string_view name = ScalingName();
    (name == "step"            ? Scaling().step
     : name == "min_instances" ? Scaling().min_instances
                               : Scaling().max_instances) = *count;
  }
  // What its labels come to, taken together.
  void CheckScaling() {
    if (!service_.scaling) return;
    const AutoScaling& s = *service_.scaling;
    const auto error = [this](std::string message) {
      report_.Error(scaling_label_->mark, StrCat(path_, ".", scaling_label_->key),
                    std::move(message));
    };
    if (s.min_instances > s.max_instances) {
      error(StrCat("expected min_instances of at most max_instances, got ", s.min_instances,
                   " and ", s.max_instances));
    }
    for (const auto& [name, low, high] : {std::tuple("cpu", s.min_cpu, s.max_cpu),
                                          std::tuple("memory", s.min_memory, s.max_memory)}) {
      if (low && high && *low >= *high) {
        error(StrCat("expected min_", name, " below max_", name, ", got ", *low, " and ", *high));
      }
    }
    if (!s.max_cpu && !s.max_memory && !s.min_cpu && !s.min_memory) {
      error("expected at least one of max_cpu, min_cpu, max_memory, min_memory");
    }
    if (service_.one_per_node) error("expected scaling or one instance a node, got both");
  }

  // --- ours

  void Model(std::string_view) {
    const std::size_t equals = value().find('=');
    const std::string_view name = std::string_view(value()).substr(0, equals);
    const std::string_view directory =
        equals == std::string::npos ? "" : std::string_view(value()).substr(equals + 1);
    if (!IsValidName(name) || !directory.starts_with('/')) {
      Error("NAME=/DIRECTORY, such as mnist=/models/mnist");
      return;
    }
    service_.model = name;
    service_.model_path = directory;
  }
  void Serves(std::string_view) {
    if (!IsValidName(value())) {
      Error("the name of a model");
      return;
    }
    service_.serves = value();
  }
  void Metrics(std::string_view) {
    const std::size_t slash = value().find('/');
    if (!ParsePort(value().substr(0, slash))) Error("PORT or PORT/PATH, such as 8080/metrics");
  }
  void Learning(std::string_view) { Directory(&service_.learning); }
  void Checkpoint(std::string_view) { Directory(&service_.checkpoint); }
  void Directory(std::string* target) {
    if (!value().starts_with('/')) {
      Error("a directory in the container, such as /data/run");
      return;
    }
    *target = value();
  }

  static constexpr int kDefaultTtlDays = 2;
  static constexpr int kMaxTtlDays = 365;
  static constexpr int kMaxScale = 1000;
  static constexpr int kMaxScaledInstances = 100;  // runtime::kMaxReplicas
  static constexpr int kMaxGpus = 64;
  static constexpr int kMaxProbeSeconds = 86400;

  const Node& labels_;
  std::string path_;
  ServiceSpec& service_;
  std::vector<FeatureUse>& features_;
  Report& report_;
  const Entry* label_ = nullptr;  // the one at work
  std::vector<std::tuple<std::string, int, const Entry*>> ttls_;
  std::map<std::string, std::string, std::less<>> stores_, days_;  // name -> its label
  HealthCheck probe_;
  const Entry* probe_label_ = nullptr;
  const Entry* scaling_label_ = nullptr;  // the last one about scaling
};

const std::array<Labels::Row, Labels::kRows>& Labels::Table() {
  static constexpr std::array<Row, kRows> kTable{{
      {"aliyun.log_store_", &Labels::LogStore},
      {"aliyun.log_ttl_", &Labels::LogTtl},
      {"aliyun.scale", &Labels::Scale},
      {"aliyun.global", &Labels::Global},
      {"aliyun.depends", &Labels::Depends},
      {"aliyun.gpu", &Labels::Gpu},
      {"aliyun.routing.port_", &Labels::Route},
      {"aliyun.routing.session_sticky", &Labels::Sticky},
      {"aliyun.routing.weight", &Labels::Weight},
      {"aliyun.lb.port_", &Labels::LoadBalancer},
      {"aliyun.probe.url", &Labels::ProbeUrl},
      {"aliyun.probe.cmd", &Labels::ProbeCommand},
      {"aliyun.probe.initial_delay_seconds", &Labels::ProbeDelay},
      {"aliyun.probe.timeout_seconds", &Labels::ProbeTimeout},
      {"aliyun.rolling_updates", &Labels::RollingUpdates},
      {"aliyun.rolling_updates.parallelism", &Labels::Parallelism},
      {"aliyun.latest_image", &Labels::LatestImage},
      {"aliyun.auto_scaling.max_cpu", &Labels::AutoScalingPercent},
      {"aliyun.auto_scaling.min_cpu", &Labels::AutoScalingPercent},
      {"aliyun.auto_scaling.max_memory", &Labels::AutoScalingPercent},
      {"aliyun.auto_scaling.min_memory", &Labels::AutoScalingPercent},
      {"aliyun.auto_scaling.step", &Labels::AutoScalingCount},
      {"aliyun.auto_scaling.min_instances", &Labels::AutoScalingCount},
      {"aliyun.auto_scaling.max_instances", &Labels::AutoScalingCount},
      {"takt.auto_scaling.max_cpu", &Labels::AutoScalingPercent},
      {"takt.auto_scaling.min_cpu", &Labels::AutoScalingPercent},
      {"takt.auto_scaling.max_memory", &Labels::AutoScalingPercent},
      {"takt.auto_scaling.min_memory", &Labels::AutoScalingPercent},
      {"takt.auto_scaling.step", &Labels::AutoScalingCount},
      {"takt.auto_scaling.min_instances", &Labels::AutoScalingCount},
      {"takt.auto_scaling.max_instances", &Labels::AutoScalingCount},
      {"takt.metrics", &Labels::Metrics},
      {"takt.log_store_", &Labels::LogStore},
      {"takt.log_ttl_", &Labels::LogTtl},
      {"takt.model", &Labels::Model},
      {"takt.serves", &Labels::Serves},
      {"takt.learning", &Labels::Learning},
      {"takt.checkpoint", &Labels::Checkpoint},
  }};
  return kTable;
}

}  // namespace

void ApplyLabels(const Node& labels, const std::string& path, ServiceSpec& service,
                 std::vector<FeatureUse>& features, Report& report) {
  Labels(labels, path, service, features, report).Apply();
}

void ApplyPlacement(const std::vector<Node>& directives, const std::string& path,
                    ServiceSpec& service, std::vector<FeatureUse>& features, Report& report) {
  for (const Node& directive : directives) {
    const std::string_view text = directive.text;
    const std::size_t colon = text.find(':');
    const std::string_view word = text.substr(0, colon);
    const std::string_view rest = text.substr(colon + 1);
    const auto error = [&](std::string_view expected) {
      report.Error(directive.mark, path,
                   StrCat("expected ", expected, ", got ", directive.Describe()));
    };
    const auto need = [&](std::string_view feature) {
      features.push_back({std::string(feature), path, directive.mark.line, directive.mark.column});
    };
    if (word == "reschedule") {
      if (rest != "on-node-failure") {
        error("reschedule:on-node-failure");
        continue;
      }
      service.reschedule_on_node_failure = true;
      continue;
    }
    const std::size_t sign = std::min(rest.find("=="), rest.find("!="));
    if (sign == 0 || sign == std::string_view::npos || sign + 2 == rest.size()) {
      error(StrCat(word, ":NAME==VALUE or ", word, ":NAME!=VALUE"));
      continue;
    }
    need("placement");
    if (word == "affinity") {
      service.affinities.emplace_back(rest);
    } else {
      service.constraints.emplace_back(word == "constraint" ? rest : text);
    }
  }
}

}  // namespace takt::templates
