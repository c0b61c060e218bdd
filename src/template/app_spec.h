// What a template with its values means: native structs, no YAML, no runtime. Plain values: copy
// and compare them freely; no threads.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

namespace takt::templates {

// One parameter of a template: every distinct ${VAR}, every bare KEY of an environment (never
// required), and the variable that a secret or config takes its content from (always). `type` is
// guessed from the name, the default and where it is used; it shapes the form, and never refuses a
// value.
enum class ParameterType { kText, kInteger, kNumber, kPath, kEndpoint };

struct Parameter {
  std::string name;
  std::optional<std::string> default_value;  // of ${V:-d}: takes effect without being touched
  bool required = false;                     // ${V:?message}, or no default at all
  std::string message;                       // the text of :? where there is one
  ParameterType type = ParameterType::kText;
  struct Use {
    std::string path;  // "services.serving.command[2]"
    int line = 0;      // 1-based
    int column = 0;    // 1-based
  };
  std::vector<Use> uses;
};

struct Port {
  std::string host_ip;          // empty = all interfaces
  std::uint16_t published = 0;  // 0 = any free one
  std::uint16_t target = 0;
  std::string protocol = "tcp";  // or "udp"
  std::string mode = "ingress";  // or "host"
  bool operator==(const Port&) const = default;
};

struct Mount {
  enum class Kind { kVolume, kBind, kTmpfs };
  Kind kind = Kind::kVolume;
  std::string source;  // volume name, or host path for kBind; empty = anonymous
  std::string target;  // absolute path in the instance
  bool read_only = false;
  std::string subdirectory;  // of the volume; set by volume options, relative, "" = its root
  std::uint64_t tmpfs_bytes = 0;
  bool operator==(const Mount&) const = default;
};

struct HealthCheck {
  enum class Kind { kNone, kCommand, kShell, kHttp, kTcp };
  Kind kind = Kind::kNone;
  std::vector<std::string> command;  // kCommand: argv; kShell: one string for /bin/sh -c
  std::string url;                   // kHttp: the URL; kTcp: host:port, "container" = the instance
  std::chrono::milliseconds interval{30000}, timeout{30000}, start_period{0};
  int retries = 3;
  bool operator==(const HealthCheck&) const = default;
};

enum class DependencyCondition { kStarted, kHealthy, kCompletedSuccessfully };
enum class RestartPolicy { kNo, kAlways, kOnFailure, kUnlessStopped };

// Where a log store's lines come from: "stdout" or a path or glob in the instance.
struct LogStore {
  std::string name;
  std::string source;
  int ttl_days = 2;
  bool operator==(const LogStore&) const = default;
};

// How many instances a service has, by what they use (aliyun.auto_scaling.*, takt.auto_scaling.*).
// Per cent of what an instance may use: of its limit, else of the machine.
struct AutoScaling {
  std::optional<int> max_cpu, max_memory;  // above one of them for long: `step` instances more
  std::optional<int> min_cpu, min_memory;  // below all of them for long: `step` instances fewer
  int step = 1;
  int min_instances = 1, max_instances = 10;
  bool operator==(const AutoScaling&) const = default;
};

struct ServiceSpec {
  std::string name;
  std::string image;
  std::optional<std::vector<std::string>> entrypoint;  // nullopt = the image's; empty = none
  std::optional<std::vector<std::string>> command;     // likewise
  std::map<std::string, std::string> environment;
  std::map<std::string, std::string> labels;  // as written, takt.* and aliyun.* included
  std::vector<Port> ports;
  std::vector<Mount> mounts;
  std::map<std::string, DependencyCondition> depends_on;
  RestartPolicy restart = RestartPolicy::kNo;
  int restart_max_attempts = 0;  // 0 = without limit
  HealthCheck health;
  int replicas = 1;
  bool one_per_node = false;  // aliyun.global, deploy.mode: global
  double cpus = 0;            // cores; 0 = no limit
  std::int64_t cpu_shares = 0;
  std::uint64_t memory_bytes = 0;  // 0 = no limit
  std::uint64_t shm_bytes = 0;
  int gpus = 0;  // -1 = all
  std::string working_dir;
  std::string user;
  std::string hostname;
  std::string stop_signal = "SIGTERM";
  std::chrono::milliseconds stop_grace{10000};
  bool init = false, privileged = false, read_only = false, tty = false, stdin_open = false;
  std::map<std::string, std::pair<std::int64_t, std::int64_t>> ulimits;  // soft, hard
  std::vector<std::string> cap_add, cap_drop, devices, extra_hosts, dns, profiles;
  std::vector<std::string> constraints;  // placement; also constraint:... directives
  std::vector<std::string> affinities;
  bool reschedule_on_node_failure = false;
  std::map<std::string, std::vector<std::string>> networks;  // name -> aliases
  std::map<std::string, std::string> links;  // name that it uses -> service of the app
  // Content of configs and secrets, by path in the instance.
  std::map<std::string, std::string> files;
  // From labels.
  std::optional<AutoScaling> scaling;
  std::vector<LogStore> log_stores;
  std::string model;       // takt.model: name of the model that a training service makes
  std::string model_path;  // and its directory in the instance
  std::string serves;      // takt.serves: model that a serving service loads
  std::string learning;    // takt.learning: directory of training events
  std::string checkpoint;  // takt.checkpoint: directory of checkpoints
  bool operator==(const ServiceSpec&) const = default;
};

struct VolumeSpec {
  std::string name;         // key in the template
  std::string actual_name;  // `name:` where given, else the key
  bool external = false;    // must exist; also every undeclared named volume
  std::string driver;       // "", "local", "nfs", "s3"
  std::map<std::string, std::string> driver_opts;
  bool operator==(const VolumeSpec&) const = default;
};

// One line of what a template cannot have here, for Capabilities checks: feature and position.
struct FeatureUse {
  std::string feature;  // "privileged", "devices", "cap_add", "networks", "build", ...
  std::string path;     // "services.web.privileged"
  int line = 0;
  int column = 0;
};

struct AppSpec {
  std::string name;                   // of the compose `name:`; may be empty
  std::vector<ServiceSpec> services;  // in the template's order
  std::map<std::string, VolumeSpec> volumes;
  std::vector<FeatureUse> features;
};

}  // namespace takt::templates
