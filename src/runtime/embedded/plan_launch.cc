#include "runtime/embedded/plan_launch.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "base/fs.h"
#include "base/text.h"

namespace takt::runtime {
namespace {

constexpr const char* kShimInside = "/.takt-shim";
constexpr const char* kDefaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
constexpr std::size_t kMaxAccountFileBytes = 16 << 20;

const std::map<std::string, int>& Resources() {
  static const std::map<std::string, int> kResources = {
      {"as", RLIMIT_AS},           {"core", RLIMIT_CORE},         {"cpu", RLIMIT_CPU},
      {"data", RLIMIT_DATA},       {"fsize", RLIMIT_FSIZE},       {"locks", RLIMIT_LOCKS},
      {"memlock", RLIMIT_MEMLOCK}, {"msgqueue", RLIMIT_MSGQUEUE}, {"nice", RLIMIT_NICE},
      {"nofile", RLIMIT_NOFILE},   {"nproc", RLIMIT_NPROC},       {"rss", RLIMIT_RSS},
      {"rtprio", RLIMIT_RTPRIO},   {"rttime", RLIMIT_RTTIME},     {"sigpending", RLIMIT_SIGPENDING},
      {"stack", RLIMIT_STACK}};
  return kResources;
}

std::uint64_t LimitValue(std::int64_t value) {
  return value < 0 ? RLIM_INFINITY : static_cast<std::uint64_t>(value);
}

bool Below(const std::string& path, const std::string& directory) {
  return path == directory || path.rfind(directory + "/", 0) == 0;
}

// What is laid over by the tree's own /tmp would be hidden: these have to be shown again.
bool Hidden(const std::string& path) { return Below(path, "/tmp"); }

std::string RealPath(const std::string& path) {
  char* real = realpath(path.c_str(), nullptr);
  std::string result = real ? real : path;
  free(real);
  return result;
}

std::string Dirname(const std::string& path) { return path.substr(0, path.rfind('/')); }

std::string HostnameOf(const ServiceSpec& spec) {
  return spec.hostname.empty() ? spec.service.substr(0, HOST_NAME_MAX) : spec.hostname;
}

// "name:address" or "name=address"; an IPv6 address has colons of its own.
std::optional<std::pair<std::string, std::string>> ParseExtraHost(const std::string& extra) {
  const std::size_t cut = extra.find_first_of("=:");
  if (cut == std::string::npos || cut == 0 || cut + 1 == extra.size() ||
      extra.find_first_of(" \t\n#") != std::string::npos) {
    return std::nullopt;
  }
  const std::string address = extra.substr(cut + 1);
  return std::pair(extra.substr(0, cut), address == "host-gateway" ? "127.0.0.1" : address);
}

// Every name that the instance can use, with its addresses.
std::map<std::string, std::vector<std::string>> HostAddresses(const ServiceSpec& spec,
                                                              const Siblings& siblings) {
  std::map<std::string, std::vector<std::string>> addresses;
  for (const auto& [name, at] : siblings) {
    addresses[name] = at.empty() ? std::vector<std::string>{"127.0.0.1"} : at;
  }
  for (const auto& [name, service] : spec.links) {
    const auto linked = addresses.find(service);
    addresses[name] =
        linked == addresses.end() ? std::vector<std::string>{"127.0.0.1"} : linked->second;
  }
  for (const std::string& extra : spec.extra_hosts) {
    if (const auto host = ParseExtraHost(extra)) addresses[host->first] = {host->second};
  }
  return addresses;
}

class Planner {
 public:
  Planner(const ServiceSpec& spec, const Image& image, const Machine& machine,
          const std::string& directory, const std::string& instance, int replica,
          const Siblings& siblings)
      : spec_(spec),
        image_(image),
        machine_(machine),
        directory_(directory),
        instance_(instance),
        replica_(replica),
        siblings_(siblings) {}

