#include "runtime/embedded/plan_launch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>

#include <algorithm>
#include <csignal>

#include "absl/strings/str_join.h"
#include "base/fs.h"
#include "runtime/embedded/control_groups.h"
#include "runtime/embedded/prober.h"
#include "runtime/embedded/records.h"

namespace takt::runtime {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;

class PlanTest : public testing::Test {
 protected:
  PlanTest() {
    machine_.shim = "/opt/takt-shim";
    spec_.app = "app";
    spec_.service = "s";
    spec_.image = "x";
    spec_.command = {"run"};
  }
  absl::StatusOr<LaunchPlan> Plan() {
    return PlanLaunch(spec_, image_, machine_, "/data/instances/i", "i", 0, siblings_);
  }
  shim::Launch Launch() {
    const auto plan = Plan();
    EXPECT_TRUE(plan.ok()) << plan.status();
    return plan.ok() ? plan->launch : shim::Launch();
  }

  ServiceSpec spec_;
  Image image_;
  Machine machine_;
  Siblings siblings_;
};

TEST_F(PlanTest, EntrypointAndCommandOfServiceAndImageGoTogetherAsInDocker) {
  using Words = std::optional<std::vector<std::string>>;
  struct Case {
    Words service_entrypoint, service_command, image_entrypoint, image_command;
    std::vector<std::string> expected;
  };
  const Case cases[] = {
      {{}, {}, {{"e"}}, {{"c"}}, {"e", "c"}},
      {{}, {{"d"}}, {{"e"}}, {{"c"}}, {"e", "d"}},
      {{{"f"}}, {}, {{"e"}}, {{"c"}}, {"f"}},
      {{{"f"}}, {{"d"}}, {{"e"}}, {{"c"}}, {"f", "d"}},
      {Words(std::in_place), {{"d"}}, {{"e"}}, {}, {"d"}},
      {{}, {}, {}, {{"c", "1"}}, {"c", "1"}},
  };
  for (const Case& c : cases) {
    spec_.entrypoint = c.service_entrypoint;
    spec_.command = c.service_command;
    image_.entrypoint = c.image_entrypoint;
    image_.command = c.image_command;
    EXPECT_EQ(Launch().arguments, c.expected);
  }
}

TEST_F(PlanTest, PortsAreTheProgramsOwnOrMovedAndForwarded) {
  spec_.ports = {{"", 80, 80}, {"", 8080, 81}, {"127.0.0.1", 82, 82}, {"", 53, 53, "udp"}};
  shim::Launch launch = Launch();
  EXPECT_THAT(launch.shared_ports, ElementsAre(80));
  EXPECT_THAT(launch.moved_ports, ElementsAre(81, 82));
  EXPECT_FALSE(launch.move_all_ports);
  ASSERT_EQ(launch.forwards.size(), 2u);
  EXPECT_EQ(launch.forwards[0].listen_ip, "0.0.0.0");
  EXPECT_EQ(launch.forwards[0].published, 8080);
  EXPECT_EQ(launch.forwards[0].target, 81);
  EXPECT_EQ(launch.forwards[1].listen_ip, "127.0.0.1");
  spec_.ports = {{"", 80, 80}};
  spec_.replicas = 2;
  launch = Launch();
  EXPECT_TRUE(launch.move_all_ports);
  EXPECT_EQ(launch.forwards.size(), 1u);
  spec_.ports = {};
  spec_.replicas = 1;
  EXPECT_FALSE(Launch().remaps());
  spec_.ports = {{"", 54, 53, "udp"}};
  EXPECT_EQ(Plan().status().code(), absl::StatusCode::kUnimplemented);
}

TEST_F(PlanTest, AMemoryLimitWithoutControlGroupsIsOneOfTheProcess) {
  spec_.memory_bytes = 1 << 30;
  EXPECT_THAT(Launch().resources, IsEmpty());
  machine_.memory_groups = false;
  const auto resources = Launch().resources;
  ASSERT_EQ(resources.size(), 1u);
  EXPECT_EQ(resources[0].which, RLIMIT_DATA);
  EXPECT_EQ(resources[0].hard, std::uint64_t{1} << 30);
}

TEST_F(PlanTest, AnUnprivilegedDaemonMapsTheUserWhereNamespacesAllowIt) {
  spec_.user = "1234:5";
  EXPECT_THAT(absl::StrJoin(Launch().sandbox, " "), Not(HasSubstr("--uid")));
  EXPECT_THAT(Launch().user, ElementsAre(1234, 5));
  machine_.root = false;
  EXPECT_THAT(absl::StrJoin(Launch().sandbox, " "), HasSubstr("--unshare-user --uid 1234 --gid 5"));
  EXPECT_FALSE(Launch().has_user);
  machine_.private_mounts = false;
  EXPECT_EQ(Plan().status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(PlanTest, GpusArePassedThroughOrRefusedByNumber) {
  spec_.gpus = 1;
  EXPECT_EQ(Plan().status().message(), "service s wants 1 GPUs, this machine has 0");
  machine_.gpus = 1;
  machine_.gpu_devices = {"/dev/null"};
  EXPECT_THAT(absl::StrJoin(Launch().sandbox, " "), HasSubstr("--dev-bind /dev/null /dev/null"));
  spec_.gpus = -1;
  EXPECT_TRUE(Plan().ok());
  spec_.gpus = 2;
  EXPECT_EQ(Plan().status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(PlanTest, ARootOfItsOwnNeedsNamespaces) {
  TempDir root;
  image_.root = root.path();
  EXPECT_TRUE(Plan().ok());
  machine_.private_mounts = false;
  EXPECT_EQ(Plan().status().code(), absl::StatusCode::kUnimplemented);
  EXPECT_THAT(std::string(Plan().status().message()), HasSubstr(root.path()));
}

TEST_F(PlanTest, WithoutNamespacesPathsAndNamesAreTranslated) {
  machine_.private_mounts = false;
  siblings_ = {{"web", {"127.64.0.1"}}, {"db", {}}};
  spec_.mounts = {{"v", "/usr", "/model", false, 0}};
  spec_.files = {{"/run/secret", "x"}};
  spec_.command = {"run", "--base=/model/1", "/run/secret", "web:80", "db:1"};
  const auto plan = Plan();
  ASSERT_TRUE(plan.ok());
  EXPECT_THAT(plan->launch.arguments,
              ElementsAre("run", "--base=/usr/1", "/data/instances/i/file.1", "127.64.0.1:80",
                          "127.0.0.1:1"));
  EXPECT_THAT(plan->launch.sandbox, IsEmpty());
  EXPECT_EQ(plan->files.at("file.1"), "x");
}

TEST_F(PlanTest, HostsNameServicesAndExtraHosts) {
  siblings_ = {{"s", {}}, {"web", {"127.64.0.1", "127.64.0.2"}}};
  spec_.extra_hosts = {"a:10.0.0.1", "b=::1", "up:host-gateway"};
  spec_.links = {{"front", "web"}, {"soon", "not-there-yet"}};
  const std::string hosts = HostsFile(spec_, siblings_);
  for (const char* line :
       {"127.0.0.1 localhost\n", "127.0.0.1 s\n", "127.64.0.1 web\n", "127.64.0.2 web\n",
        "127.64.0.1 front\n", "127.0.0.1 soon\n", "10.0.0.1 a\n", "::1 b\n", "127.0.0.1 up\n"}) {
    EXPECT_THAT(hosts, HasSubstr(line));
  }
}

TEST(SignalNumberTest, NamesAndNumbers) {
  const std::pair<const char*, int> cases[] = {
      {"SIGTERM", SIGTERM}, {"TERM", SIGTERM}, {"sigint", SIGINT}, {"9", 9},
      {"SIGQUIT", SIGQUIT}, {"", 0},           {"0", 0},           {"-1", 0},
      {"65000", 0},         {"SIGNONE", 0},    {"SIG", 0}};
  for (const auto& [name, number] : cases) EXPECT_EQ(SignalNumber(name), number) << name;
}

TEST(LookUpUserTest, ByTheFilesOfTheRoot) {
  TempDir root;
  ASSERT_TRUE(MakeDirs(root.path() + "/etc").ok());
  ASSERT_TRUE(WriteFileAtomic(root.path() + "/etc/passwd",
                              "root:x:0:0::/:/bin/sh\nanna:x:1001:1002::/:\nbad:x:y:z::/:\n")
                  .ok());
  ASSERT_TRUE(WriteFileAtomic(root.path() + "/etc/group", "staff:x:50:\n").ok());
  const auto look = [&](const std::string& user) {
    const auto found = LookUpUser(user, root.path());
    return found.ok() ? absl::StrJoin(*found, ":") : std::string(found.status().message());
  };
  EXPECT_EQ(look("anna"), "1001:1002");
  EXPECT_EQ(look("1001"), "1001:1002");
  EXPECT_EQ(look("77"), "77:0");
  EXPECT_EQ(look("77:staff"), "77:50");
  EXPECT_EQ(look("anna:9"), "1001:9");
  EXPECT_EQ(look("otto"), "there is no user \"otto\"");
  EXPECT_EQ(look("anna:none"), "there is no group \"none\"");
  EXPECT_EQ(look("bad"), "user \"bad\" has no numbers");
}

TEST(ControlGroupMountsTest, BothVersionsAndTheirMixture) {
  const auto v1 = ParseControlGroupMounts(
      "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n"
      "cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,relatime,cpu,cpuacct 0 0\n"
      "cgroup /sys/fs/cgroup/memory cgroup rw,memory 0 0\n"
      "cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n");
  EXPECT_EQ(v1.memory, "/sys/fs/cgroup/memory");
  EXPECT_EQ(v1.cpu, "/sys/fs/cgroup/cpu,cpuacct");
  EXPECT_EQ(v1.cpuacct, v1.cpu);
  EXPECT_EQ(v1.unified, "/sys/fs/cgroup/unified");
  const auto v2 = ParseControlGroupMounts("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n");
  EXPECT_EQ(v2.memory, "");
  EXPECT_EQ(v2.unified, "/sys/fs/cgroup");
  EXPECT_EQ(ParseControlGroupMounts("nonsense\n\n").unified, "");
}

// Where control groups are writable: what is asked for arrives.
TEST(ControlGroupsTest, LimitsArrive) {
  const ControlGroups groups = ControlGroups::Detect();
  if (!groups.memory() || !groups.cpu()) GTEST_SKIP() << "no control group can be written here";
  const std::string id = "takt-test-limits";
  const auto group = groups.Make(id, 1.5, 64 << 20);
  ASSERT_TRUE(group.ok()) << group.status();
  std::string seen;
  for (const std::string& directory : group->directories) {
    for (const char* file :
         {"memory.limit_in_bytes", "memory.max", "cpu.cfs_quota_us", "cpu.max"}) {
      seen += ReadFile(JoinPath(directory, file), 1000).value_or("");
    }
  }
  EXPECT_THAT(seen, HasSubstr("67108864"));
  EXPECT_THAT(seen, HasSubstr("150000"));
  EXPECT_TRUE(Exists(group->oom_file));
  EXPECT_TRUE(groups.Remove(id));
  EXPECT_FALSE(Exists(group->directories[0]));
  EXPECT_TRUE(groups.Remove(id)) << "nothing there is no failure";
}

TEST(ProbeUrlTest, AddressesAreTakenApart) {
  struct Case {
    const char* url;
    bool good;
    const char* host;
    int port;
    const char* path;
  };
  const Case cases[] = {
      {"http://localhost:8501/v1/x?y", true, "localhost", 8501, "/v1/x?y"},
      {"http://localhost", true, "localhost", 80, "/"},
      {"127.0.0.1:9000", true, "127.0.0.1", 9000, "/"},
      {"localhost", false, "", 0, ""},
      {"http://:80/", false, "", 0, ""},
      {"http://h:99999/", false, "", 0, ""},
      {"http://h:x/", false, "", 0, ""},
  };
  for (const Case& c : cases) {
    std::string host, path;
    int port = 0;
    ASSERT_EQ(ParseProbeUrl(c.url, host, port, path), c.good) << c.url;
    if (!c.good) continue;
    EXPECT_EQ(host, c.host);
    EXPECT_EQ(port, c.port);
    EXPECT_EQ(path, c.path);
  }
}

TEST(RecordsTest, AServiceSurvivesWithEveryField) {
  ServiceRecord record;
  record.last_generation = 9;
  record.generations = {7, 9};
  record.stopped = true;
  ServiceSpec& s = record.spec;
  s.app = "a";
  s.service = "s";
  s.revision = 3;
  s.image = "i";
  s.image_digest = "sha256:1";
  s.entrypoint = std::vector<std::string>{};
  s.environment = {{"A", "\xe4\xb8\xad"}};
  s.labels = {{"l", "1"}};
  s.ports = {{"127.0.0.1", 1, 2, "udp"}};
  s.mounts = {{"v", "/h", "/t", true, 5}};
  s.files = {{"/f", std::string("\0\xff\n", 3)}};
  s.restart = RestartPolicy::kOnFailure;
  s.restart_max_attempts = 4;
  s.health.kind = HealthProbe::Kind::kHttp;
  s.health.command = {"c"};
  s.health.url = "u";
  s.health.interval = std::chrono::milliseconds(1);
  s.health.timeout = std::chrono::milliseconds(2);
  s.health.start_period = std::chrono::milliseconds(3);
  s.health.retries = 5;
  s.replicas = 2;
  s.cpus = 0.25;
  s.memory_bytes = std::uint64_t{1} << 40;
  s.shm_bytes = 6;
  s.gpus = -1;
  s.working_dir = "/w";
  s.user = "u";
  s.hostname = "h";
  s.stop_signal = "SIGINT";
  s.stop_grace = std::chrono::milliseconds(7);
  s.init = s.read_only = true;
  s.ulimits = {{"nofile", {-1, 8}}};
  s.extra_hosts = {"x:y"};
  const auto back = ServiceFromJson(ServiceToJson(record));
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->spec, s);
  EXPECT_EQ(back->generations, record.generations);
  EXPECT_EQ(back->last_generation, 9u);
  EXPECT_TRUE(back->stopped);
  EXPECT_FALSE(back->removed);
  EXPECT_EQ(ServiceFromJson("{}").status().code(), absl::StatusCode::kDataLoss);
}

}  // namespace
}  // namespace takt::runtime
