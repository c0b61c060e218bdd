// Routes to what is measured. All given must outlive the router.
#pragma once

#include "api/router.h"
#include "api/workers.h"
#include "metrics/store.h"

namespace takt::api {

void AddMetricRoutes(Router& router, metrics::MetricStore& store, Workers& workers);

}  // namespace takt::api
