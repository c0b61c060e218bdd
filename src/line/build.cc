#include "line/build.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_join.h"
#include "base/fs.h"
#include "base/ids.h"
#include "base/text.h"

namespace takt::line {
namespace {

using templates::Issue;

class Builder {
 public:
  Builder(const BuildInput& input, runtime::Runtime& runtime) : input_(input), runtime_(runtime) {}

  // Template and services; false where the template has errors.
  bool Load(bool examine) {
    const Configuration& configuration = *input_.configuration;
    templates::LoadOptions options;
    options.file_name = configuration.template_name;
    options.project_dir = input_.project_dir;
    options.project_name = input_.app;
    options.values = configuration.values;
    templates::LoadResult loaded = templates::LoadTemplate(configuration.template_text, options);
    const bool ok = loaded.ok();
    built_.spec = std::move(loaded.spec);
    built_.parameters = std::move(loaded.parameters);
    built_.issues = std::move(loaded.issues);
    if (!ok) {
      NoteTemplateErrors();
      return false;
    }
    ApplyVolumeOptions(configuration.volume_options, built_.spec);
    for (templates::ServiceSpec& service : built_.spec.services) {
      if (!service.scaling) continue;
      const auto now = input_.scaled.find(service.name);
      service.replicas = std::clamp(now == input_.scaled.end() ? service.replicas : now->second,
                                    service.scaling->min_instances, service.scaling->max_instances);
    }
    for (const templates::ServiceSpec& service : built_.spec.services) {
      runtime::ImageInfo image = ResolveImage(service, examine);
      built_.digests[service.name] = image.digest;
      built_.roles[service.name] = RoleOf(service, image);
      built_.services.push_back(Translate(input_.app, built_.spec, service, image.digest));
    }
    return true;
  }

  void Examine(storage::VolumeStore& volumes) {
    CheckValues();
    CheckFeatures();
    CheckVolumes(volumes);
    CheckVolumeOptions();
    if (input_.will_run) {
      absl::Status ports = CheckPorts(built_.services, input_.others);
      if (!ports.ok()) Error(ports.code(), "", std::string(ports.message()));
    }
    CheckRuntime();
  }

  Built Take() {
    if (!errors_.empty()) {
      auto bad = std::find(codes_.begin(), codes_.end(), absl::StatusCode::kInvalidArgument);
      built_.status =
          absl::Status(bad == codes_.end() ? codes_.front() : *bad, absl::StrJoin(errors_, "\n"));
    }
    return std::move(built_);
  }

 private:
  void Error(absl::StatusCode code, std::string path, std::string message) {
    Issue issue;
    issue.file = input_.configuration->template_name;
    issue.path = std::move(path);
    issue.message = std::move(message);
    Add(code, std::move(issue));
  }

  void Add(absl::StatusCode code, Issue issue) {
    codes_.push_back(code);
    errors_.push_back(issue.ToString());
    built_.issues.push_back(std::move(issue));
  }

  void Warn(std::string path, std::string message, std::string suggestion = "") {
    Issue issue;
    issue.severity = Issue::Severity::kWarning;
    issue.file = input_.configuration->template_name;
    issue.path = std::move(path);
    issue.message = std::move(message);
    issue.suggestion = std::move(suggestion);
    built_.issues.push_back(std::move(issue));
  }

  void NoteTemplateErrors() {
    for (const Issue& issue : built_.issues) {
      if (issue.severity != Issue::Severity::kError) continue;
      codes_.push_back(absl::StatusCode::kInvalidArgument);
      errors_.push_back(issue.ToString());
    }
  }

