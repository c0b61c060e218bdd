// From the template's language to the runtime's: what a service is to be, in a form that two
// revisions can be compared in. Pure functions.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "line/diff.h"
#include "line/line.h"
#include "runtime/runtime.h"
#include "template/app_spec.h"

namespace takt::line {

// Where a mount of the runtime's specification comes from.
struct MountSource {
  templates::Mount::Kind kind = templates::Mount::Kind::kVolume;
  std::string source;        // the volume's platform name, or the host path; empty = anonymous
  std::string subdirectory;  // of the volume
  bool operator==(const MountSource&) const = default;
};

// One service of an app as a revision wants it. Host paths of volumes are found only when it is
// deployed: they may be mounted later, and where a volume lies is no reason to restart.
struct DesiredService {
  runtime::ServiceSpec spec;         // `revision` is 0 and mounts have no host_path yet
  std::vector<MountSource> sources;  // one for each of spec.mounts
  std::map<std::string, templates::DependencyCondition> depends_on;
  // Everything that makes an instance what it is, as text: with equal identity what runs goes on.
  std::string identity;
  // The rest, which applies to what runs: replicas, labels, restart policy.
  std::string settings;
  int most_replicas = 1;  // that there may be: scaling's limit, else spec.replicas
};

DesiredService Translate(const std::string& app, const templates::AppSpec& spec,
                         const templates::ServiceSpec& service, const std::string& image_digest);

// Writes the volume options into the mounts, by the volume's key or its name on the platform.
void ApplyVolumeOptions(const std::map<std::string, VolumeOption>& options,
                        templates::AppSpec& spec);

// The name on the platform of a volume that a template calls `key`.
std::string PlatformVolume(const templates::AppSpec& spec, const std::string& key);

// "services.web.command[2]" and so on. Contents of files appear as their SHA-256.
Flat Flatten(const DesiredService& service);

// What becomes of each service when an app goes from one set to another; sorted as in `after`, then
// the removed. With empty `before`, everything starts.
std::vector<ServicePlan> PlanServices(const std::vector<DesiredService>& before,
                                      const std::vector<DesiredService>& after);

// "training", "serving", "client" or "": what the labels say, else what the program that the
// template names or the image is for.
std::string RoleOf(const templates::ServiceSpec& service, const runtime::ImageInfo& image);

// ALREADY_EXISTS when one of these services publishes a port that another app has ("port 9000 is
// taken by app serving"; `taken` are the other apps' services), INVALID_ARGUMENT when two of them,
// or two instances of one, want the same.
absl::Status CheckPorts(const std::vector<DesiredService>& services,
                        const std::vector<const DesiredService*>& taken);

}  // namespace takt::line
