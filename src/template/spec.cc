#include "template/spec.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <chrono>
#include <string>
#include <string_view>
#include <utility>

#include "base/str.h"
#include "base/text.h"
#include "template/convert.h"
#include "template/labels.h"

namespace takt::templates {
namespace {

using std::chrono::milliseconds;

milliseconds DurationOf(const Node& map, std::string_view key, milliseconds otherwise) {
  const Node* found = map.Find(key);
  if (found == nullptr) return otherwise;
  return milliseconds(ParseDuration(found->text).value_or(0) / 1'000'000);
}

std::vector<std::string> TextsOf(const Node* list) {
  std::vector<std::string> texts;
  if (list == nullptr) return texts;
  for (const Node& item : list->items) texts.push_back(item.ToText());
  return texts;
}

bool BoolOf(const Node& map, std::string_view key) {
  const Node* found = map.Find(key);
  return found != nullptr && found->boolean;
}

std::uint64_t BytesOf(const Node* node) {
  if (node == nullptr) return 0;
  return static_cast<std::uint64_t>(
      std::max<std::int64_t>(ParseBytes(node->ToText()).value_or(0), 0));
}

double NumberOf(const Node* node) {
  if (node == nullptr) return 0;
  return node->kind == Node::Kind::kInt ? static_cast<double>(node->integer) : node->number;
}

// What becomes of a service's field that AppSpec has no own place for.
enum class Fate {
  kCarried,  // it is in ServiceSpec, or has done its work in the canonical form
  kFeature,  // ServiceSpec has it too, but a runtime may lack it
  kNoEffect  // nothing here depends on it; a warning says so
};

struct FieldFate {
  std::string_view field;
  Fate fate;
  std::string_view word;  // the feature, or why there is no effect
};

// Fields that are not here are features under their own names, and in no struct: a runtime refuses
// them all until somebody gives it the means.
constexpr std::array<FieldFate, 49> kFates{{
    {"image", Fate::kCarried, ""},
    {"command", Fate::kCarried, ""},
    {"entrypoint", Fate::kCarried, ""},
    {"environment", Fate::kCarried, ""},
    {"env_file", Fate::kCarried, ""},
    {"labels", Fate::kCarried, ""},
    {"label_file", Fate::kCarried, ""},
    {"ports", Fate::kCarried, ""},
    {"expose", Fate::kCarried, ""},
    {"volumes", Fate::kCarried, ""},
    {"depends_on", Fate::kCarried, ""},
    {"restart", Fate::kCarried, ""},
    {"working_dir", Fate::kCarried, ""},
    {"stop_signal", Fate::kCarried, ""},
    {"stop_grace_period", Fate::kCarried, ""},
    {"profiles", Fate::kCarried, ""},
    {"deploy", Fate::kCarried, ""},
    {"networks", Fate::kCarried, ""},
    {"network_mode", Fate::kCarried, ""},
    {"configs", Fate::kCarried, ""},
    {"secrets", Fate::kCarried, ""},
    {"healthcheck", Fate::kCarried, ""},
    {"scale", Fate::kCarried, ""},
    {"cpus", Fate::kFeature, "cpus"},
    {"cpu_shares", Fate::kFeature, "cpu_shares"},
    {"mem_limit", Fate::kFeature, "memory"},
    {"shm_size", Fate::kFeature, "shm"},
    {"user", Fate::kFeature, "user"},
    {"hostname", Fate::kFeature, "hostname"},
    {"init", Fate::kFeature, "init"},
    {"privileged", Fate::kFeature, "privileged"},
    {"read_only", Fate::kFeature, "read_only"},
    {"tty", Fate::kFeature, "tty"},
    {"stdin_open", Fate::kFeature, "stdin_open"},
    {"ulimits", Fate::kFeature, "ulimits"},
    {"cap_add", Fate::kFeature, "cap_add"},
    {"cap_drop", Fate::kFeature, "cap_drop"},
    {"devices", Fate::kFeature, "devices"},
    {"extra_hosts", Fate::kFeature, "extra_hosts"},
    {"links", Fate::kFeature, "links"},
    {"dns", Fate::kFeature, "dns"},
    {"gpus", Fate::kFeature, "gpus"},
    {"tmpfs", Fate::kFeature, "tmpfs"},
    {"container_name", Fate::kNoEffect, "instances are named after app and service"},
    {"annotations", Fate::kNoEffect, "nothing here reads annotations"},
    {"attach", Fate::kNoEffect, "logs are kept and shown for every service"},
    {"develop", Fate::kNoEffect, "a deployed app is not rebuilt when a source file changes"},
    {"pull_policy", Fate::kNoEffect, "a revision keeps the image that it was made with"},
    {"pull_refresh_after", Fate::kNoEffect, "a revision keeps the image that it was made with"},
}};

class SpecBuilder {
 public:
  SpecBuilder(const Node& root, const Completed& completed, const LoadOptions& options,
              Report& report)
      : root_(root), completed_(completed), options_(options), report_(report) {}

