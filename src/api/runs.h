// Routes to runs and to the models that they made. All given must outlive the router.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "api/router.h"
#include "api/workers.h"
#include "learning/store.h"
#include "line/line.h"
#include "operate/runs.h"
#include "operate/served.h"
#include "storage/volumes.h"

namespace takt::api {

inline constexpr std::size_t kMaxListedRuns = 200;  // of one answer
inline constexpr std::size_t kMaxRunMetrics = 200;  // of one run; further scalars are left out

// The versions of a model, by the name that requests use, that an app's service answers for now;
// nullopt when it does not say (operate::Served).
using Serving = std::function<std::optional<operate::Versions>(
    const std::string& app, const std::string& service, const std::string& model)>;

void AddRunRoutes(Router& router, operate::Runs& runs, learning::LearningStore& learning,
                  Serving serving, line::Line& line, storage::VolumeStore& volumes,
                  Workers& workers);

}  // namespace takt::api