  // What is pinned stays; the image is asked for all the same, for its role and to see that it is
  // there.
  runtime::ImageInfo ResolveImage(const templates::ServiceSpec& service, bool examine) {
    runtime::ImageInfo info;
    auto resolved = runtime_.ResolveImage(service.image);
    if (resolved.ok()) {
      info = *std::move(resolved);
    } else if (examine) {
      Error(resolved.status().code(), StrCat("services.", service.name, ".image"),
            std::string(resolved.status().message()));
    }
    auto pin = input_.pins.find(service.name);
    auto latest = service.labels.find("aliyun.latest_image");
    bool wants_latest = latest != service.labels.end() && latest->second == "true";
    if (pin != input_.pins.end() &&
        (pin->second.image.empty() || (pin->second.image == service.image && !wants_latest))) {
      info.digest = pin->second.digest;
    }
    return info;
  }

  void CheckValues() {
    const auto& values = input_.configuration->values;
    if (values.size() > kMaxValues) {
      Error(absl::StatusCode::kInvalidArgument, "values",
            StrCat("expected at most ", kMaxValues, " values, got ", values.size()));
    }
    std::vector<std::string_view> names;
    for (const templates::Parameter& parameter : built_.parameters) names.push_back(parameter.name);
    for (const auto& [name, value] : values) {
      if (value.size() > kMaxValueBytes) {
        Error(absl::StatusCode::kInvalidArgument, "values." + name,
              StrCat("expected at most ", kMaxValueBytes, " bytes, got ", value.size()));
      }
      if (std::find(names.begin(), names.end(), name) != names.end()) continue;
      std::optional<std::string> near = NearMiss(name, names);
      Warn("values." + name, "the template has no such parameter",
           near ? StrCat("did you mean ", *near, "?") : "");
    }
  }

  void CheckFeatures() {
    const runtime::Capabilities capabilities = runtime_.capabilities();
    for (const templates::FeatureUse& use : built_.spec.features) {
      if (capabilities.features.contains(use.feature)) continue;
      Issue issue;
      issue.file = input_.configuration->template_name;
      issue.line = use.line;
      issue.column = use.column;
      issue.path = use.path;
      issue.message = StrCat("the ", capabilities.name, " runtime has no ", use.feature);
      Add(absl::StatusCode::kUnimplemented, std::move(issue));
    }
  }

  // The platform's volume that a declaration asks for.
  static NewVolume FromDeclaration(const std::string& name, const templates::VolumeSpec& spec) {
    NewVolume volume{name, spec.driver.empty() ? "local" : spec.driver, {}};
    auto option = [&](const char* key) {
      auto it = spec.driver_opts.find(key);
      return it == spec.driver_opts.end() ? std::string() : it->second;
    };
    std::string type = option("type");
    if (volume.driver == "local" && (type == "nfs" || type == "nfs4")) volume.driver = "nfs";
    if (volume.driver == "local" && (type == "tmpfs" || type == "cifs")) volume.driver = type;
    if (volume.driver == "local" && !option("device").empty()) {
      volume.options["device"] = option("device");
    }
    return volume;
  }

  void CheckVolumes(storage::VolumeStore& volumes) {
    std::set<std::string> seen;
    for (const templates::ServiceSpec& service : built_.spec.services) {
      for (std::size_t i = 0; i < service.mounts.size(); ++i) {
        const templates::Mount& mount = service.mounts[i];
        if (mount.kind != templates::Mount::Kind::kVolume || mount.source.empty()) continue;
        const std::string path = StrCat("services.", service.name, ".volumes[", i, "]");
        const std::string name = PlatformVolume(built_.spec, mount.source);
        absl::Status subdirectory = storage::CheckSubdirectory(name, mount.subdirectory);
        if (!subdirectory.ok()) {
          Error(subdirectory.code(), path, std::string(subdirectory.message()));
        }
        if (!seen.insert(name).second) continue;
        if (!IsValidName(name)) {
          Error(absl::StatusCode::kInvalidArgument, path,
                StrCat("\"", name,
                       "\" cannot be a volume's name: expected 1 to 63 letters, digits, "
                       "\"_\", \".\" and \"-\""));
          continue;
        }
        auto declared = built_.spec.volumes.find(mount.source);
        bool own = declared != built_.spec.volumes.end() && !declared->second.external;
        NewVolume wanted =
            own ? FromDeclaration(name, declared->second) : NewVolume{name, "local", {}};
        auto there = volumes.Get(name);
        if (there.ok()) {
          if (own && (there->driver != wanted.driver || there->options != wanted.options)) {
            Warn("volumes." + mount.source,
                 StrCat("volume ", name, " exists already (driver ", there->driver, ", at ",
                        there->host_path, "); the template's driver and options do not apply"));
          }
          continue;
        }
        if (!absl::IsNotFound(there.status())) {
          Error(there.status().code(), path, std::string(there.status().message()));
          continue;
        }
        CheckNewVolume(wanted, path);
        (own ? built_.declared_volumes : built_.missing_volumes).push_back(std::move(wanted));
      }
    }
  }

