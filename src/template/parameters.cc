#include "template/parameters.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <charconv>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace takt::templates {
namespace {

constexpr std::array<std::string_view, 9> kPathWords{
    "dir", "directory", "path", "folder", "file", "filename", "dataset", "prefix", "home"};
constexpr std::array<std::string_view, 11> kEndpointWords{
    "server", "servers", "endpoint", "url",      "uri",   "host",
    "addr",   "address", "broker",   "registry", "target"};
constexpr std::array<std::string_view, 18> kNumberWords{
    "rate",    "ratio",    "lr",      "alpha",       "beta",        "gamma",
    "epsilon", "momentum", "dropout", "decay",       "fraction",    "threshold",
    "cpus",    "percent",  "weight",  "temperature", "probability", "factor"};
constexpr std::array<std::string_view, 42> kIntegerWords{
    "port",    "ports",       "step",        "steps",   "num",       "number",  "count",
    "counts",  "iteration",   "iterations",  "iters",   "epoch",     "epochs",  "size",
    "batch",   "replicas",    "replica",     "scale",   "instances", "workers", "worker",
    "threads", "concurrency", "parallelism", "timeout", "interval",  "seconds", "minutes",
    "hours",   "days",        "ttl",         "retries", "seed",      "tests",   "requests",
    "gpus",    "gpu",         "version",     "limit",   "layers",    "units",   "shards"};
constexpr std::array<std::string_view, 7> kCountingPrefixes{"num", "n",     "max",   "min",
                                                            "nb",  "total", "number"};
constexpr std::array<std::string_view, 6> kTextWords{"name",  "tag",  "mode",
                                                     "level", "user", "password"};

template <typename Words>
bool Has(const Words& words, std::string_view word) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

// "trainSteps", "TRAIN_STEPS", "train-steps" -> train, steps.
std::vector<std::string> Tokens(std::string_view name) {
  std::vector<std::string> tokens(1);
  char before = '_';
  for (const char c : name) {
    const bool upper = std::isupper(static_cast<unsigned char>(c)) != 0;
    const bool separator = c == '_' || c == '-' || c == '.';
    const bool hump = upper && std::islower(static_cast<unsigned char>(before)) != 0;
    if ((separator || hump) && !tokens.back().empty()) tokens.emplace_back();
    if (!separator) {
      tokens.back() += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
    }
    before = c;
  }
  if (tokens.back().empty()) tokens.pop_back();
  return tokens;
}

// The last word says what a value is (SERVER_PORT is a port), a first one may say that it counts.
std::optional<ParameterType> ByName(std::string_view name) {
  const std::vector<std::string> tokens = Tokens(name);
  if (tokens.empty()) return std::nullopt;
  const std::string& last = tokens.back();
  if (Has(kTextWords, last)) return ParameterType::kText;
  if (Has(kIntegerWords, last)) return ParameterType::kInteger;
  if (Has(kNumberWords, last)) return ParameterType::kNumber;
  if (Has(kPathWords, last)) return ParameterType::kPath;
  if (Has(kEndpointWords, last)) return ParameterType::kEndpoint;
  if (tokens.size() > 1 && Has(kCountingPrefixes, tokens.front())) return ParameterType::kInteger;
  return std::nullopt;
}

ParameterType ByDefault(std::string_view text) {
  std::int64_t integer = 0;
  double number = 0;
  const char* end = text.data() + text.size();
  if (std::from_chars(text.data(), end, integer).ptr == end) return ParameterType::kInteger;
  if (std::from_chars(text.data(), end, number).ptr == end) return ParameterType::kNumber;
  if (text.find("://") != std::string_view::npos) return ParameterType::kEndpoint;
  if (text.starts_with('/') || text.starts_with("./") || text.starts_with("../") ||
      text.starts_with("~/")) {
    return ParameterType::kPath;
  }
  // host:port
  const std::size_t colon = text.rfind(':');
  if (colon != std::string_view::npos && colon > 0 && colon + 1 < text.size() &&
      text.find('/') == std::string_view::npos &&
      std::all_of(text.begin() + static_cast<long>(colon) + 1, text.end(),
                  [](char c) { return c >= '0' && c <= '9'; })) {
    return ParameterType::kEndpoint;
  }
  return ParameterType::kText;
}

// services.NAME.FIELD... -> FIELD..., "" elsewhere.
std::string_view FieldOf(std::string_view path) {
  constexpr std::string_view kServices = "services.";
  if (!path.starts_with(kServices)) return "";
  path.remove_prefix(kServices.size());
  const std::size_t dot = path.find('.');
  return dot == std::string_view::npos ? "" : path.substr(dot + 1);
}

std::optional<ParameterType> ByField(std::string_view path) {
  const std::string_view field = FieldOf(path);
  constexpr std::array<std::string_view, 12> kIntegers{"scale",
                                                       "deploy.replicas",
                                                       "cpu_shares",
                                                       "pids_limit",
                                                       "healthcheck.retries",
                                                       "deploy.update_config.parallelism",
                                                       "deploy.restart_policy.max_attempts",
                                                       "labels.aliyun.scale",
                                                       "labels.aliyun.gpu",
                                                       "deploy.placement.max_replicas_per_node",
                                                       "cpu_count",
                                                       "oom_score_adj"};
  constexpr std::array<std::string_view, 3> kNumbers{"cpus", "deploy.resources.limits.cpus",
                                                     "deploy.resources.reservations.cpus"};
  if (Has(kIntegers, field) || field.starts_with("ports[")) return ParameterType::kInteger;
  if (Has(kNumbers, field)) return ParameterType::kNumber;
  if (field == "working_dir") return ParameterType::kPath;
  if (field == "image" || field == "container_name" || field == "hostname") {
    return ParameterType::kText;
  }
  return std::nullopt;
}

}  // namespace

ParameterType GuessType(const Parameter& parameter) {
  if (parameter.default_value.has_value() && !parameter.default_value->empty()) {
    return ByDefault(*parameter.default_value);
  }
  for (const Parameter::Use& use : parameter.uses) {
    if (const auto type = ByField(use.path)) return *type;
  }
  return ByName(parameter.name).value_or(ParameterType::kText);
}

}  // namespace takt::templates
