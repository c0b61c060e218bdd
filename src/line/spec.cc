#include "line/spec.h"

#include <openssl/sha.h>

#include <algorithm>

#include "absl/strings/escaping.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "base/text.h"

namespace takt::line {
namespace {

constexpr std::string_view kContainer = "container";  // the instance itself, in a probe's URL

// Instances listen on this machine: "http://container:80/x" -> "http://127.0.0.1:80/x".
std::string ProbeUrl(const std::string& url) {
  std::size_t host = url.find("://");
  host = host == std::string::npos ? 0 : host + 3;
  std::string_view rest = std::string_view(url).substr(host);
  if (!rest.starts_with(kContainer)) return url;
  char next = rest.size() > kContainer.size() ? rest[kContainer.size()] : ':';
  if (next != ':' && next != '/') return url;
  return StrCat(url.substr(0, host), "127.0.0.1", rest.substr(kContainer.size()));
}

runtime::RestartPolicy ToRuntime(templates::RestartPolicy policy) {
  switch (policy) {
    case templates::RestartPolicy::kNo:
      return runtime::RestartPolicy::kNo;
    case templates::RestartPolicy::kAlways:
      return runtime::RestartPolicy::kAlways;
    case templates::RestartPolicy::kOnFailure:
      return runtime::RestartPolicy::kOnFailure;
    case templates::RestartPolicy::kUnlessStopped:
      return runtime::RestartPolicy::kUnlessStopped;
  }
  return runtime::RestartPolicy::kNo;
}

const char* Name(runtime::RestartPolicy policy) {
  switch (policy) {
    case runtime::RestartPolicy::kNo:
      return "no";
    case runtime::RestartPolicy::kAlways:
      return "always";
    case runtime::RestartPolicy::kOnFailure:
      return "on-failure";
    case runtime::RestartPolicy::kUnlessStopped:
      return "unless-stopped";
  }
  return "";
}

runtime::HealthProbe ToRuntime(const templates::HealthCheck& check) {
  using From = templates::HealthCheck::Kind;
  using To = runtime::HealthProbe::Kind;
  runtime::HealthProbe probe;
  switch (check.kind) {
    case From::kNone:
      return probe;
    case From::kCommand:
      probe.kind = To::kCommand;
      break;
    case From::kShell:
      probe.kind = To::kShell;
      break;
    case From::kHttp:
      probe.kind = To::kHttp;
      break;
    case From::kTcp:
      probe.kind = To::kTcp;
      break;
  }
  probe.command = check.command;
  probe.url = ProbeUrl(check.url);
  probe.interval = check.interval;
  probe.timeout = check.timeout;
  probe.start_period = check.start_period;
  probe.retries = check.retries;
  return probe;
}

std::string Sha256(const std::string& content) {
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(content.data()), content.size(), digest);
  return absl::BytesToHexString(
      absl::string_view(reinterpret_cast<const char*>(digest), sizeof digest));
}

std::string Milliseconds(std::chrono::milliseconds value) { return StrCat(value.count(), " ms"); }

std::string PortText(const runtime::PortMapping& port) {
  return StrCat(port.host_ip, port.host_ip.empty() ? "" : ":",
                port.published == 0 ? "any" : StrCat(port.published), ":", port.target, "/",
                port.protocol);
}

std::string MountText(const runtime::MountSpec& mount, const MountSource& source) {
  std::string from;
  switch (source.kind) {
    case templates::Mount::Kind::kTmpfs:
      from = StrCat("tmpfs", mount.tmpfs_bytes == 0 ? "" : " " + FormatBytes(mount.tmpfs_bytes));
      break;
    case templates::Mount::Kind::kBind:
    case templates::Mount::Kind::kVolume:
      from = source.source.empty() ? "anonymous" : source.source;
      break;
  }
  if (!source.subdirectory.empty()) from += "/" + source.subdirectory;
  return StrCat(from, mount.read_only ? " (read-only)" : "");
}

// What the runtime applies without replacing instances (Runtime::Deploy).
bool IsSetting(std::string_view path) {
  return path == "replicas" || path == "restart" || path == "restart_max_attempts" ||
         path.starts_with("labels.");
}

bool SameAddress(const std::string& a, const std::string& b) {
  auto any = [](const std::string& ip) { return ip.empty() || ip == "0.0.0.0" || ip == "::"; };
  return any(a) || any(b) || a == b;
}

bool IsOn(const templates::ServiceSpec& service, const std::string& network) {
  return service.networks.contains(network) || (service.networks.empty() && network == "default");
}

// By which names beside their own `from` finds services of its app: aliases on the networks that
// both are on, then its own links.
std::map<std::string, std::string> NamesSeen(const templates::AppSpec& app,
                                             const templates::ServiceSpec& from) {
  std::map<std::string, std::string> names;
  for (const templates::ServiceSpec& other : app.services) {
    for (const auto& [network, aliases] : other.networks) {
      if (!IsOn(from, network)) continue;
      for (const std::string& alias : aliases) names[alias] = other.name;
    }
  }
  for (const auto& [name, service] : from.links) names[name] = service;
  std::erase_if(names, [](const auto& name) { return name.first == name.second; });
  return names;
}

}  // namespace