  void CheckNewVolume(const NewVolume& volume, const std::string& path) {
    if (volume.driver != "local") {
      Error(absl::StatusCode::kUnimplemented, path,
            StrCat("volume ", volume.name, ": the ", runtime_.capabilities().name,
                   " runtime has no driver \"", volume.driver, "\""));
    }
    auto device = volume.options.find("device");
    if (device != volume.options.end() && !IsDirectory(device->second)) {
      Error(absl::StatusCode::kNotFound, path,
            StrCat("volume ", volume.name, ": device \"", device->second, "\" is not there"));
    }
  }

  void CheckVolumeOptions() {
    std::set<std::string> known;
    for (const templates::ServiceSpec& service : built_.spec.services) {
      for (const templates::Mount& mount : service.mounts) {
        if (mount.kind != templates::Mount::Kind::kVolume || mount.source.empty()) continue;
        known.insert(mount.source);
        known.insert(PlatformVolume(built_.spec, mount.source));
      }
    }
    for (const auto& [name, option] : input_.configuration->volume_options) {
      if (known.contains(name)) continue;
      Error(absl::StatusCode::kInvalidArgument, "volume_options." + name,
            StrCat("expected a volume of the template (",
                   known.empty() ? "it has none" : absl::StrJoin(known, ", "), "), got ", name));
    }
  }

  void CheckRuntime() {
    if (!errors_.empty()) return;  // with half a specification its answers would mislead
    std::vector<runtime::PortMapping> own_ports;
    if (input_.current != nullptr) {
      for (const DesiredService& service : *input_.current) {
        own_ports.insert(own_ports.end(), service.spec.ports.begin(), service.spec.ports.end());
      }
    }
    for (const DesiredService& service : built_.services) {
      if (IsCurrent(service)) continue;
      runtime::ServiceSpec spec = service.spec;
      spec.replicas = service.most_replicas;
      if (!input_.will_run) spec.ports.clear();
      // What the app has now it may keep, also for another of its services.
      std::erase_if(spec.ports, [&](const runtime::PortMapping& port) {
        return std::any_of(own_ports.begin(), own_ports.end(), [&](const auto& own) {
          return own.published == port.published && own.protocol == port.protocol;
        });
      });
      absl::Status status = runtime_.Check(spec);
      if (!status.ok()) {
        Error(status.code(), "services." + spec.service, std::string(status.message()));
      }
    }
  }

  bool IsCurrent(const DesiredService& service) const {
    if (input_.current == nullptr) return false;
    return std::any_of(input_.current->begin(), input_.current->end(), [&](const auto& current) {
      return current.identity == service.identity && current.settings == service.settings;
    });
  }

  const BuildInput& input_;
  runtime::Runtime& runtime_;
  Built built_;
  std::vector<absl::StatusCode> codes_;
  std::vector<std::string> errors_;
};

}  // namespace

Built Build(const BuildInput& input, runtime::Runtime& runtime, storage::VolumeStore& volumes) {
  Builder builder(input, runtime);
  if (builder.Load(/*examine=*/true)) builder.Examine(volumes);
  return builder.Take();
}

Built Rebuild(const BuildInput& input, runtime::Runtime& runtime) {
  Builder builder(input, runtime);
  builder.Load(/*examine=*/false);
  return builder.Take();
}

}  // namespace takt::line
