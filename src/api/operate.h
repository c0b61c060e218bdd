// Routes to what was seen: metrics, learning (for logs: log_search.h). Each Add... adds the routes
// of one room to a router; all must outlive it.
#pragma once

#include "api/json_writer.h"
#include "api/router.h"
#include "api/workers.h"
#include "learning/store.h"
#include "metrics/store.h"
#include "operate/runs.h"

namespace takt::api {

inline constexpr std::size_t kMaxCurvePoints = 1500;  // of one series

void AddMetricRoutes(Router& router, metrics::MetricStore& store, Workers& workers);
// `runs` tells the time window that run=N means.
void AddLearningRoutes(Router& router, learning::LearningStore& store, operate::Runs& runs,
                       Workers& workers);

std::string Rfc3339FromSeconds(double seconds);  // since the epoch
// JSON has no NaN: what is not finite is written as a text.
void WriteNumber(JsonWriter& w, double value);

}  // namespace takt::api