  AppSpec Build() {
    if (const Node* services = root_.Find("services")) {
      for (const Entry& entry : services->entries) {
        if (!options_.all_profiles && entry.value.Find("profiles") != nullptr) continue;
        spec_.services.push_back(BuildService(entry));
      }
      CheckLabelDependencies(*services);
    }
    if (const Node* models = root_.Find("models")) {
      spec_.features.push_back({"models", "models", models->mark.line, models->mark.column});
    }
    BuildVolumes();
    return std::move(spec_);
  }

 private:
  std::string At(std::string_view field) const { return StrCat(path_, ".", field); }

  void Need(std::string_view feature, std::string_view field, const Node& node) {
    spec_.features.push_back({std::string(feature), At(field), node.mark.line, node.mark.column});
  }

  ServiceSpec BuildService(const Entry& entry) {
    const Node& node = entry.value;
    path_ = StrCat("services.", entry.key);
    ServiceSpec service;
    service.name = entry.key;
    service.image = node.Text("image");
    for (const Entry& field : node.entries) ApplyFate(field);
    for (const auto& [key, target] :
         {std::pair{"command", &service.command}, std::pair{"entrypoint", &service.entrypoint}}) {
      const Node* found = node.Find(key);
      if (found != nullptr && found->is_list()) *target = TextsOf(found);
    }
    if (const Node* environment = node.Find("environment")) {
      for (const Entry& variable : environment->entries) {
        if (variable.key.empty()) {
          report_.Warn(variable.mark, At("environment"), "no effect: a variable without a name");
          continue;
        }
        if (!variable.value.is_null()) service.environment[variable.key] = variable.value.text;
      }
    }
    BuildPorts(node, service);
    BuildMounts(node, service);
    BuildDependencies(node, service);
    BuildRestart(node.Find("restart"), service);
    BuildHealth(node, service);
    BuildResources(node, service);
    BuildNetworks(node, service);
    BuildLinks(node, service);
    BuildFiles(node.Find("configs"), "configs", service);
    BuildFiles(node.Find("secrets"), "secrets", service);
    service.working_dir = node.Text("working_dir");
    service.user = node.Text("user");
    service.hostname = node.Text("hostname");
    if (!node.Text("stop_signal").empty()) service.stop_signal = node.Text("stop_signal");
    service.stop_grace = DurationOf(node, "stop_grace_period", service.stop_grace);
    service.init = BoolOf(node, "init");
    service.privileged = BoolOf(node, "privileged");
    service.read_only = BoolOf(node, "read_only");
    service.tty = BoolOf(node, "tty");
    service.stdin_open = BoolOf(node, "stdin_open");
    service.cap_add = TextsOf(node.Find("cap_add"));
    service.cap_drop = TextsOf(node.Find("cap_drop"));
    service.extra_hosts = TextsOf(node.Find("extra_hosts"));
    service.dns = TextsOf(node.Find("dns"));
    service.profiles = TextsOf(node.Find("profiles"));
    if (const Node* devices = node.Find("devices")) {
      for (const Node& device : devices->items) {
        const std::string_view permissions = device.Text("permissions");
        service.devices.push_back(StrCat(device.Text("source"), ":", device.Text("target"), ":",
                                         permissions.empty() ? "rwm" : permissions));
      }
    }
    if (const Node* deploy = node.Find("deploy")) BuildDeploy(*deploy, service);
    if (const Node* scale = node.Find("scale")) SetReplicas(*scale, "scale", service);
    BuildLabels(node, service);
    const auto placement = completed_.placement.find(entry.key);
    if (placement != completed_.placement.end()) {
      ApplyPlacement(placement->second, At("environment"), service, spec_.features, report_);
    }
    return service;
  }