std::string PlatformVolume(const templates::AppSpec& spec, const std::string& key) {
  auto it = spec.volumes.find(key);
  return it == spec.volumes.end() || it->second.actual_name.empty() ? key : it->second.actual_name;
}

DesiredService Translate(const std::string& app, const templates::AppSpec& app_spec,
                         const templates::ServiceSpec& from, const std::string& image_digest) {
  DesiredService service;
  runtime::ServiceSpec& to = service.spec;
  to.app = app;
  to.service = from.name;
  to.image = from.image;
  to.image_digest = image_digest;
  to.entrypoint = from.entrypoint;
  to.command = from.command;
  to.environment = from.environment;
  to.labels = from.labels;
  for (const templates::Port& port : from.ports) {
    to.ports.push_back({port.host_ip, port.published, port.target, port.protocol});
  }
  for (const templates::Mount& mount : from.mounts) {
    runtime::MountSpec spec;
    spec.target = mount.target;
    spec.read_only = mount.read_only;
    spec.tmpfs_bytes = mount.tmpfs_bytes;
    MountSource source{mount.kind, mount.source, mount.subdirectory};
    if (mount.kind == templates::Mount::Kind::kVolume && !mount.source.empty()) {
      source.source = PlatformVolume(app_spec, mount.source);
      spec.volume = source.source;
    }
    to.mounts.push_back(std::move(spec));
    service.sources.push_back(std::move(source));
  }
  to.files = from.files;
  to.restart = ToRuntime(from.restart);
  to.restart_max_attempts = from.restart_max_attempts;
  to.health = ToRuntime(from.health);
  to.replicas = from.one_per_node ? 1 : from.replicas;
  to.cpus = from.cpus;
  to.memory_bytes = from.memory_bytes;
  to.shm_bytes = from.shm_bytes;
  to.gpus = from.gpus;
  to.working_dir = from.working_dir;
  to.user = from.user;
  to.hostname = from.hostname;
  to.stop_signal = from.stop_signal;
  to.stop_grace = from.stop_grace;
  to.init = from.init;
  to.read_only = from.read_only;
  to.ulimits = from.ulimits;
  to.extra_hosts = from.extra_hosts;
  to.links = NamesSeen(app_spec, from);
  service.depends_on = from.depends_on;
  service.most_replicas = from.scaling ? from.scaling->max_instances : to.replicas;

  const std::size_t prefix = std::string_view("services.").size() + from.name.size() + 1;
  for (const auto& [path, value] : Flatten(service)) {
    // Lengths keep the text unambiguous whatever the values hold.
    absl::StrAppend(IsSetting(path.substr(prefix)) ? &service.settings : &service.identity,
                    path.size(), ":", path, value.size(), ":", value, "\n");
  }
  return service;
}