  absl::StatusOr<LaunchPlan> Plan() {
    tree_.root = image_.root == "host" ? "/" : image_.root;
    tree_.read_only = spec_.read_only;
    if (!machine_.private_mounts && image_.root != "host") {
      return absl::UnimplementedError(StrCat("image \"", spec_.image, "\" has a root of its own (",
                                             image_.root,
                                             "), and namespaces are not allowed on this machine"));
    }
    TAKT_RETURN_IF_ERROR(Command());
    TAKT_RETURN_IF_ERROR(Mounts());
    TAKT_RETURN_IF_ERROR(Programs());
    TAKT_RETURN_IF_ERROR(Files());
    TAKT_RETURN_IF_ERROR(Environment());
    TAKT_RETURN_IF_ERROR(User());
    TAKT_RETURN_IF_ERROR(Limits());
    TAKT_RETURN_IF_ERROR(Ports());
    TAKT_RETURN_IF_ERROR(Gpus());
    WorkingDirectory();
    launch_.stop_signal = SignalNumber(spec_.stop_signal);
    if (launch_.stop_signal == 0) {
      return absl::InvalidArgumentError(
          StrCat("service ", spec_.service, ": \"", spec_.stop_signal, "\" is no signal"));
    }
    launch_.grace_ms = std::max<std::int64_t>(0, spec_.stop_grace.count());
    if (machine_.private_mounts) {
      TAKT_RETURN_IF_ERROR(Sandbox());
    } else {
      Translate();
    }
    return std::move(plan_);
  }

 private:
  absl::Status Wrong(const std::string& what) const {
    return absl::InvalidArgumentError(StrCat("service ", spec_.service, ": ", what));
  }

  absl::Status Command() {
    const auto entrypoint = spec_.entrypoint ? spec_.entrypoint : image_.entrypoint;
    // As in Docker: who sets another entrypoint does not get the image's command.
    auto command = spec_.command;
    if (!command && !spec_.entrypoint) command = image_.command;
    if (entrypoint) launch_.arguments = *entrypoint;
    if (command) {
      launch_.arguments.insert(launch_.arguments.end(), command->begin(), command->end());
    }
    if (launch_.arguments.empty()) {
      return Wrong(StrCat("image \"", spec_.image, "\" has no command of its own: give one"));
    }
    for (const std::string& a : launch_.arguments) {
      if (a.find('\0') != std::string::npos) return Wrong("a command cannot hold a NUL");
    }
    if (launch_.arguments[0].empty()) return Wrong("the command starts with an empty word");
    return absl::OkStatus();
  }

  absl::Status Target(const std::string& path, const char* what) const {
    const std::string clean = CleanPath(path);
    if (path.empty() || path.front() != '/' || clean == "/" ||
        path.find('\0') != std::string::npos || path.size() >= PATH_MAX) {
      return Wrong(
          StrCat("expected an absolute path below / for a ", what, ", got \"", path, "\""));
    }
    return absl::OkStatus();
  }

  absl::Status Mounts() {
    int number = 0;
    for (const MountSpec& m : spec_.mounts) {
      TAKT_RETURN_IF_ERROR(Target(m.target, "mount"));
      const std::string target = CleanPath(m.target);
      ++number;
      if (m.host_path.empty()) {
        tree_.placements[target] = {
            .kind = Placement::Kind::kTmpfs, .bytes = m.tmpfs_bytes, .mode = 01777};
        host_paths_[target] = Own(StrCat("tmpfs.", number));
        if (!machine_.private_mounts) plan_.directories.push_back(StrCat("tmpfs.", number));
        continue;
      }
      const std::string name = m.volume.empty() ? m.host_path : m.volume;
      if (m.host_path.front() != '/') {
        return Wrong(
            StrCat("volume ", name, ": expected an absolute path, got \"", m.host_path, "\""));
      }
      if (!Exists(m.host_path)) {
        return absl::FailedPreconditionError(
            m.volume.empty() ? StrCat(m.host_path, " is not there")
                             : StrCat("volume ", name, ": ", m.host_path, " is not there"));
      }
      tree_.placements[target] = {
          .kind = m.read_only ? Placement::Kind::kReadOnlyBind : Placement::Kind::kBind,
          .source = m.host_path};
      host_paths_[target] = m.host_path;
    }
    for (const auto& [target, source] : image_.mounts) {
      TAKT_RETURN_IF_ERROR(Target(target, "mount of the image"));
      tree_.placements.try_emplace(
          CleanPath(target), Placement{.kind = Placement::Kind::kReadOnlyBind, .source = source});
      host_paths_.try_emplace(CleanPath(target), source);
    }
    if (spec_.shm_bytes > 0) {
      tree_.placements["/dev/shm"] = {
          .kind = Placement::Kind::kTmpfs, .bytes = spec_.shm_bytes, .mode = 01777};
    }
    return absl::OkStatus();
  }