  void ApplyFate(const Entry& field) {
    const auto fate = std::find_if(kFates.begin(), kFates.end(),
                                   [&](const FieldFate& f) { return f.field == field.key; });
    if (fate == kFates.end()) {
      Need(field.key, field.key, field.value);
      return;
    }
    if (fate->fate == Fate::kNoEffect) {
      report_.Warn(field.value.mark, At(field.key), StrCat("no effect here: ", fate->word));
    } else if (fate->fate == Fate::kFeature) {
      // `init: false` asks for nothing.
      if (field.value.kind != Node::Kind::kBool || field.value.boolean) {
        Need(fate->word, field.key, field.value);
      }
    }
  }

  void BuildLabels(const Node& node, ServiceSpec& service) {
    // In a Swarm template the labels of the service stand under deploy.
    for (const Node* holder : {node.Find("deploy"), &node}) {
      const Node* labels = holder == nullptr ? nullptr : holder->Find("labels");
      if (labels == nullptr) continue;
      for (const Entry& label : labels->entries) service.labels[label.key] = label.value.text;
      ApplyLabels(*labels, At(holder == &node ? "labels" : "deploy.labels"), service,
                  spec_.features, report_);
    }
  }

  void BuildPorts(const Node& node, ServiceSpec& service) {
    const Node* ports = node.Find("ports");
    if (ports == nullptr) return;
    for (std::size_t i = 0; i < ports->items.size(); ++i) {
      const Node& item = ports->items[i];
      const std::string field = StrCat("ports[", i, "]");
      const Node* target = item.Find("target");
      const std::int64_t target_port = target == nullptr ? 0 : target->integer;
      const std::string_view published = item.Text("published");
      const std::string_view first = published.substr(0, published.find('-'));
      int published_port = 0;
      const auto [end, error] =
          std::from_chars(first.data(), first.data() + first.size(), published_port);
      if (target_port < 1 || target_port > 65535 || published_port < 0 || published_port > 65535 ||
          (!first.empty() && end != first.data() + first.size()) ||
          error == std::errc::result_out_of_range) {
        report_.Error(item.mark, At(field),
                      StrCat("expected ports from 1 to 65535, got target ", target_port,
                             " and published \"", published, "\""));
        continue;
      }
      Port port;
      port.host_ip = item.Text("host_ip");
      port.target = static_cast<std::uint16_t>(target_port);
      port.published = static_cast<std::uint16_t>(published_port);
      port.protocol = item.Text("protocol");
      port.mode = item.Text("mode");
      if (first.size() != published.size()) Need("published_range", field, item);
      if (port.protocol != "tcp" && port.protocol != "udp") Need(port.protocol, field, item);
      service.ports.push_back(std::move(port));
    }
  }

