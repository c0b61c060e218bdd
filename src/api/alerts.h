// Routes to alerts: what holds now, the rules, silences, receivers.
#pragma once

#include "api/router.h"
#include "api/workers.h"
#include "operate/alerts.h"
#include "operate/receivers.h"

namespace takt::api {

// All must outlive the router.
void AddAlertRoutes(Router& router, operate::Alerts& alerts, operate::Receivers& receivers,
                    Workers& workers, const Clock& clock);

}  // namespace takt::api
