#include "runtime/embedded/machine.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cctype>
#include <cerrno>
#include <climits>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "base/fs.h"

namespace takt::runtime {
namespace {

constexpr std::size_t kMaxProcFileBytes = 16 << 20;
constexpr int kMaxTree = 10'000;  // processes of one instance that are counted

std::string Read(const std::string& path) { return ReadFile(path, kMaxProcFileBytes).value_or(""); }

// Inodes of the sockets that listen on (tcp) or are bound to (udp) the port.
std::set<std::string> SocketsAt(std::uint16_t port, const std::string& protocol) {
  std::set<std::string> inodes;
  const std::string suffix = absl::StrFormat(":%04X", port);
  for (const char* family : {"", "6"}) {
    for (const auto& line : absl::StrSplit(Read(StrCat("/proc/net/", protocol, family)), '\n')) {
      const std::vector<std::string> fields = absl::StrSplit(line, ' ', absl::SkipEmpty());
      if (fields.size() < 10 || !absl::EndsWith(fields[1], suffix)) continue;
      if (protocol == "tcp" && fields[3] != "0A") continue;
      inodes.insert(StrCat("socket:[", fields[9], "]"));
    }
  }
  return inodes;
}

// "nginx, pid 17", or "" where we may not know.
std::string OwnerOf(std::uint16_t port, const std::string& protocol) {
  const std::set<std::string> sockets = SocketsAt(port, protocol);
  const auto processes = ListDir("/proc");
  if (sockets.empty() || !processes.ok()) return "";
  for (const std::string& pid : *processes) {
    if (!std::isdigit(static_cast<unsigned char>(pid[0]))) continue;
    const std::string directory = StrCat("/proc/", pid, "/fd");
    const auto fds = ListDir(directory);
    if (!fds.ok()) continue;
    for (const std::string& fd : *fds) {
      char target[PATH_MAX];
      const ssize_t n = readlink(JoinPath(directory, fd).c_str(), target, sizeof(target));
      if (n <= 0 || !sockets.count(std::string(target, static_cast<std::size_t>(n)))) continue;
      std::string name = Read(StrCat("/proc/", pid, "/comm"));
      if (!name.empty() && name.back() == '\n') name.pop_back();
      return StrCat(name, ", pid ", pid);
    }
  }
  return "";
}

}  // namespace

absl::Status CheckPortFree(const PortMapping& port) {
  if (port.published == 0) return absl::OkStatus();
  const bool udp = port.protocol == "udp";
  sockaddr_in v4{};
  v4.sin_family = AF_INET;
  v4.sin_port = htons(port.published);
  sockaddr_in6 v6{};
  v6.sin6_family = AF_INET6;
  v6.sin6_port = htons(port.published);
  const bool is_v6 = inet_pton(AF_INET6, port.host_ip.c_str(), &v6.sin6_addr) == 1;
  if (!is_v6 && !port.host_ip.empty() &&
      inet_pton(AF_INET, port.host_ip.c_str(), &v4.sin_addr) != 1) {
    return absl::InvalidArgumentError(StrCat("expected an IP address to publish port ",
                                             port.published, " at, got \"", port.host_ip, "\""));
  }
  const int fd =
      socket(is_v6 ? AF_INET6 : AF_INET, (udp ? SOCK_DGRAM : SOCK_STREAM) | SOCK_CLOEXEC, 0);
  if (fd < 0) return ErrnoStatus(errno, "socket");
  const int one = 1;
  if (!udp) setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
  const int result = is_v6 ? bind(fd, reinterpret_cast<sockaddr*>(&v6), sizeof(v6))
                           : bind(fd, reinterpret_cast<sockaddr*>(&v4), sizeof(v4));
  const int error = errno;
  close(fd);
  if (result == 0) return absl::OkStatus();
  if (error == EADDRINUSE) {
    const std::string owner = OwnerOf(port.published, port.protocol);
    return absl::AlreadyExistsError(StrCat("port ", port.published, " is taken by another process",
                                           owner.empty() ? "" : StrCat(" (", owner, ")")));
  }
  if (error == EACCES) {
    return absl::PermissionDeniedError(
        StrCat("port ", port.published, " is for root only on this machine"));
  }
  return ErrnoStatus(error, StrCat("port ", port.published, " at ", port.host_ip));
}

std::vector<Endpoint> EndpointsOf(const ServiceSpec& spec,
                                  const std::map<std::uint16_t, std::uint16_t>& forwarded) {
  std::vector<Endpoint> endpoints;
  for (const PortMapping& p : spec.ports) {
    Endpoint endpoint;
    const bool any = p.host_ip.empty() || p.host_ip == "0.0.0.0" || p.host_ip == "::";
    endpoint.host = any ? "127.0.0.1" : p.host_ip;
    endpoint.port = p.published;
    if (const auto it = forwarded.find(p.target); p.published == 0 && it != forwarded.end()) {
      endpoint.port = it->second;
    }
    endpoint.target = p.target;
    endpoint.protocol = p.protocol;
    endpoints.push_back(std::move(endpoint));
  }
  return endpoints;
}

ControlGroups::Usage MeasureProcessTree(std::int64_t pid) {
  ControlGroups::Usage usage;
  const double ticks = static_cast<double>(sysconf(_SC_CLK_TCK));
  const auto page = static_cast<std::uint64_t>(sysconf(_SC_PAGESIZE));
  std::vector<std::int64_t> todo = {pid};
  for (int n = 0; n < kMaxTree && !todo.empty(); ++n) {
    const std::int64_t each = todo.back();
    todo.pop_back();
    const std::string stat = Read(StrCat("/proc/", each, "/stat"));
    const std::size_t paren = stat.rfind(')');
    if (paren == std::string::npos) continue;
    const std::vector<std::string> fields = absl::StrSplit(stat.substr(paren + 2), ' ');
    // utime, stime, and those of children that were waited for: fields 14 to 17; rss: 24.
    for (std::size_t field = 14; field <= 17 && fields.size() > 21; ++field) {
      std::int64_t value = 0;
      if (absl::SimpleAtoi(fields[field - 3], &value)) {
        usage.cpu_seconds += static_cast<double>(value) / ticks;
      }
    }
    std::uint64_t pages = 0;
    if (fields.size() > 21 && absl::SimpleAtoi(fields[21], &pages)) {
      usage.memory_bytes += pages * page;
    }
    for (const auto& child :
         absl::StrSplit(Read(StrCat("/proc/", each, "/task/", each, "/children")), ' ')) {
      std::int64_t value = 0;
      if (absl::SimpleAtoi(child, &value)) todo.push_back(value);
    }
  }
  return usage;
}

Machine DescribeMachine() {
  Machine machine;
  machine.root = geteuid() == 0;
  for (char** entry = environ; *entry; ++entry) {
    const std::string_view text = *entry;
    if (const std::size_t equals = text.find('='); equals != std::string_view::npos) {
      machine.environment.emplace(text.substr(0, equals), text.substr(equals + 1));
    }
  }
  const auto devices = ListDir("/dev");
  if (!devices.ok()) return machine;
  for (const std::string& name : *devices) {
    if (name.rfind("nvidia", 0) != 0 && name != "dri" && name != "kfd") continue;
    if (name.size() > 6 && name.rfind("nvidia", 0) == 0 &&
        std::isdigit(static_cast<unsigned char>(name[6]))) {
      ++machine.gpus;
    }
    machine.gpu_devices.push_back(StrCat("/dev/", name));
  }
  if (machine.gpus == 0) machine.gpu_devices.clear();
  return machine;
}

}  // namespace takt::runtime