  void BuildMounts(const Node& node, ServiceSpec& service) {
    if (const Node* volumes = node.Find("volumes")) {
      for (std::size_t i = 0; i < volumes->items.size(); ++i) {
        BuildMount(volumes->items[i], StrCat("volumes[", i, "]"), service);
      }
    }
    const Node* tmpfs = node.Find("tmpfs");
    if (tmpfs == nullptr) return;
    for (const Node& item : tmpfs->items) {
      Mount mount;
      mount.kind = Mount::Kind::kTmpfs;
      const std::size_t colon = item.text.find(':');
      mount.target = item.text.substr(0, colon);
      std::string_view options =
          colon == std::string::npos ? "" : std::string_view(item.text).substr(colon + 1);
      while (!options.empty()) {
        const std::string_view option = options.substr(0, options.find(','));
        constexpr std::string_view kSize = "size=";
        if (option.starts_with(kSize)) {
          const auto size = ParseBytes(option.substr(kSize.size()));
          if (!size || *size < 0) {
            report_.Error(item.mark, At("tmpfs"),
                          StrCat("expected size=64m or the like, got \"", option, "\""));
          }
          mount.tmpfs_bytes =
              static_cast<std::uint64_t>(std::max<std::int64_t>(size.value_or(0), 0));
        } else if (option == "ro") {
          mount.read_only = true;
        } else if (option != "rw") {
          Need("tmpfs_options", "tmpfs", item);
        }
        options.remove_prefix(std::min(option.size() + 1, options.size()));
      }
      service.mounts.push_back(std::move(mount));
    }
  }

  void BuildMount(const Node& item, const std::string& field, ServiceSpec& service) {
    Mount mount;
    const std::string_view type = item.Text("type");
    mount.source = item.Text("source");
    mount.target = item.Text("target");
    mount.read_only = BoolOf(item, "read_only");
    if (!mount.target.starts_with('/')) Need("relative_mount_target", field, item);
    if (type == "bind") {
      mount.kind = Mount::Kind::kBind;
      const Node* bind = item.Find("bind");
      if (bind != nullptr && bind->Find("propagation") != nullptr) {
        Need("mount_propagation", field, *bind);
      }
    } else if (type == "tmpfs") {
      mount.kind = Mount::Kind::kTmpfs;
      Need("tmpfs", field, item);
      if (const Node* tmpfs = item.Find("tmpfs")) {
        mount.tmpfs_bytes = BytesOf(tmpfs->Find("size"));
        if (tmpfs->Find("mode") != nullptr) Need("tmpfs_options", field, *tmpfs);
      }
    } else if (type == "volume") {
      if (const Node* volume = item.Find("volume")) {
        mount.subdirectory = volume->Text("subpath");
        const std::string inside = StrCat("/", mount.subdirectory, "/");
        if (mount.subdirectory.starts_with('/') || inside.find("/../") != std::string::npos) {
          report_.Error(volume->mark, At(field),
                        StrCat("expected a directory in the volume as subpath, got \"",
                               mount.subdirectory, "\""));
        }
      }
    } else {
      Need(StrCat("mount_", type), field, item);
    }
    service.mounts.push_back(std::move(mount));
  }

  void BuildDependencies(const Node& node, ServiceSpec& service) {
    const Node* depends_on = node.Find("depends_on");
    if (depends_on == nullptr) return;
    for (const Entry& dependency : depends_on->entries) {
      const std::string_view condition = dependency.value.Text("condition");
      service.depends_on[dependency.key] = condition == "service_healthy"
                                               ? DependencyCondition::kHealthy
                                           : condition == "service_completed_successfully"
                                               ? DependencyCondition::kCompletedSuccessfully
                                               : DependencyCondition::kStarted;
    }
  }

  // `aliyun.depends` names services too; the canonical form has not checked those.
  void CheckLabelDependencies(const Node& services) {
    std::vector<std::string_view> names;
    for (const Entry& entry : services.entries) names.push_back(entry.key);
    for (const ServiceSpec& service : spec_.services) {
      const auto label = service.labels.find("aliyun.depends");
      if (label == service.labels.end()) continue;
      for (const auto& [name, condition] : service.depends_on) {
        if (std::find(names.begin(), names.end(), name) != names.end()) continue;
        const Node* labels = services.Find(service.name)->Find("labels");
        const Node* at = labels == nullptr ? nullptr : labels->Find("aliyun.depends");
        const auto near = NearMiss(name, names);
        report_.Error(at == nullptr ? Mark{} : at->mark,
                      StrCat("services.", service.name, ".labels.aliyun.depends"),
                      StrCat("there is no service \"", name, "\""),
                      near ? StrCat("did you mean ", *near, "?") : "");
      }
    }
  }

