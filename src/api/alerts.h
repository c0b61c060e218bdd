// Routes to alerts: what holds now, the rules, silences.
#pragma once

#include "api/router.h"
#include "operate/alerts.h"

namespace takt::api {

// Both must outlive each other's use.
void AddAlertRoutes(Router& router, operate::Alerts& alerts, const Clock& clock);

}  // namespace takt::api