  // The image's programs appear as links, so that each finds what lies beside its real self.
  absl::Status Programs() {
    for (const ImageProgram& p : image_.programs) {
      if (p.path.front() == '/' && !InDirectoryOfRoot(p.path)) Link(p.path, p.file);
    }
    for (std::size_t i = 0; i < launch_.arguments.size(); ++i) {
      const ImageProgram* p = FindProgram(image_, launch_.arguments[i]);
      if (!p) continue;
      const bool path = launch_.arguments[i].front() == '/';
      if (i == 0 && (!path || InDirectoryOfRoot(launch_.arguments[i]))) {
        launch_.arguments[i] = p->file;
        Show(p->file);
      } else if (path) {
        Link(launch_.arguments[i], p->file);
      }
    }
    for (const std::string& directory : image_.path) Show(JoinPath(directory, "."));
    for (const auto& [name, value] : Inherited()) {
      if (value.starts_with('/') && IsDirectory(value)) Show(JoinPath(value, "."));
    }
    return absl::OkStatus();
  }

  std::map<std::string, std::string> Inherited() const {
    std::map<std::string, std::string> inherited;
    for (const std::string& name : image_.inherit) {
      const auto found = machine_.environment.find(name);
      if (found != machine_.environment.end()) inherited.insert(*found);
    }
    return inherited;
  }

  // A link into a directory that the root has, as /usr/bin, means to make that directory anew,
  // entry by entry: slow, and refused where there are many. So a program there is started by its
  // real path.
  bool InDirectoryOfRoot(const std::string& path) const {
    const std::string directory = Dirname(CleanPath(path));
    return !directory.empty() &&
           IsDirectory(tree_.root == "/" ? directory : tree_.root + directory);
  }

  void Link(const std::string& path, const std::string& file) {
    tree_.placements.try_emplace(CleanPath(path),
                                 Placement{.kind = Placement::Kind::kLink, .source = file});
    host_paths_.try_emplace(CleanPath(path), file);
    Show(file);
  }

  // Makes a file of the host visible at its own path where the tree would not have it.
  void Show(const std::string& file) {
    std::vector<std::string> directories = {Dirname(file), Dirname(RealPath(file))};
    // Takt's own programs find data and Python beside themselves: all of the installation shows.
    if (Below(file, machine_.prefix)) {
      directories.push_back(machine_.prefix);
      directories.push_back(RealPath(JoinPath(machine_.prefix, "lib/takt/venv")));
    }
    for (const std::string& directory : directories) {
      if (directory.empty() || (tree_.root == "/" && !Hidden(directory))) continue;
      tree_.placements.try_emplace(
          directory, Placement{.kind = Placement::Kind::kReadOnlyBind, .source = directory});
    }
  }

  std::string Own(const std::string& name) const { return JoinPath(directory_, name); }

  void LayFile(const std::string& name, const std::string& path, const std::string& content) {
    plan_.files[name] = content;
    tree_.placements[CleanPath(path)] = {.kind = Placement::Kind::kReadOnlyBind,
                                         .source = Own(name)};
    host_paths_[CleanPath(path)] = Own(name);
  }