  void BuildRestart(const Node* restart, ServiceSpec& service) {
    if (restart == nullptr) return;
    const std::string_view text = restart->text;
    constexpr std::string_view kOnFailure = "on-failure";
    if (text == "no") {
      service.restart = RestartPolicy::kNo;
    } else if (text == "always") {
      service.restart = RestartPolicy::kAlways;
    } else if (text == "unless-stopped") {
      service.restart = RestartPolicy::kUnlessStopped;
    } else if (text.starts_with(kOnFailure)) {
      service.restart = RestartPolicy::kOnFailure;
      std::string_view count = text.substr(kOnFailure.size());
      if (count.empty()) return;
      const auto [end, error] = std::from_chars(count.data() + 1, count.data() + count.size(),
                                                service.restart_max_attempts);
      if (count[0] != ':' || count.size() == 1 || error != std::errc() ||
          end != count.data() + count.size() || service.restart_max_attempts < 0) {
        Need(StrCat("restart policy \"", text, "\""), "restart", *restart);
      }
    } else {
      Need(StrCat("restart policy \"", text, "\""), "restart", *restart);
    }
  }

  void BuildHealth(const Node& node, ServiceSpec& service) {
    const Node* check = node.Find("healthcheck");
    if (check == nullptr) return;
    const Node* test = check->Find("test");
    HealthCheck health;
    const bool disabled = BoolOf(*check, "disable");
    if (!disabled && test != nullptr && !test->items.empty()) {
      std::vector<std::string> words = TextsOf(test);
      const std::string kind = words.front();
      words.erase(words.begin());
      if (kind == "CMD" && !words.empty()) {
        health.kind = HealthCheck::Kind::kCommand;
        health.command = std::move(words);
      } else if (kind == "CMD-SHELL" && !words.empty()) {
        health.kind = HealthCheck::Kind::kShell;
        health.command = {words.front()};
      } else if (kind != "NONE") {
        report_.Error(test->mark, At("healthcheck.test"),
                      StrCat("expected a command after ", kind, ", got none"));
      }
    }
    if (health.kind != HealthCheck::Kind::kNone) {
      health.interval = DurationOf(*check, "interval", health.interval);
      health.timeout = DurationOf(*check, "timeout", health.timeout);
      health.start_period = DurationOf(*check, "start_period", health.start_period);
      if (const Node* retries = check->Find("retries")) {
        health.retries = static_cast<int>(std::min<std::int64_t>(retries->integer, 1000));
      }
      Need("healthcheck", "healthcheck", *check);
    }
    service.health = std::move(health);
  }

  void BuildResources(const Node& node, ServiceSpec& service) {
    service.cpus = NumberOf(node.Find("cpus"));
    if (const Node* shares = node.Find("cpu_shares")) service.cpu_shares = shares->integer;
    service.memory_bytes = BytesOf(node.Find("mem_limit"));
    service.shm_bytes = BytesOf(node.Find("shm_size"));
    if (const Node* gpus = node.Find("gpus")) AddGpus(*gpus, service);
    const Node* ulimits = node.Find("ulimits");
    if (ulimits == nullptr) return;
    for (const Entry& limit : ulimits->entries) {
      const auto number = [&](std::string_view key) {
        const Node* found = limit.value.is_map() ? limit.value.Find(key) : &limit.value;
        return found == nullptr ? 0 : found->integer;
      };
      service.ulimits[limit.key] = {number("soft"), number("hard")};
    }
  }

  static void AddGpus(const Node& requests, ServiceSpec& service) {
    for (const Node& request : requests.items) {
      const Node* count = request.Find("count");
      const Node* ids = request.Find("device_ids");
      if (count != nullptr && count->integer < 0) {
        service.gpus = -1;
      } else if (service.gpus >= 0) {
        service.gpus +=
            static_cast<int>(count != nullptr ? count->integer
                             : ids != nullptr ? static_cast<std::int64_t>(ids->items.size())
                                              : 0);
      }
    }
  }