Flat Flatten(const DesiredService& service) {
  const runtime::ServiceSpec& spec = service.spec;
  const std::string prefix = "services." + spec.service + ".";
  Flat flat;
  auto add = [&](const std::string& path, std::string value) {
    flat.emplace_back(prefix + path, std::move(value));
  };
  auto add_if = [&](bool present, const std::string& path, std::string value) {
    if (present) add(path, std::move(value));
  };
  auto add_list = [&](const char* path, const std::vector<std::string>& items) {
    for (std::size_t i = 0; i < items.size(); ++i) add(StrCat(path, "[", i, "]"), items[i]);
  };
  add("image", spec.image);
  add_if(!spec.image_digest.empty(), "image_digest", spec.image_digest);
  // An empty list (none) is not the same as no list (the image's).
  if (spec.entrypoint) {
    add_if(spec.entrypoint->empty(), "entrypoint", "none");
    add_list("entrypoint", *spec.entrypoint);
  }
  if (spec.command) {
    add_if(spec.command->empty(), "command", "none");
    add_list("command", *spec.command);
  }
  for (const auto& [key, value] : spec.environment) add("environment." + key, value);
  for (const auto& [key, value] : spec.labels) add("labels." + key, value);
  for (std::size_t i = 0; i < spec.ports.size(); ++i) {
    add(StrCat("ports[", i, "]"), PortText(spec.ports[i]));
  }
  for (std::size_t i = 0; i < spec.mounts.size(); ++i) {
    add(StrCat("volumes[", i, "]"),
        StrCat(MountText(spec.mounts[i], service.sources[i]), " at ", spec.mounts[i].target));
  }
  for (const auto& [path, content] : spec.files) {
    add("files." + path, StrCat(content.size(), " bytes, SHA-256 ", Sha256(content)));
  }
  add("restart", Name(spec.restart));
  add_if(spec.restart_max_attempts != 0, "restart_max_attempts", StrCat(spec.restart_max_attempts));
  if (spec.health.kind != runtime::HealthProbe::Kind::kNone) {
    add("healthcheck.kind", StrCat(static_cast<int>(spec.health.kind)));
    add_list("healthcheck.test", spec.health.command);
    add_if(!spec.health.url.empty(), "healthcheck.url", spec.health.url);
    add("healthcheck.interval", Milliseconds(spec.health.interval));
    add("healthcheck.timeout", Milliseconds(spec.health.timeout));
    add("healthcheck.start_period", Milliseconds(spec.health.start_period));
    add("healthcheck.retries", StrCat(spec.health.retries));
  }
  add("replicas", StrCat(spec.replicas));
  add_if(spec.cpus != 0, "cpus", StrCat(spec.cpus));
  add_if(spec.memory_bytes != 0, "mem_limit", StrCat(spec.memory_bytes, " bytes"));
  add_if(spec.shm_bytes != 0, "shm_size", StrCat(spec.shm_bytes, " bytes"));
  add_if(spec.gpus != 0, "gpus", spec.gpus < 0 ? "all" : StrCat(spec.gpus));
  add_if(!spec.working_dir.empty(), "working_dir", spec.working_dir);
  add_if(!spec.user.empty(), "user", spec.user);
  add_if(!spec.hostname.empty(), "hostname", spec.hostname);
  add("stop_signal", spec.stop_signal);
  add("stop_grace_period", Milliseconds(spec.stop_grace));
  add_if(spec.init, "init", "true");
  add_if(spec.read_only, "read_only", "true");
  for (const auto& [name, limits] : spec.ulimits) {
    add("ulimits." + name, StrCat(limits.first, ":", limits.second));
  }
  add_list("extra_hosts", spec.extra_hosts);
  for (const auto& [name, linked] : spec.links) add("links." + name, linked);
  return flat;
}