  absl::Status Files() {
    hostname_ = HostnameOf(spec_);
    if (hostname_.size() > HOST_NAME_MAX) {
      return Wrong(
          StrCat("hostname \"", hostname_, "\" is longer than ", HOST_NAME_MAX, " characters"));
    }
    for (const std::string& extra : spec_.extra_hosts) {
      if (!ParseExtraHost(extra)) {
        return Wrong(StrCat("expected \"name:address\" in extra_hosts, got \"", extra, "\""));
      }
    }
    const std::string hosts = HostsFile(spec_, siblings_);
    if (machine_.private_mounts) {
      LayFile("hosts", "/etc/hosts", hosts);
      if (image_.root != "host" && Exists("/etc/resolv.conf")) {
        tree_.placements.try_emplace("/etc/resolv.conf",
                                     Placement{.kind = Placement::Kind::kReadOnlyBind,
                                               .source = RealPath("/etc/resolv.conf")});
      }
    }
    int number = 0;
    for (const auto& [path, content] : spec_.files) {
      TAKT_RETURN_IF_ERROR(Target(path, "file"));
      LayFile(StrCat("file.", ++number), path, content);
    }
    return absl::OkStatus();
  }

  absl::Status Environment() {
    std::map<std::string, std::string> environment;
    std::string path;
    for (const std::string& directory : image_.path) path += directory + ":";
    environment["PATH"] = path + kDefaultPath;
    environment["HOSTNAME"] = hostname_;
    // The only place of the tree that is writable and always there.
    environment["HOME"] = machine_.private_mounts ? "/tmp" : Own("tmp");
    if (!machine_.private_mounts) {
      environment["TMPDIR"] = Own("tmp");
      plan_.directories.push_back("tmp");
    }
    for (const auto& [name, value] : image_.environment) environment[name] = value;
    for (const auto& [name, value] : Inherited()) environment[name] = value;
    for (const auto& [name, value] : spec_.environment) {
      if (name.empty() || name.find_first_of(std::string("=\0", 2)) != std::string::npos ||
          value.find('\0') != std::string::npos) {
        return Wrong(StrCat("\"", name, "\" is no name of a variable, or its value holds a NUL"));
      }
      environment[name] = value;
    }
    environment["TAKT_INSTANCE"] = instance_;
    environment["TAKT_REPLICA"] = std::to_string(replica_);
    for (const auto& [name, value] : environment) {
      launch_.environment.push_back(StrCat(name, "=", value));
    }
    return absl::OkStatus();
  }

  absl::Status User() {
    const std::string& user = spec_.user.empty() ? image_.user : spec_.user;
    if (user.empty()) return absl::OkStatus();
    TAKT_ASSIGN_OR_RETURN(launch_.user, LookUpUser(user, tree_.root));
    if (!machine_.root && !machine_.private_mounts && launch_.user[0] != geteuid()) {
      return absl::FailedPreconditionError(
          StrCat("service ", spec_.service, ": running as user ", user,
                 " needs the daemon to run as root, or namespaces"));
    }
    launch_.has_user = machine_.root;
    return absl::OkStatus();
  }

  absl::Status Limits() {
    for (const auto& [name, limits] : spec_.ulimits) {
      const auto it = Resources().find(name);
      if (it == Resources().end()) {
        std::vector<std::string_view> known;
        for (const auto& [k, v] : Resources()) known.push_back(k);
        const auto near = NearMiss(name, known);
        return Wrong(StrCat("there is no limit \"", name, "\"",
                            near ? StrCat(", did you mean \"", *near, "\"?") : ""));
      }
      launch_.resources.push_back(
          {it->second, LimitValue(limits.first), LimitValue(limits.second)});
    }
    // RLIMIT_AS would count what TensorFlow only reserves.
    if (spec_.memory_bytes > 0 && !machine_.memory_groups && !spec_.ulimits.count("data")) {
      launch_.resources.push_back({RLIMIT_DATA, spec_.memory_bytes, spec_.memory_bytes});
    }
    return absl::OkStatus();
  }