  void BuildNetworks(const Node& node, ServiceSpec& service) {
    if (const Node* mode = node.Find("network_mode")) {
      if (mode->text == "host") {
        Need("host_network", "network_mode", *mode);
      } else if (!mode->text.empty() && mode->text != "bridge") {
        Need("network_mode", "network_mode", *mode);
      }
    }
    const Node* networks = node.Find("networks");
    if (networks == nullptr) return;
    bool own = false;
    for (const Entry& network : networks->entries) {
      const Node* aliases = network.value.Find("aliases");
      own |= network.key != "default" || !network.value.entries.empty();
      service.networks[network.key] = TextsOf(aliases);
    }
    if (own) {
      Need("networks", "networks", *networks);
    } else {
      service.networks.clear();  // as without the field
    }
  }

  // "SERVICE:NAME" or "SERVICE", which all services find without a link.
  void BuildLinks(const Node& node, ServiceSpec& service) {
    for (const std::string& link : TextsOf(node.Find("links"))) {
      const auto [linked, name] = SplitLink(link);
      if (name != linked) service.links[std::string(name)] = std::string(linked);
    }
  }

  // The text of a config or secret, at its path.
  void BuildFiles(const Node* mounts, std::string_view group, ServiceSpec& service) {
    if (mounts == nullptr) return;
    const Node* declared = root_.Find(group);
    for (std::size_t i = 0; i < mounts->items.size(); ++i) {
      const Node& mount = mounts->items[i];
      const Node* source = declared->Find(mount.Text("source"));
      std::string target(mount.Text("target"));
      if (target.empty()) target = StrCat("/", mount.Text("source"));
      if (!target.starts_with('/')) target = StrCat("/run/secrets/", target);
      const std::string field = StrCat(group, "[", i, "]");
      if (const Node* content = source->Find("content")) {
        service.files[target] = content->text;
      } else if (const Node* variable = source->Find("environment")) {
        const auto found = options_.values.find(variable->text);
        if (found == options_.values.end()) {
          report_.Warn(
              variable->mark, At(field),
              StrCat("the variable ", variable->text, " has no value; the file will be empty"));
        }
        service.files[target] = found == options_.values.end() ? "" : found->second;
      } else if (const Node* file = source->Find("file")) {
        const auto text = ReadProjectFile(file->text, options_);
        if (text.ok()) {
          service.files[target] = *text;
        } else {
          report_.Warn(file->mark, At(field), std::string(ToStd(text.status().message())));
          Need("external_files", field, mount);
        }
      } else {
        Need("external_files", field, mount);
      }
    }
    if (!mounts->items.empty()) Need("files", group, *mounts);
  }

  void SetReplicas(const Node& count, std::string_view field, ServiceSpec& service) {
    constexpr std::int64_t kMaxReplicas = 10'000;
    if (count.integer > kMaxReplicas) {
      report_.Error(count.mark, At(field),
                    StrCat("expected at most ", kMaxReplicas, " instances, got ", count.integer));
      return;
    }
    service.replicas = static_cast<int>(count.integer);
    if (service.replicas > 1) Need("replicas", field, count);
  }

  void BuildDeploy(const Node& deploy, ServiceSpec& service) {
    for (const Entry& field : deploy.entries) {
      const std::string name = StrCat("deploy.", field.key);
      const Node& value = field.value;
      if (field.key == "mode") {
        service.one_per_node = value.text == "global";
        if (value.text == "global") {
          Need("global", name, value);
        } else if (value.text != "replicated") {
          Need(StrCat("deploy mode \"", value.text, "\""), name, value);
        }
      } else if (field.key == "replicas") {
        SetReplicas(value, name, service);
      } else if (field.key == "restart_policy") {
        BuildRestartPolicy(value, service);
      } else if (field.key == "resources") {
        BuildDeployResources(value, service);
      } else if (field.key == "placement") {
        service.constraints = TextsOf(value.Find("constraints"));
        if (!value.entries.empty()) Need("placement", name, value);
      } else if (field.key != "labels" && !(field.key == "endpoint_mode" && value.text == "vip")) {
        Need(field.key, name, value);
      }
    }
  }

