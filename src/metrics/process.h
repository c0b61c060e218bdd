// What this very process uses, under the names that Prometheus' client libraries give:
// process_cpu_seconds_total, process_resident_memory_bytes, process_virtual_memory_bytes,
// process_open_fds, process_max_fds, process_threads, process_start_time_seconds. Any thread.
#pragma once

#include <vector>

#include "metrics/node.h"

namespace takt::metrics {

// What cannot be read is left out.
std::vector<Figure> ReadProcess();

}  // namespace takt::metrics