  // A port published as itself is the program's own; others it gets at its own address, and the
  // shim listens in its place.
  absl::Status Ports() {
    launch_.move_all_ports = spec_.replicas > 1;
    for (const PortMapping& p : spec_.ports) {
      if (p.target == 0) return Wrong("a port of the instance must be 1 to 65535, got 0");
      if (p.protocol != "tcp" && p.protocol != "udp") {
        return Wrong(StrCat("expected protocol tcp or udp, got \"", p.protocol, "\""));
      }
      const bool everywhere = p.host_ip.empty() || p.host_ip == "0.0.0.0" || p.host_ip == "::";
      const bool as_itself = p.published == p.target && spec_.replicas <= 1;
      if (p.protocol == "udp") {
        if (as_itself) continue;
        return absl::UnimplementedError(
            StrCat("service ", spec_.service, ": UDP port ", p.target,
                   " can only be published as itself, by one replica, in the embedded runtime"));
      }
      if (as_itself && everywhere) {
        launch_.shared_ports.push_back(p.target);
        continue;
      }
      launch_.moved_ports.push_back(p.target);
      launch_.forwards.push_back({everywhere ? "0.0.0.0" : p.host_ip, p.published, p.target});
    }
    return absl::OkStatus();
  }

  absl::Status Gpus() {
    if (spec_.gpus == 0) return absl::OkStatus();
    if (machine_.gpus < std::max(1, spec_.gpus)) {
      return absl::FailedPreconditionError(StrCat("service ", spec_.service, " wants ",
                                                  spec_.gpus < 0 ? "all" : StrCat(spec_.gpus),
                                                  " GPUs, this machine has ", machine_.gpus));
    }
    for (const std::string& device : machine_.gpu_devices) {
      tree_.placements[device] = {.kind = Placement::Kind::kDeviceBind, .source = device};
    }
    return absl::OkStatus();
  }

  void WorkingDirectory() {
    const std::string& directory =
        spec_.working_dir.empty() ? image_.working_dir : spec_.working_dir;
    launch_.directory = directory.empty() ? "/" : CleanPath(directory);
    if (launch_.directory == "/") return;
    // The mount that it lies in, where there is one: made there when missing, as Docker does.
    for (const auto& [target, host] : host_paths_) {
      if (!Below(launch_.directory, target)) continue;
      const auto& placement = tree_.placements.find(target);
      if (placement != tree_.placements.end() && placement->second.kind == Placement::Kind::kBind) {
        plan_.host_directories.push_back(host + launch_.directory.substr(target.size()));
      }
      return;
    }
    const std::string in_root =
        tree_.root == "/" ? launch_.directory : tree_.root + launch_.directory;
    if (!Exists(in_root)) {
      tree_.placements.try_emplace(launch_.directory,
                                   Placement{.kind = Placement::Kind::kDirectory});
    }
  }