void ApplyVolumeOptions(const std::map<std::string, VolumeOption>& options,
                        templates::AppSpec& spec) {
  for (templates::ServiceSpec& service : spec.services) {
    for (templates::Mount& mount : service.mounts) {
      if (mount.kind != templates::Mount::Kind::kVolume || mount.source.empty()) continue;
      for (const std::string& name : {mount.source, PlatformVolume(spec, mount.source)}) {
        auto option = options.find(name);
        if (option != options.end() && !option->second.subdirectory.empty()) {
          mount.subdirectory = option->second.subdirectory;
        }
      }
    }
  }
}

std::vector<ServicePlan> PlanServices(const std::vector<DesiredService>& before,
                                      const std::vector<DesiredService>& after) {
  auto find = [](const std::vector<DesiredService>& in, const std::string& name) {
    return std::find_if(in.begin(), in.end(),
                        [&](const DesiredService& s) { return s.spec.service == name; });
  };
  std::vector<ServicePlan> plans;
  for (const DesiredService& service : after) {
    ServicePlan plan;
    plan.service = service.spec.service;
    auto old = find(before, plan.service);
    if (old == before.end()) {
      plan.action = ServiceAction::kStart;
    } else {
      plan.changes = DiffFlat(Flatten(*old), Flatten(service));
      if (old->identity != service.identity) {
        plan.action = ServiceAction::kRestart;
      } else if (old->settings != service.settings) {
        plan.action = ServiceAction::kUpdate;
      }
    }
    plans.push_back(std::move(plan));
  }
  for (const DesiredService& service : before) {
    if (find(after, service.spec.service) == after.end()) {
      plans.push_back({service.spec.service, ServiceAction::kRemove, {}});
    }
  }
  return plans;
}

std::string RoleOf(const templates::ServiceSpec& service, const runtime::ImageInfo& image) {
  if (!service.model.empty() || !service.learning.empty()) return "training";
  if (!service.serves.empty()) return "serving";
  std::vector<std::string> command = service.entrypoint.value_or(std::vector<std::string>{});
  if (service.command)
    command.insert(command.end(), service.command->begin(), service.command->end());
  return runtime::RoleOf(image, command);
}

absl::Status CheckPorts(const std::vector<DesiredService>& services,
                        const std::vector<const DesiredService*>& taken) {
  for (std::size_t i = 0; i < services.size(); ++i) {
    const runtime::ServiceSpec& spec = services[i].spec;
    for (std::size_t p = 0; p < spec.ports.size(); ++p) {
      const runtime::PortMapping& port = spec.ports[p];
      if (port.published == 0) continue;
      auto clashes = [&](const runtime::PortMapping& other) {
        return other.published == port.published && other.protocol == port.protocol &&
               SameAddress(other.host_ip, port.host_ip);
      };
      std::string place = StrCat("services.", spec.service, ".ports[", p, "]: ");
      if (services[i].most_replicas > 1) {
        return absl::InvalidArgumentError(
            StrCat(place, services[i].most_replicas > spec.replicas ? "up to " : "",
                   services[i].most_replicas, " instances cannot all publish port ", port.published,
                   "; publish any free port (\"", port.target, "\" alone) or run one instance"));
      }
      for (std::size_t j = 0; j <= i; ++j) {
        const auto& others = services[j].spec.ports;
        for (std::size_t q = 0; q < (j == i ? p : others.size()); ++q) {
          if (clashes(others[q])) {
            return absl::InvalidArgumentError(StrCat(place, "port ", port.published,
                                                     " is taken by service ",
                                                     services[j].spec.service, " of this app"));
          }
        }
      }
      for (const DesiredService* other : taken) {
        if (std::any_of(other->spec.ports.begin(), other->spec.ports.end(), clashes)) {
          return absl::AlreadyExistsError(
              StrCat(place, "port ", port.published, " is taken by app ", other->spec.app));
        }
      }
    }
  }
  return absl::OkStatus();
}

}  // namespace takt::line
