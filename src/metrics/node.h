// What this machine is doing, read from /proc and the file system (proc(5)). Pure functions but for
// ReadNode; any thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "metrics/store.h"

namespace takt::metrics {

// One figure: a metric's name, its labels, its value.
struct Figure {
  std::string name;
  Labels labels;
  Type type = Type::kGauge;
  double value = 0;
};

// /proc/stat: takt_node_cpu_seconds_total{mode}, takt_node_cores.
void ParseStat(std::string_view text, double ticks_per_second, std::vector<Figure>& out);
// /proc/meminfo: takt_node_memory_bytes{kind=total|available|cached|swap_free|...}.
void ParseMeminfo(std::string_view text, std::vector<Figure>& out);
// /proc/net/dev, all but lo: takt_node_network_{receive,transmit}_{bytes,errors}_total{device}.
void ParseNetDev(std::string_view text, std::vector<Figure>& out);
// /proc/diskstats, whole disks: takt_node_disk_{read,written}_bytes_total{device},
// ..._io_seconds_total.
void ParseDiskstats(std::string_view text, std::vector<Figure>& out);
// /proc/pressure/RESOURCE: takt_node_pressure_waiting_seconds_total{resource}.
void ParsePressure(std::string_view resource, std::string_view text, std::vector<Figure>& out);
// /proc/loadavg, /proc/sys/fs/file-nr.
void ParseLoadavg(std::string_view text, std::vector<Figure>& out);
void ParseFileNr(std::string_view text, std::vector<Figure>& out);

// All of the above, and the space of the file systems that hold `directories` (one each). What the
// machine does not offer is left out.
std::vector<Figure> ReadNode(const std::vector<std::string>& directories);

}  // namespace takt::metrics