  void BuildRestartPolicy(const Node& policy, ServiceSpec& service) {
    const std::string_view condition = policy.Text("condition");
    if (condition == "none") {
      service.restart = RestartPolicy::kNo;
    } else if (condition == "on-failure") {
      service.restart = RestartPolicy::kOnFailure;
    } else if (condition.empty() || condition == "any") {
      service.restart = RestartPolicy::kAlways;
    } else {
      Need(StrCat("restart condition \"", condition, "\""), "deploy.restart_policy", policy);
    }
    if (const Node* attempts = policy.Find("max_attempts")) {
      service.restart_max_attempts =
          static_cast<int>(std::min<std::int64_t>(attempts->integer, 1'000'000));
    }
    for (const std::string_view key : {"delay", "window"}) {
      const Node* found = policy.Find(key);
      if (found != nullptr) {
        report_.Warn(found->mark, At(StrCat("deploy.restart_policy.", key)),
                     "no effect here: the pause before a restart grows by itself");
      }
    }
  }

  void BuildDeployResources(const Node& resources, ServiceSpec& service) {
    if (const Node* limits = resources.Find("limits")) {
      const Node* cpus = limits->Find("cpus");
      const Node* memory = limits->Find("memory");
      const Node* pids = limits->Find("pids");
      if (cpus != nullptr) {
        service.cpus = NumberOf(cpus);
        Need("cpus", "deploy.resources.limits.cpus", *cpus);
      }
      if (memory != nullptr) {
        service.memory_bytes = BytesOf(memory);
        Need("memory", "deploy.resources.limits.memory", *memory);
      }
      if (pids != nullptr) Need("pids_limit", "deploy.resources.limits.pids", *pids);
    }
    const Node* reservations = resources.Find("reservations");
    if (reservations == nullptr) return;
    for (const Entry& field : reservations->entries) {
      const std::string name = StrCat("deploy.resources.reservations.", field.key);
      if (field.key != "devices") {
        Need("reservations", name, field.value);
        continue;
      }
      const bool all_gpus =
          std::all_of(field.value.items.begin(), field.value.items.end(), [](const Node& request) {
            const std::vector<std::string> wanted = TextsOf(request.Find("capabilities"));
            return std::find(wanted.begin(), wanted.end(), "gpu") != wanted.end() ||
                   std::find(wanted.begin(), wanted.end(), "nvidia") != wanted.end();
          });
      if (all_gpus) AddGpus(field.value, service);
      Need(all_gpus ? "gpus" : "device_requests", name, field.value);
    }
  }

  void BuildVolumes() {
    const Node* volumes = root_.Find("volumes");
    if (volumes == nullptr) return;
    for (const Entry& entry : volumes->entries) {
      VolumeSpec volume;
      volume.name = entry.key;
      const Node* external = entry.value.Find("external");
      volume.external = external != nullptr && external->boolean;
      const bool named = completed_.named_volumes.contains(entry.key);
      volume.actual_name = named ? std::string(entry.value.Text("name")) : entry.key;
      volume.driver = entry.value.Text("driver");
      if (const Node* driver_options = entry.value.Find("driver_opts")) {
        for (const Entry& option : driver_options->entries) {
          volume.driver_opts[option.key] = option.value.text;
        }
      }
      spec_.volumes.emplace(entry.key, std::move(volume));
    }
  }

  const Node& root_;
  const Completed& completed_;
  const LoadOptions& options_;
  Report& report_;
  AppSpec spec_;
  std::string path_;  // of the service at work
};

}  // namespace

AppSpec BuildSpec(const Node& root, const Completed& completed, const LoadOptions& options,
                  Report& report) {
  return SpecBuilder(root, completed, options, report).Build();
}

}  // namespace takt::templates
