// What a configuration means on this platform: template and values -> the services that are to
// run, and everything that speaks against it. Changes nothing.
#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "line/spec.h"

namespace takt::line {

struct NewVolume {
  std::string name, driver;
  std::map<std::string, std::string> options;
};

struct Built {
  templates::AppSpec spec;  // volume options written into its mounts
  std::vector<templates::Parameter> parameters;
  std::vector<DesiredService> services;
  std::map<std::string, std::string> digests;  // service -> image digest
  std::map<std::string, std::string> roles;    // service -> role
  std::vector<NewVolume> declared_volumes;     // declared by the template, not there yet
  std::vector<NewVolume> missing_volumes;      // only named by it, not there
  std::vector<templates::Issue> issues;        // errors and warnings
  // OK, or what the errors among the issues come to: INVALID_ARGUMENT where the configuration
  // itself is wrong, else the code of the first.
  absl::Status status;
};

struct BuildInput {
  std::string app;
  const Configuration* configuration = nullptr;
  std::string project_dir;
  // Service -> digest that it keeps as long as its image is still `image` (empty: whatever it is).
  struct Pin {
    std::string image, digest;
  };
  std::map<std::string, Pin> pins;
  // What the app is now (null: nothing): only what differs from it is checked against the runtime.
  const std::vector<DesiredService>* current = nullptr;
  // Instances that a service with scaling has now; others have what the template says.
  std::map<std::string, int> scaled;
  std::vector<const DesiredService*> others;  // of running apps: whose ports are taken
  bool will_run = true;  // false: the app is stopped, so its ports are not needed now
};

// Examines everything, the runtime and the volumes included.
Built Build(const BuildInput& input, runtime::Runtime& runtime, storage::VolumeStore& volumes);

// Of a configuration that was accepted before: `status` is only about the template.
Built Rebuild(const BuildInput& input, runtime::Runtime& runtime);

}  // namespace takt::line
