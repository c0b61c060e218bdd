// What each metric of ours says, for who reads /metrics.
#include <algorithm>
#include <iterator>
#include <utility>

#include "metrics/prometheus.h"

namespace takt::metrics {
namespace {

constexpr std::pair<std::string_view, std::string_view> kHelp[] = {
    // by name
    {"process_cpu_seconds_total", "CPU time that the daemon itself has used."},
    {"process_max_fds", "File descriptors that the daemon may have open."},
    {"process_open_fds", "File descriptors that the daemon has open."},
    {"process_resident_memory_bytes", "Memory of the daemon that is resident."},
    {"process_start_time_seconds", "When the daemon began, since the epoch."},
    {"process_threads", "Threads of the daemon."},
    {"process_virtual_memory_bytes", "Address space of the daemon."},
    {"takt_apps", "Apps by state."},
    {"takt_gpu_memory_total_bytes", "Memory of a GPU."},
    {"takt_gpu_memory_used_bytes", "Memory of a GPU that is in use."},
    {"takt_gpu_power_watts", "Power that a GPU draws."},
    {"takt_gpu_read_errors_total", "Readings that a GPU did not answer."},
    {"takt_gpu_temperature_celsius", "Temperature of a GPU."},
    {"takt_gpu_utilization_ratio", "Share of the time in which a GPU was at work."},
    {"takt_instance_cpu_seconds_total", "CPU time that an instance has used."},
    {"takt_instance_gpu_memory_bytes", "Memory of a GPU that an instance holds."},
    {"takt_instance_memory_bytes", "Resident memory of an instance."},
    {"takt_log_disk_bytes", "What the logs take on the disk."},
    {"takt_log_dropped_entries_total", "Log entries that a limit has dropped."},
    {"takt_log_entries", "Log entries that are kept."},
    {"takt_log_forward_behind_entries", "Log entries that wait to be forwarded."},
    {"takt_log_forward_failed_attempts_total", "Attempts to forward logs that failed."},
    {"takt_log_forward_lag_seconds", "Age of the oldest log entry that waits to be forwarded."},
    {"takt_log_forward_refused_entries_total", "Log entries that a receiver refused."},
    {"takt_log_forward_removed_entries_total",
     "Log entries that were removed before they could be forwarded."},
    {"takt_log_forward_sent_entries_total", "Log entries that were forwarded."},
    {"takt_metric_disk_bytes", "What the kept metrics take on the disk."},
    {"takt_metric_dropped_blocks_total", "Blocks of samples that went for want of room."},
    {"takt_metric_series", "Series of metrics that are kept."},
    {"takt_node_cores", "CPU cores of the machine."},
    {"takt_node_cpu_seconds_total", "CPU time of the machine by mode."},
    {"takt_node_disk_io_seconds_total", "Time in which a disk was at work."},
    {"takt_node_disk_read_bytes_total", "Bytes read from a disk."},
    {"takt_node_disk_written_bytes_total", "Bytes written to a disk."},
    {"takt_node_filesystem_free_bytes", "Free room where the daemon keeps its data."},
    {"takt_node_filesystem_size_bytes", "Size of the file system with the daemon's data."},
    {"takt_node_load1", "Load average of a minute."},
    {"takt_node_load15", "Load average of fifteen minutes."},
    {"takt_node_load5", "Load average of five minutes."},
    {"takt_node_memory_bytes", "Memory of the machine by kind."},
    {"takt_node_network_receive_bytes_total", "Bytes received by a network device."},
    {"takt_node_network_receive_errors_total", "Receive errors of a network device."},
    {"takt_node_network_transmit_bytes_total", "Bytes sent by a network device."},
    {"takt_node_network_transmit_errors_total", "Transmit errors of a network device."},
    {"takt_node_open_files", "Open files of the machine."},
    {"takt_node_pressure_waiting_seconds_total", "Time in which some task waited for a resource."},
    {"takt_run_alerts", "A run under way goes wrong; the label kind says how."},
    {"takt_runs_running", "Training runs under way."},
    {"takt_scrapes_failed_total", "Requests for metrics that a service did not answer."},
    {"takt_service_live_instances", "Instances of a service that run or start."},
    {"takt_service_missing_instances", "Instances that a service lacks."},
    {"takt_service_restarts_total", "Restarts of a service's instances by its policy."},
    {"takt_station_seconds_total",
     "Time that services have spent at a station of the line, by state."},
    {"takt_station_services", "Services at a station of the line, by state; pending: its queue."},
    {"takt_target_up", "Whether a service that offers metrics answered the last time."},
};

}  // namespace

std::string_view HelpOf(std::string_view name) {
  static_assert(std::is_sorted(std::begin(kHelp), std::end(kHelp),
                               [](const auto& a, const auto& b) { return a.first < b.first; }));
  const auto it =
      std::lower_bound(std::begin(kHelp), std::end(kHelp), name,
                       [](const auto& row, std::string_view n) { return row.first < n; });
  return it != std::end(kHelp) && it->first == name ? it->second : "";
}

}  // namespace takt::metrics
