// Routes to what training programs write: curves, histograms, images, texts. All given must outlive
// the router.
#pragma once

#include "api/router.h"
#include "api/workers.h"
#include "learning/store.h"
#include "operate/runs.h"

namespace takt::api {

inline constexpr std::size_t kMaxCurvePoints = 1500;  // of one series

// `runs` tells the time window that run=N means.
void AddLearningRoutes(Router& router, learning::LearningStore& store, operate::Runs& runs,
                       Workers& workers);

}  // namespace takt::api
