// Routes to runs and to the models that they made. All given must outlive the router.
#pragma once

#include "api/router.h"
#include "api/workers.h"
#include "learning/store.h"
#include "line/line.h"
#include "operate/runs.h"
#include "storage/volumes.h"

namespace takt::api {

inline constexpr std::size_t kMaxListedRuns = 200;  // of one answer
inline constexpr std::size_t kMaxRunMetrics = 200;  // of one run; further scalars are left out

void AddRunRoutes(Router& router, operate::Runs& runs, learning::LearningStore& learning,
                  line::Line& line, storage::VolumeStore& volumes, Workers& workers);

}  // namespace takt::api