  absl::Status Sandbox() {
    tree_.placements[kShimInside] = {.kind = Placement::Kind::kReadOnlyBind,
                                     .source = machine_.shim};
    launch_.sandbox = {kBubblewrap,  "--unshare-pid", "--unshare-ipc",     "--unshare-uts",
                       "--hostname", hostname_,       "--die-with-parent", "--as-pid-1"};
    if (machine_.root) {
      for (const char* capability :
           {"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID",
            "CAP_SETUID", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT"}) {
        launch_.sandbox.insert(launch_.sandbox.end(), {"--cap-add", capability});
      }
    } else if (!launch_.user.empty()) {
      launch_.sandbox.insert(launch_.sandbox.end(),
                             {"--unshare-user", "--uid", std::to_string(launch_.user[0]), "--gid",
                              std::to_string(launch_.user[1])});
    }
    TAKT_ASSIGN_OR_RETURN(const auto arguments, BuildTree(tree_));
    launch_.sandbox.insert(launch_.sandbox.end(), arguments.begin(), arguments.end());
    launch_.sandbox.insert(launch_.sandbox.end(), {"--chdir", "/", "--", kShimInside, "init"});
    plan_.launch = std::move(launch_);
    return absl::OkStatus();
  }

  void Translate() {
    const auto translate = [&](const std::string& text) {
      return TranslateNames(TranslatePaths(text, host_paths_), HostAddresses(spec_, siblings_));
    };
    for (std::string& a : launch_.arguments) a = translate(a);
    for (std::string& e : launch_.environment) {
      const std::size_t value = e.find('=') + 1;
      e = e.substr(0, value) + translate(e.substr(value));
    }
    launch_.directory = TranslatePaths(launch_.directory, host_paths_);
    plan_.launch = std::move(launch_);
  }

  const ServiceSpec& spec_;
  const Image& image_;
  const Machine& machine_;
  const std::string& directory_;
  const std::string& instance_;
  const int replica_;
  const Siblings& siblings_;
  Tree tree_;
  std::map<std::string, std::string> host_paths_;  // for translation
  std::string hostname_;
  shim::Launch launch_;
  LaunchPlan plan_;
};

}  // namespace

absl::StatusOr<LaunchPlan> PlanLaunch(const ServiceSpec& spec, const Image& image,
                                      const Machine& machine, const std::string& directory,
                                      const std::string& instance, int replica,
                                      const Siblings& siblings) {
  return Planner(spec, image, machine, directory, instance, replica, siblings).Plan();
}

std::string HostsFile(const ServiceSpec& spec, const Siblings& siblings) {
  std::string text = "127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n";
  const std::string hostname = HostnameOf(spec);
  const auto addresses = HostAddresses(spec, siblings);
  if (!addresses.count(hostname)) text += StrCat("127.0.0.1 ", hostname, "\n");
  for (const auto& [name, at] : addresses) {
    for (const std::string& address : at) text += StrCat(address, " ", name, "\n");
  }
  return text;
}

int SignalNumber(const std::string& text) {
  int number = 0;
  if (absl::SimpleAtoi(text, &number)) return number > 0 && number < NSIG ? number : 0;
  std::string name = absl::AsciiStrToUpper(text);
  if (name.rfind("SIG", 0) == 0) name.erase(0, 3);
  for (number = 1; number < NSIG; ++number) {
    const char* known = sigabbrev_np(number);
    if (known && name == known) return number;
  }
  return 0;
}

absl::StatusOr<std::vector<std::uint32_t>> LookUpUser(const std::string& user,
                                                      const std::string& root) {
  const std::pair<std::string, std::string> parts = absl::StrSplit(user, absl::MaxSplits(':', 1));
  // The line of a passwd or group file whose field `field` is `value`.
  const auto find = [&](const char* file, std::size_t field,
                        const std::string& value) -> std::vector<std::string> {
    const auto text = ReadFile(JoinPath(root, file), kMaxAccountFileBytes);
    if (!text.ok()) return {};
    for (const auto& line : absl::StrSplit(*text, '\n')) {
      std::vector<std::string> fields = absl::StrSplit(line, ':');
      if (fields.size() >= 4 && fields[field] == value) return fields;
    }
    return {};
  };
  std::uint32_t uid = 0, gid = 0;
  const bool number = absl::SimpleAtoi(parts.first, &uid);
  const auto passwd = find("etc/passwd", number ? 2 : 0, parts.first);
  if (passwd.empty() && !number) {
    return absl::InvalidArgumentError(StrCat("there is no user \"", parts.first, "\""));
  }
  if (!passwd.empty() &&
      (!absl::SimpleAtoi(passwd[2], &uid) || !absl::SimpleAtoi(passwd[3], &gid))) {
    return absl::InvalidArgumentError(StrCat("user \"", parts.first, "\" has no numbers"));
  }
  if (!parts.second.empty() && !absl::SimpleAtoi(parts.second, &gid)) {
    const auto group = find("etc/group", 0, parts.second);
    if (group.empty() || !absl::SimpleAtoi(group[2], &gid)) {
      return absl::InvalidArgumentError(StrCat("there is no group \"", parts.second, "\""));
    }
  }
  return std::vector<std::uint32_t>{uid, gid};
}

}  // namespace takt::runtime
