// The embedded runtime with real processes, in both of its modes.
#include "runtime/embedded/embedded_runtime.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <set>

#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "base/fs.h"
#include "base/ids.h"
#include "runtime/conformance_test.h"

namespace takt::runtime {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using testing::ElementsAre;
using testing::HasSubstr;

constexpr seconds kDeadline{30};

std::string ShellQuote(const std::string& text) { return "'" + text + "'"; }

// What a Program does, in shell.
std::string ShellOf(const Program& program) {
  std::string script;
  if (program.ignores_stop) script += "trap '' TERM; ";
  if (program.exit_on_stop) {
    script += "trap 'exit " + std::to_string(*program.exit_on_stop) + "' TERM; ";
  }
  for (const std::string& line : program.lines) script += "echo " + ShellQuote(line) + "; ";
  if (program.exit_code) return script + "exit " + std::to_string(*program.exit_code);
  if (!program.ignores_stop && !program.exit_on_stop) return script + "exec sleep 100000";
  return script + "while :; do sleep 0.02; done";
}

std::uint16_t AnyFreePort() {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  socklen_t size = sizeof(address);
  EXPECT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), size), 0);
  EXPECT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size), 0);
  close(fd);
  return ntohs(address.sin_port);
}

// For what nobody tells: looks again and again, until the deadline.
bool WaitUntil(const std::function<bool()>& condition) {
  const auto deadline = std::chrono::steady_clock::now() + kDeadline;
  while (!condition()) {
    if (std::chrono::steady_clock::now() > deadline) return false;
    poll(nullptr, 0, 5);
  }
  return true;
}

class EmbeddedHarness final : public ConformanceHarness {
 public:
  explicit EmbeddedHarness(bool translate) {
    options_.data_dir = dir_.path();
    options_.prefix = TAKT_BINARY_DIR;
    options_.force_translate = translate;
    Reopen();
  }
  ~EmbeddedHarness() override {
    if (!runtime_) return;
    const auto services = runtime_->Observe();
    for (const ServiceStatus& s : *services) {
      for (const InstanceStatus& i : s.instances) {
        // Tests do not wait for grace periods in the end.
        if (i.pid > 0) kill(static_cast<pid_t>(i.pid), SIGKILL);
      }
      EXPECT_EQ(runtime_->Remove(s.app, s.service), absl::OkStatus());
    }
    EXPECT_TRUE(Eventually([&] { return runtime_->Observe()->empty(); }));
  }
  // As a new daemon would find it.
  void Reopen() {
    runtime_.reset();
    auto opened = EmbeddedRuntime::Open(options_, clock_);
    ASSERT_TRUE(opened.ok()) << opened.status();
    runtime_ = *std::move(opened);
    const auto notice = [this] {
      std::lock_guard lock(mutex_);
      ++changes_;
      changed_.notify_all();
    };
    runtime_->SetListener(notice);
    runtime_->SetLogListener([notice](const std::string&) { notice(); });
  }
  void Close() { runtime_.reset(); }
  EmbeddedOptions& options() { return options_; }
  const std::string& data_dir() const { return dir_.path(); }

  EmbeddedRuntime& runtime() override { return *runtime_; }
  ServiceSpec Spec(const std::string& service, const Program& program) override {
    return Shell(service, ShellOf(program));
  }
  ServiceSpec Shell(const std::string& service, const std::string& script) {
    ServiceSpec spec;
    spec.app = "app";
    spec.service = service;
    spec.image = "takt/host";
    spec.command = {"sh", "-c", script};
    return spec;
  }
  bool Eventually(const std::function<bool()>& condition) override {
    const auto deadline = std::chrono::steady_clock::now() + kDeadline;
    while (std::chrono::steady_clock::now() < deadline) {
      if (condition()) return true;
      std::unique_lock lock(mutex_);
      const int seen = changes_;
      changed_.wait_for(lock, milliseconds(20), [&] { return changes_ != seen; });
    }
    return condition();
  }
  // Longer than what follows a change at once; a back-off is longer still.
  void Settle() override {
    int rounds = 0;
    Eventually([&] { return ++rounds > 15; });
  }
  std::uint16_t FreePort() override { return AnyFreePort(); }

 private:
  TempDir dir_;
  RealClock clock_;
  EmbeddedOptions options_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int changes_ = 0;
  std::unique_ptr<EmbeddedRuntime> runtime_;
};

INSTANTIATE_TEST_SUITE_P(
    Embedded, RuntimeConformance,
    testing::Values(
        RuntimeUnderTest{"mounts", [] { return std::make_unique<EmbeddedHarness>(false); }},
        RuntimeUnderTest{"translated", [] { return std::make_unique<EmbeddedHarness>(true); }}),
    [](const auto& info) { return info.param.name; });

// However full the directory is in which an image says that its program lies.
TEST(Programs, InADirectoryThatTheRootHas) {
  for (const bool translate : {false, true}) {
    EmbeddedHarness harness(translate);
    ASSERT_EQ(WriteFileAtomic(JoinPath(harness.data_dir(), "images.json"),
                              R"({"images": [{"names": ["echoes"], "root": "host",
                                  "programs": {"/usr/bin/takt-no-such": "/bin/echo"}}]})"),
              absl::OkStatus());
    ServiceSpec spec = harness.Shell("echo", "");
    spec.image = "echoes";
    spec.command = {"/usr/bin/takt-no-such", "hello"};
    ASSERT_EQ(harness.runtime().Deploy(spec), absl::OkStatus());
    std::vector<LogLine> lines;
    EXPECT_TRUE(harness.Eventually([&] {
      const std::vector<ServiceStatus> observed = *harness.runtime().Observe();
      if (observed.empty() || observed[0].instances.empty()) return false;
      lines = *harness.runtime().ReadLog(observed[0].instances[0].id, 0, 10);
      return !lines.empty();
    }));
    ASSERT_FALSE(lines.empty());
    EXPECT_EQ(lines[0].text, "hello");
  }
}

// A variable of the daemon's environment reaches the instances whose image asks for it, and the
// directory that it names can be read there, wherever it lies.
TEST(Inherit, AVariableAndTheDirectoryThatItNames) {
  TempDir digits;  // below /tmp, of which instances have one of their own
  ASSERT_EQ(WriteFileAtomic(JoinPath(digits.path(), "file"), "content"), absl::OkStatus());
  ASSERT_EQ(setenv("TAKT_TEST_DIRECTORY", digits.path().c_str(), 1), 0);
  for (const bool translate : {false, true}) {
    EmbeddedHarness harness(translate);
    ASSERT_EQ(WriteFileAtomic(JoinPath(harness.data_dir(), "images.json"),
                              R"({"images": [{"names": ["asks"], "root": "host",
                                  "inherit": ["TAKT_TEST_DIRECTORY", "TAKT_TEST_UNSET"]}]})"),
              absl::OkStatus());
    const std::string script =
        "cat $TAKT_TEST_DIRECTORY/file 2>/dev/null; echo \" ${TAKT_TEST_DIRECTORY-none} "
        "${TAKT_TEST_UNSET-unset}\"";
    for (const std::string image : {"asks", "takt/host"}) {
      ServiceSpec spec = harness.Shell(image == "asks" ? "asks" : "other", script);
      spec.image = image;
      ASSERT_EQ(harness.runtime().Deploy(spec), absl::OkStatus());
      std::vector<LogLine> lines;
      ASSERT_TRUE(harness.Eventually([&] {
        const auto observed = harness.runtime().Observe();
        for (const ServiceStatus& service : *observed) {
          if (service.service != spec.service) continue;
          for (const InstanceStatus& instance : service.instances) {
            if (instance.state != InstanceState::kExited) continue;
            lines = *harness.runtime().ReadLog(instance.id, 0, 10);
            return true;
          }
        }
        return false;
      }));
      ASSERT_FALSE(lines.empty());
      EXPECT_EQ(lines.back().text,
                image == "asks" ? "content " + digits.path() + " unset" : " none unset");
    }
  }
  unsetenv("TAKT_TEST_DIRECTORY");
}

// What both modes do alike.
class EmbeddedTest : public testing::TestWithParam<bool> {
 protected:
  EmbeddedTest() : harness_(GetParam()) {}

  bool translated() const { return GetParam(); }
  EmbeddedRuntime& runtime() { return harness_.runtime(); }
  ServiceSpec Shell(const std::string& script) { return harness_.Shell("s", script); }
  ServiceStatus Status(const std::string& service = "s") {
    const auto services = runtime().Observe();
    for (const ServiceStatus& s : *services) {
      if (s.service == service) return s;
    }
    return {};
  }
  InstanceStatus Last(const std::string& service = "s") {
    const ServiceStatus status = Status(service);
    return status.instances.empty() ? InstanceStatus() : status.instances.back();
  }
  bool EventuallyIs(InstanceState state, const std::string& service = "s") {
    return harness_.Eventually([&] { return Last(service).state == state; });
  }
  std::vector<std::string> Lines(const std::string& id) {
    const auto lines = runtime().ReadLog(id, 0, 1'000'000);
    EXPECT_TRUE(lines.ok()) << lines.status();
    std::vector<std::string> texts;
    for (const LogLine& line : *lines) texts.push_back(line.text);
    return texts;
  }
  // Deploys a job, waits for its end, and returns what it wrote.
  std::vector<std::string> Run(const ServiceSpec& spec) {
    EXPECT_EQ(runtime().Deploy(spec), absl::OkStatus());
    EXPECT_TRUE(harness_.Eventually([&] {
      const InstanceStatus last = Last(spec.service);
      return last.state == InstanceState::kExited && last.revision == spec.revision;
    })) << Last(spec.service).reason;
    return Lines(Last(spec.service).id);
  }
  std::string ReadOf(const std::string& path) { return ReadFile(path, 1 << 20).value_or("(none)"); }

  EmbeddedHarness harness_;
  TempDir volume_;
};

INSTANTIATE_TEST_SUITE_P(Modes, EmbeddedTest, testing::Bool(),
                         [](const auto& info) { return info.param ? "translated" : "mounts"; });

TEST_P(EmbeddedTest, SaysHowItWorks) {
  const Capabilities capabilities = runtime().capabilities();
  EXPECT_EQ(capabilities.name, "embedded");
  EXPECT_EQ(capabilities.private_mounts, !translated());
  const std::string warnings = absl::StrJoin(capabilities.warnings, "\n");
  EXPECT_EQ(warnings.find("no namespaces") != std::string::npos, translated()) << warnings;
  EXPECT_EQ(capabilities.features.count("read_only"), translated() ? 0u : 1u);
}

TEST_P(EmbeddedTest, AVolumeLiesAtItsPathInTheInstance) {
  ServiceSpec spec =
      Shell("echo written > /mnist_model/file; cat \"$WHERE\"; cat /mnist_model/sub/../file");
  ASSERT_TRUE(MakeDirs(volume_.path() + "/sub").ok());
  spec.environment["WHERE"] = "/mnist_model/file";
  spec.mounts = {{"mnist_model", volume_.path(), "/mnist_model", false, 0}};
  EXPECT_THAT(Run(spec), ElementsAre("written", "written"));
  EXPECT_EQ(ReadOf(volume_.path() + "/file"), "written\n");
}

TEST_P(EmbeddedTest, AVolumeThatIsNotThereIsNamed) {
  ServiceSpec spec = Shell("true");
  spec.mounts = {{"nas", "/no/such/place", "/data", false, 0}};
  const absl::Status status = runtime().Deploy(spec);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(std::string(status.message()), "volume nas: /no/such/place is not there");
  EXPECT_TRUE(runtime().Observe()->empty());
}

TEST_P(EmbeddedTest, AVolumeThatVanishesBeforeARestartIsTheReason) {
  ServiceSpec spec = Shell("exec sleep 100000");
  const std::string place = volume_.path() + "/v";
  ASSERT_TRUE(MakeDirs(place).ok());
  spec.mounts = {{"nas", place, "/data", false, 0}};
  ASSERT_EQ(runtime().Deploy(spec), absl::OkStatus());
  ASSERT_TRUE(EventuallyIs(InstanceState::kRunning));
  ASSERT_EQ(runtime().Stop("app", "s"), absl::OkStatus());
  ASSERT_TRUE(EventuallyIs(InstanceState::kExited));
  ASSERT_TRUE(RemoveAll(place).ok());
  EXPECT_EQ(runtime().Deploy(spec).code(), absl::StatusCode::kFailedPrecondition);
}

TEST_P(EmbeddedTest, FilesAndVariablesReachTheProgram) {
  ServiceSpec spec = Shell("cat /run/secrets/key /etc/app/conf; echo \"$A\" \"$PWD\" $HOSTNAME");
  spec.files = {{"/run/secrets/key", "s3cret\n"}, {"/etc/app/conf", "line\n"}};
  spec.environment = {{"A", "a  b'c"}};
  spec.working_dir = "/usr";
  spec.hostname = "box";
  EXPECT_THAT(Run(spec), ElementsAre("s3cret", "line", "a  b'c /usr box"));
}

TEST_P(EmbeddedTest, AProgramOfTheImageIsFoundAtThePathThatTheCommandNames) {
  ASSERT_TRUE(MakeDirs(volume_.path() + "/bin").ok());
  ASSERT_TRUE(
      WriteFileAtomic(volume_.path() + "/bin/server", "#!/bin/sh\necho served \"$@\"\n", 0755)
          .ok());
  ASSERT_TRUE(WriteFileAtomic(volume_.path() + "/bin/script.sh", "echo script \"$@\"\n").ok());
  ASSERT_TRUE(
      WriteFileAtomic(harness_.data_dir() + "/images.json",
                      StrCat(R"({"images": [{"names": ["team/serving"], "programs": {
        "/serving/bazel-bin/tensorflow_serving/server": ")",
                             volume_.path(), R"(/bin/server", "/script.sh": ")", volume_.path(),
                             R"(/bin/script.sh"}, "environment": {"X": "1"},
                               "command": ["/script.sh"], "entrypoint": ["sh"]}]})"))
          .ok());
  ServiceSpec spec = Shell("");
  spec.image = "registry.example.com/Team/Serving:2";
  spec.entrypoint = std::vector<std::string>{};
  spec.command = {"/serving/bazel-bin/tensorFlow_serving/Server", "--port=9000"};
  EXPECT_THAT(Run(spec), ElementsAre("served --port=9000"));
  spec.command = {"sh", "/script.sh", "/a"};
  spec.revision = 2;
  EXPECT_THAT(Run(spec), ElementsAre("script /a"));
  // The image's own entrypoint and command.
  spec.entrypoint = spec.command = std::nullopt;
  spec.revision = 3;
  EXPECT_THAT(Run(spec), ElementsAre("script"));
}

TEST_P(EmbeddedTest, AProgramThatIsNotThereIsTheReason) {
  ServiceSpec spec = Shell("");
  spec.command = {"/no/such/program"};
  Run(spec);
  EXPECT_EQ(Last().reason,
            "could not be started: program \"/no/such/program\": No such file or directory");
  EXPECT_FALSE(Last().exit_code || Last().signal);
  spec.command = {"/etc/passwd"};
  spec.revision = 2;
  Run(spec);
  EXPECT_THAT(Last().reason, HasSubstr("program \"/etc/passwd\": Permission denied"));
}

TEST_P(EmbeddedTest, ACommandIsNeeded) {
  ServiceSpec spec = Shell("");
  spec.command = std::nullopt;
  EXPECT_EQ(runtime().Deploy(spec).message(),
            "service s: image \"takt/host\" has no command of its own: give one");
}

TEST_P(EmbeddedTest, WhatMakesNoSenseIsRefusedByName) {
  struct Case {
    std::function<void(ServiceSpec&)> change;
    const char* message;
  };
  const Case cases[] = {
      {[](ServiceSpec& s) { s.stop_signal = "SIGNONE"; }, "\"SIGNONE\" is no signal"},
      {[](ServiceSpec& s) { s.user = "nobody-such"; }, "there is no user \"nobody-such\""},
      {[](ServiceSpec& s) {
         s.ulimits["nofiles"] = {1, 1};
       },
       "did you mean \"nofile\"?"},
      {[](ServiceSpec& s) { s.environment["A=B"] = ""; }, "is no name of a variable"},
      {[](ServiceSpec& s) {
         s.mounts = {{"v", "/usr", "relative", false, 0}};
       },
       "expected an absolute path below /"},
      {[](ServiceSpec& s) {
         s.mounts = {{"v", "/usr", "/a/../..", false, 0}};
       },
       "expected an absolute path below /"},
      {[](ServiceSpec& s) { s.files["x"] = ""; }, "expected an absolute path below /"},
      {[](ServiceSpec& s) { s.extra_hosts = {"nonsense"}; }, "expected \"name:address\""},
      {[](ServiceSpec& s) {
         s.ports = {{"", 80, 0}};
       },
       "1 to 65535"},
      {[](ServiceSpec& s) {
         s.ports = {{"1.2.3", 8080, 8080}};
       },
       "expected an IP address"},
      {[](ServiceSpec& s) {
         s.command = {{"a\0b", 3}};
       },
       "NUL"},
  };
  for (const Case& c : cases) {
    ServiceSpec spec = Shell("true");
    c.change(spec);
    const absl::Status status = runtime().Deploy(spec);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << c.message;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.message));
  }
  EXPECT_TRUE(runtime().Observe()->empty());
}

TEST_P(EmbeddedTest, RunsAsTheUserWithItsLimits) {
  if (geteuid() != 0) GTEST_SKIP() << "only root becomes another user";
  // Its files and its temporary directory are its own.
  ServiceSpec spec =
      Shell("id -u; id -g; ulimit -n; cat /etc/secret && echo x > ${TMPDIR:-/tmp}/x");
  spec.files["/etc/secret"] = "";
  ASSERT_EQ(chmod(harness_.data_dir().c_str(), 0711), 0);
  spec.user = "nobody";
  spec.ulimits["nofile"] = {123, 456};
  EXPECT_THAT(Run(spec), ElementsAre("65534", "65534", "123"));
  EXPECT_EQ(Last().exit_code, 0) << Last().reason;
  spec.user = "1234:77";
  spec.revision = 2;
  EXPECT_THAT(Run(spec), ElementsAre("1234", "77", "123"));
}

TEST_P(EmbeddedTest, TheStopSignalIsTheServices) {
  ServiceSpec spec = Shell("trap 'echo int; exit 5' INT; echo up; while :; do sleep 0.02; done");
  spec.stop_signal = "SIGINT";
  ASSERT_EQ(runtime().Deploy(spec), absl::OkStatus());
  ASSERT_TRUE(harness_.Eventually(
      [&] { return Last().state == InstanceState::kRunning && Lines(Last().id).size() == 1; }));
  ASSERT_EQ(runtime().Stop("app", "s"), absl::OkStatus());
  ASSERT_TRUE(EventuallyIs(InstanceState::kExited));
  EXPECT_EQ(Last().exit_code, 5);
  EXPECT_THAT(Lines(Last().id), ElementsAre("up", "int"));
}

TEST_P(EmbeddedTest, BothStreamsAndAnUnfinishedLineAreKept) {
  ServiceSpec spec = Shell("echo out; echo err >&2; printf 'no newline'");
  Run(spec);
  const auto lines = runtime().ReadLog(Last().id, 0, 10);
  ASSERT_TRUE(lines.ok());
  std::set<std::pair<bool, std::string>> seen;
  for (const LogLine& line : *lines) seen.insert({line.is_stderr, line.text});
  EXPECT_THAT(seen,
              testing::UnorderedElementsAre(testing::Pair(false, "out"), testing::Pair(true, "err"),
                                            testing::Pair(false, "no newline")));
}

TEST_P(EmbeddedTest, WhatTheProgramLeavesBehindEndsWithIt) {
  ServiceSpec spec = Shell(
      "setsid sh -c 'trap \"\" TERM HUP; echo $$; while :; do sleep 1; done' & "
      "until [ -e /v/stop ]; do sleep 0.02; done");
  spec.mounts = {{"v", volume_.path(), "/v", false, 0}};
  ASSERT_EQ(runtime().Deploy(spec), absl::OkStatus());
  ASSERT_TRUE(harness_.Eventually(
      [&] { return Last().state == InstanceState::kRunning && Lines(Last().id).size() == 1; }));
  ASSERT_TRUE(WriteFileAtomic(volume_.path() + "/stop", "").ok());
  ASSERT_TRUE(EventuallyIs(InstanceState::kExited)) << "the log's pipe would stay open";
  EXPECT_EQ(Last().exit_code, 0);
  if (translated()) {
    EXPECT_NE(kill(static_cast<pid_t>(std::stol(Lines(Last().id)[0])), 0), 0);
  }
}

TEST_P(EmbeddedTest, OutOfMemoryIsMarked) {
  if (absl::StrJoin(runtime().capabilities().warnings, " ").find("memory control group") !=
      std::string::npos) {
    GTEST_SKIP() << "no memory control group here";
  }
  ServiceSpec spec = Shell("exec tail /dev/zero");
  spec.memory_bytes = 32 << 20;
  Run(spec);
  EXPECT_TRUE(Last().oom_killed) << Last().reason;
  EXPECT_EQ(Last().signal, SIGKILL);
  EXPECT_EQ(Last().reason, "killed: out of memory, its limit is 32 MiB");
}

TEST_P(EmbeddedTest, SaysWhatAnInstanceUses) {
  ServiceSpec spec = Shell("while :; do :; done");
  ASSERT_EQ(runtime().Deploy(spec), absl::OkStatus());
  EXPECT_TRUE(harness_.Eventually(
      [&] { return Last().cpu_seconds > 0.01 && Last().memory_bytes > 100'000; }));
  ASSERT_EQ(runtime().Stop("app", "s"), absl::OkStatus());
  ASSERT_TRUE(EventuallyIs(InstanceState::kExited));
  EXPECT_GT(Last().cpu_seconds, 0.01) << "what it used is remembered";
}

TEST_P(EmbeddedTest, HealthChecksRunInsideTheInstance) {
  ServiceSpec spec = Shell("exec sleep 100000");
  spec.mounts = {{"v", volume_.path(), translated() ? volume_.path() : "/v", false, 0}};
  spec.health.kind = HealthProbe::Kind::kShell;
  spec.health.command = {StrCat("echo looking; test -e ", spec.mounts[0].target, "/ok")};
  spec.health.interval = milliseconds(50);
  spec.health.retries = 2;
  ASSERT_EQ(runtime().Deploy(spec), absl::OkStatus());
  ASSERT_TRUE(harness_.Eventually([&] { return Last().health == Health::kUnhealthy; }));
  EXPECT_EQ(Last().reason, "its health check fails: exit code 1: looking");
  EXPECT_EQ(Last().state, InstanceState::kRunning);
  ASSERT_TRUE(WriteFileAtomic(volume_.path() + "/ok", "").ok());
  ASSERT_TRUE(harness_.Eventually([&] { return Last().health == Health::kHealthy; }));
  EXPECT_EQ(Last().reason, "");
}

TEST_P(EmbeddedTest, AHealthCheckThatHangsFails) {
  ServiceSpec spec = Shell("exec sleep 100000");
  spec.health.kind = HealthProbe::Kind::kCommand;
  spec.health.command = {"sleep", "100000"};
  spec.health.interval = milliseconds(20);
  spec.health.timeout = milliseconds(100);
  spec.health.retries = 1;
  ASSERT_EQ(runtime().Deploy(spec), absl::OkStatus());
  ASSERT_TRUE(harness_.Eventually([&] { return Last().health == Health::kUnhealthy; }));
  EXPECT_EQ(Last().reason, "its health check fails: no answer within 100 ms");
}

// A web server of the simplest kind, on $PORT.
constexpr const char* kServer = R"(exec python3 -c '
import http.server, os
class H(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200 if self.path == "/ok" else 503)
        self.end_headers()
        self.wfile.write(("replica " + os.environ["TAKT_REPLICA"]).encode())
    def log_message(self, *a): pass
class S(http.server.HTTPServer):
    address_family = 2
S(("", int(os.environ["PORT"])), H).serve_forever()')";

// The body that a web server on this machine answers with; "" when it does not.
std::string Get(std::uint16_t port, const std::string& path = "/ok") {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  std::string answer;
  const timeval patience{5, 0};
  setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  if (connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)) == 0) {
    const std::string request = StrCat("GET ", path, " HTTP/1.0\r\n\r\n");
    char buffer[1024];
    if (send(fd, request.data(), request.size(), MSG_NOSIGNAL) > 0) {
      for (ssize_t n; (n = recv(fd, buffer, sizeof(buffer), 0)) > 0;) {
        answer.append(buffer, static_cast<std::size_t>(n));
      }
    }
  }
  close(fd);
  const std::size_t body = answer.find("\r\n\r\n");
  return body == std::string::npos ? "" : answer.substr(body + 4);
}

TEST_P(EmbeddedTest, HttpAndTcpHealthChecks) {
  const std::uint16_t port = AnyFreePort();
  ServiceSpec spec = Shell(kServer);
  spec.environment["PORT"] = std::to_string(port);
  spec.health.kind = HealthProbe::Kind::kHttp;
  spec.health.url = StrCat("http://localhost:", port, "/ok");
  spec.health.interval = milliseconds(50);
  spec.health.retries = 100;
  ASSERT_EQ(runtime().Deploy(spec), absl::OkStatus());
  EXPECT_TRUE(harness_.Eventually([&] { return Last().health == Health::kHealthy; }));
  spec.health.url = StrCat("http://localhost:", port, "/else");
  spec.health.retries = 3;
  spec.health.start_period = seconds(2);
  ASSERT_EQ(runtime().Deploy(spec), absl::OkStatus());
  ASSERT_TRUE(harness_.Eventually([&] { return Last().health == Health::kUnhealthy; }));
  EXPECT_THAT(Last().reason, HasSubstr("/else answers 503"));
  spec.health.kind = HealthProbe::Kind::kTcp;
  spec.health.url = StrCat("localhost:", port);
  ASSERT_EQ(runtime().Deploy(spec), absl::OkStatus());
  EXPECT_TRUE(harness_.Eventually([&] { return Last().health == Health::kHealthy; }));
}

TEST_P(EmbeddedTest, APortIsPublishedUnderAnotherNumber) {
  const std::uint16_t port = AnyFreePort(), published = AnyFreePort();
  ServiceSpec spec = Shell(kServer);
  spec.environment["PORT"] = std::to_string(port);
  spec.ports = {{"127.0.0.1", published, port}};
  ASSERT_EQ(runtime().Deploy(spec), absl::OkStatus());
  EXPECT_TRUE(harness_.Eventually([&] { return Get(published) == "replica 0"; }));
  ASSERT_EQ(Last().endpoints.size(), 1u);
  EXPECT_EQ(Last().endpoints[0].port, published);
  EXPECT_EQ(Last().endpoints[0].target, port);
  // The forwarding does not need the daemon.
  harness_.Close();
  EXPECT_EQ(Get(published), "replica 0");
  harness_.Reopen();
  EXPECT_EQ(Last().endpoints.at(0).port, published);
}

TEST_P(EmbeddedTest, AnyFreePortIsToldInTheEndpoint) {
  const std::uint16_t port = AnyFreePort();
  ServiceSpec spec = Shell(kServer);
  spec.environment["PORT"] = std::to_string(port);
  spec.ports = {{"", 0, port}};
  ASSERT_EQ(runtime().Deploy(spec), absl::OkStatus());
  ASSERT_TRUE(harness_.Eventually([&] { return Last().endpoints.size() == 1; }));
  EXPECT_NE(Last().endpoints[0].port, 0);
  EXPECT_TRUE(harness_.Eventually([&] { return Get(Last().endpoints[0].port) == "replica 0"; }));
}

TEST_P(EmbeddedTest, ReplicasListenOnOnePortAndShareThePublishedOne) {
  const std::uint16_t port = AnyFreePort(), published = AnyFreePort();
  ServiceSpec spec = Shell(kServer);
  spec.environment["PORT"] = std::to_string(port);
  spec.ports = {{"", published, port}};
  spec.replicas = 3;
  spec.health.kind = HealthProbe::Kind::kHttp;
  spec.health.url = StrCat("http://localhost:", port, "/ok");
  spec.health.interval = milliseconds(50);
  spec.health.retries = 100;
  ASSERT_EQ(runtime().Deploy(spec), absl::OkStatus());
  ASSERT_TRUE(harness_.Eventually([&] {
    const ServiceStatus status = Status();
    return std::count_if(status.instances.begin(), status.instances.end(),
                         [](const auto& i) { return i.health == Health::kHealthy; }) == 3;
  })) << Last().reason
      << absl::StrJoin(Lines(Last().id), "\n");
  std::set<std::string> seen;
  EXPECT_TRUE(harness_.Eventually([&] {
    seen.insert(Get(published));
    return seen.size() == 3;
  })) << absl::StrJoin(seen, ", ");
  EXPECT_EQ(Get(port), "") << "what is published elsewhere is not open at its own number";
}

TEST_P(EmbeddedTest, TwoServicesMayListenOnOnePortThatIsPublishedTwice) {
  const std::uint16_t port = AnyFreePort(), other = AnyFreePort();
  for (const auto& [service, published] : {std::pair("direct", port), std::pair("moved", other)}) {
    ServiceSpec spec = harness_.Shell(service, kServer);
    spec.environment["PORT"] = std::to_string(port);
    // As a replica it says whose it is.
    spec.command->back() = StrCat("export TAKT_REPLICA=", service, "; ", kServer);
    spec.ports = {{"", published, port}};
    ASSERT_EQ(runtime().Deploy(spec), absl::OkStatus());
  }
  EXPECT_TRUE(harness_.Eventually([&] { return Get(port) == "replica direct"; }));
  EXPECT_TRUE(harness_.Eventually([&] { return Get(other) == "replica moved"; }));
  EXPECT_EQ(Get(port), "replica direct");
}

// Connects to $1:$2 and prints the body.
constexpr const char* kClient = R"(fetch() { python3 -c '
import sys, urllib.request
print(urllib.request.urlopen(sys.argv[1]).read().decode())' "http://$1:$2/ok"; }; )";

TEST_P(EmbeddedTest, AnInstanceReachesItselfAndItsSistersByName) {
  const std::uint16_t port = AnyFreePort();
  ServiceSpec web = harness_.Shell("web", kServer);
  web.command->back() = StrCat(kClient, "(", kServer, ") & until fetch localhost ", port,
                               " 2>/dev/null; do sleep 0.05; done; wait");
  web.environment["PORT"] = std::to_string(port);
  web.ports = {{"127.0.0.1", AnyFreePort(), port}};
  ASSERT_EQ(runtime().Deploy(web), absl::OkStatus());
  ASSERT_TRUE(harness_.Eventually([&] {
    return Last("web").state == InstanceState::kRunning && Lines(Last("web").id).size() == 1;
  }));
  EXPECT_THAT(Lines(Last("web").id), ElementsAre("replica 0"));
  ServiceSpec client = Shell(StrCat(kClient, "fetch ${AT%:*} ${AT#*:}"));
  client.environment["AT"] = StrCat("web:", port);
  EXPECT_THAT(Run(client), ElementsAre("replica 0"));
}

TEST_P(EmbeddedTest, AForeignProcessThatHasThePortIsNamed) {
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  socklen_t size = sizeof(address);
  ASSERT_EQ(bind(fd, reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(listen(fd, 1), 0);
  ASSERT_EQ(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size), 0);
  const std::uint16_t port = ntohs(address.sin_port);
  ServiceSpec spec = Shell("true");
  spec.ports = {{"", port, port}};
  const absl::Status status = runtime().Deploy(spec);
  EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr(StrCat("port ", port, " is taken by another process (embedded_runtim")));
  EXPECT_THAT(std::string(status.message()), HasSubstr(StrCat("pid ", getpid())));
  close(fd);
}

TEST_P(EmbeddedTest, AnotherRuntimeOnTheDirectoryFindsWhatRunsAndWhatEnded) {
  ASSERT_EQ(runtime().Deploy(harness_.Shell("job", "echo done; exit 3")), absl::OkStatus());
  ASSERT_EQ(runtime().Deploy(Shell("echo hello; exec sleep 100000")), absl::OkStatus());
  ASSERT_TRUE(EventuallyIs(InstanceState::kRunning));
  ASSERT_TRUE(EventuallyIs(InstanceState::kExited, "job"));
  const InstanceStatus before = Last(), job = Last("job");
  harness_.Close();
  harness_.Reopen();
  EXPECT_EQ(Last().id, before.id);
  EXPECT_EQ(Last().pid, before.pid);
  EXPECT_EQ(Last().state, InstanceState::kRunning);
  EXPECT_EQ(Last().started, before.started);
  EXPECT_EQ(Last("job").id, job.id);
  EXPECT_EQ(Last("job").exit_code, 3);
  EXPECT_EQ(Last("job").reason, job.reason);
  EXPECT_EQ(Last("job").finished, job.finished);
  harness_.Settle();
  EXPECT_EQ(Status().instances.size(), 1u);
  EXPECT_EQ(Status("job").instances.size(), 1u) << "what ended well is not run again";
  ASSERT_EQ(runtime().Stop("app", "s"), absl::OkStatus());
  ASSERT_TRUE(EventuallyIs(InstanceState::kExited)) << "an adopted one can be stopped";
  EXPECT_EQ(Last().signal, SIGTERM);
  harness_.Close();
  harness_.Reopen();
  EXPECT_TRUE(Status().stopped);
  harness_.Settle();
  EXPECT_EQ(Status().instances.size(), 1u) << "what was stopped stays so";
}

TEST_P(EmbeddedTest, AShimThatIsKilledTakesItsInstanceAlongAndIsReported) {
  ServiceSpec spec = Shell("exec sleep 100000");
  ASSERT_EQ(runtime().Deploy(spec), absl::OkStatus());
  ASSERT_TRUE(EventuallyIs(InstanceState::kRunning));
  const auto pid = static_cast<pid_t>(Last().pid);
  const std::string state = ReadOf(StrCat(harness_.data_dir(), "/instances/", Last().id, "/state"));
  const std::vector<std::string> words = absl::StrSplit(state, ' ');
  ASSERT_GE(words.size(), 3u);
  ASSERT_EQ(kill(static_cast<pid_t>(std::stol(words[1])), SIGKILL), 0);
  ASSERT_TRUE(EventuallyIs(InstanceState::kExited));
  EXPECT_EQ(Last().reason, "was lost: its takt-shim was killed");
  EXPECT_TRUE(harness_.Eventually([&] { return kill(pid, 0) != 0; }));
}

TEST_P(EmbeddedTest, ALogHasALimitAndKeepsItsEnd) {
  harness_.options().max_log_bytes = 64 << 10;
  harness_.Close();
  harness_.Reopen();
  const auto lines =
      Run(Shell("i=0; while [ $i -lt 5000 ]; do echo line number $i; i=$((i+1)); done"));
  EXPECT_EQ(lines.back(), "line number 4999");
  EXPECT_GT(lines.size(), 500u);
  EXPECT_LT(lines.size(), 4000u);
}

TEST_P(EmbeddedTest, ARecordThatCannotBeReadIsNamedAndKept) {
  ASSERT_EQ(runtime().Deploy(Shell("true")), absl::OkStatus());
  harness_.Close();
  const std::string file = harness_.data_dir() + "/services/app/s.json";
  const std::string good = ReadOf(file);
  for (const std::string& bad :
       {std::string("{\"version\": 1, \"app\": 7}"), std::string("nothing"),
        std::string("{\"version\": 99}"), good.substr(0, good.size() / 2)}) {
    ASSERT_TRUE(WriteFileAtomic(file, bad).ok());
    RealClock clock;
    const auto opened = EmbeddedRuntime::Open(harness_.options(), clock);
    EXPECT_EQ(opened.status().code(), absl::StatusCode::kDataLoss);
    EXPECT_THAT(std::string(opened.status().message()), HasSubstr(file));
    EXPECT_EQ(ReadOf(file), bad);
  }
  ASSERT_TRUE(WriteFileAtomic(file, good).ok());
  harness_.Reopen();
}

// A daemon that is killed: a process of its own opens the runtime and deploys; then SIGKILL.
class DaemonDeathTest : public testing::TestWithParam<bool> {
 protected:
  DaemonDeathTest() {
    options_.data_dir = dir_.path();
    options_.prefix = TAKT_BINARY_DIR;
    options_.force_translate = GetParam();
  }
  // Runs until it is killed; returns once `ready` holds for what is on the disk.
  void RunDaemon(const std::vector<ServiceSpec>& specs, const std::function<bool()>& ready) {
    const pid_t daemon = fork();
    if (daemon == 0) {
      RealClock clock;
      auto runtime = EmbeddedRuntime::Open(options_, clock);
      for (const ServiceSpec& spec : specs) {
        if (!runtime.ok() || !(*runtime)->Deploy(spec).ok()) _exit(1);
      }
      pause();
      _exit(0);
    }
    ASSERT_TRUE(WaitUntil(ready));
    ASSERT_EQ(kill(daemon, SIGKILL), 0);
    int status = 0;
    ASSERT_EQ(waitpid(daemon, &status, 0), daemon);
    ASSERT_TRUE(WIFSIGNALED(status)) << "the daemon ended by itself";
  }
  ServiceSpec Shell(const std::string& service, const std::string& script) {
    ServiceSpec spec;
    spec.app = "app";
    spec.service = service;
    spec.image = "takt/host";
    spec.command = {"sh", "-c", script};
    spec.mounts = {{"v", volume_.path(), "/v", false, 0}};
    return spec;
  }
  bool There(const std::string& name) { return Exists(JoinPath(volume_.path(), name)); }

  TempDir dir_, volume_;
  EmbeddedOptions options_;
};

INSTANTIATE_TEST_SUITE_P(Modes, DaemonDeathTest, testing::Bool(),
                         [](const auto& info) { return info.param ? "translated" : "mounts"; });

TEST_P(DaemonDeathTest, HarmsNoInstanceAndLosesNoLineAndNoEnd) {
  // One writes all the time; one ends while nobody watches; one fails then and is to be restarted.
  const ServiceSpec writer = Shell(
      "writer",
      "i=0; while [ ! -e /v/stop ]; do echo line $i; i=$((i+1)); done; touch /v/wrote; exit 5");
  const ServiceSpec job = Shell(
      "job", "touch /v/job; until [ -e /v/end ]; do sleep 0.02; done; echo last words; exit 7");
  ServiceSpec again = Shell("again",
                            "touch /v/again; until [ -e /v/end ]; do sleep 0.02; done; "
                            "[ -e /v/second ] && exec sleep 100000; touch /v/second; exit 1");
  again.restart = RestartPolicy::kOnFailure;
  ASSERT_NO_FATAL_FAILURE(
      RunDaemon({writer, job, again}, [&] { return There("job") && There("again"); }));
  ASSERT_TRUE(WriteFileAtomic(volume_.path() + "/end", "").ok());
  ASSERT_TRUE(WaitUntil([&] { return There("second"); })) << "instances go on without the daemon";

  RealClock clock;
  auto opened = EmbeddedRuntime::Open(options_, clock);
  ASSERT_TRUE(opened.ok()) << opened.status();
  EmbeddedRuntime& runtime = **opened;
  const auto instances = [&](const std::string& service) {
    const auto services = runtime.Observe();
    for (const ServiceStatus& s : *services) {
      if (s.service == service) return s.instances;
    }
    return std::vector<InstanceStatus>();
  };
  ASSERT_TRUE(WaitUntil([&] { return instances("job").at(0).state == InstanceState::kExited; }));
  EXPECT_EQ(instances("job")[0].exit_code, 7);
  EXPECT_EQ(runtime.ReadLog(instances("job")[0].id, 0, 10)->at(0).text, "last words");
  ASSERT_TRUE(WaitUntil([&] {
    return instances("again").size() == 2 && instances("again")[1].state == InstanceState::kRunning;
  }));
  EXPECT_EQ(instances("again")[0].exit_code, 1);
  EXPECT_EQ(instances("again")[1].restarts, 1);

  ASSERT_EQ(instances("writer").size(), 1u);
  EXPECT_EQ(instances("writer")[0].state, InstanceState::kRunning);
  ASSERT_TRUE(WriteFileAtomic(volume_.path() + "/stop", "").ok());
  ASSERT_TRUE(WaitUntil([&] { return instances("writer")[0].state == InstanceState::kExited; }));
  EXPECT_EQ(instances("writer")[0].exit_code, 5);
  std::uint64_t cursor = 0;
  long expected = 0;
  while (true) {
    const auto lines = runtime.ReadLog(instances("writer")[0].id, cursor, 10'000);
    ASSERT_TRUE(lines.ok());
    if (lines->empty()) break;
    for (const LogLine& line : *lines) {
      ASSERT_EQ(line.text, StrCat("line ", expected)) << "no line is lost or doubled";
      ++expected;
    }
    cursor = lines->back().cursor;
  }
  EXPECT_GT(expected, 10);
  for (const char* service : {"writer", "job", "again"}) {
    for (const InstanceStatus& i : instances(service)) {
      if (i.pid > 0) kill(static_cast<pid_t>(i.pid), SIGKILL);
    }
    EXPECT_EQ(runtime.Remove("app", service), absl::OkStatus());
  }
  EXPECT_TRUE(WaitUntil([&] { return runtime.Observe()->empty(); }));
}

TEST_P(DaemonDeathTest, AStopThatHasBegunGoesOnWithoutIt) {
  ServiceSpec deaf = Shell("deaf", "trap '' TERM; touch /v/up; while :; do sleep 0.02; done");
  deaf.stop_grace = milliseconds(300);
  ASSERT_NO_FATAL_FAILURE(RunDaemon({deaf}, [&] { return There("up"); }));
  RealClock clock;
  InstanceStatus seen;
  {
    auto opened = EmbeddedRuntime::Open(options_, clock);
    ASSERT_TRUE(opened.ok());
    seen = (*opened)->Observe()->at(0).instances.at(0);
    ASSERT_EQ((*opened)->Stop("app", "deaf"), absl::OkStatus());
    ASSERT_TRUE(WaitUntil([&] {
      return (*opened)->Observe()->at(0).instances.at(0).state == InstanceState::kStopping;
    }));
  }
  ASSERT_TRUE(WaitUntil([&] { return kill(static_cast<pid_t>(seen.pid), 0) != 0; }));
  auto opened = EmbeddedRuntime::Open(options_, clock);
  ASSERT_TRUE(opened.ok());
  ASSERT_TRUE(WaitUntil(
      [&] { return (*opened)->Observe()->at(0).instances.at(0).state == InstanceState::kExited; }));
  EXPECT_EQ((*opened)->Observe()->at(0).instances.at(0).signal, SIGKILL);
}

// A small file system of its own stands for a disk that is full.
TEST(FullDiskTest, ADeployIsRefusedWholeAndWhatFreesRoomWorks) {
  TempDir dir;
  if (mount("tmpfs", dir.path().c_str(), "tmpfs", 0, "size=1m") != 0) {
    GTEST_SKIP() << "needs root, to mount a small file system";
  }
  {
    EmbeddedOptions options;
    options.data_dir = dir.path() + "/data";
    options.prefix = TAKT_BINARY_DIR;
    ASSERT_TRUE(MakeDirs(options.data_dir).ok());
    RealClock clock;
    auto runtime = EmbeddedRuntime::Open(options, clock);
    ASSERT_TRUE(runtime.ok()) << runtime.status();
    const auto service = [&](const std::string& name) {
      const auto services = (*runtime)->Observe();
      for (const ServiceStatus& s : *services) {
        if (s.service == name) return s;
      }
      return ServiceStatus();
    };
    const auto state_is = [&](const std::string& name, InstanceState state) {
      const ServiceStatus s = service(name);
      return s.instances.size() == 1 && s.instances[0].state == state;
    };
    ServiceSpec spec;
    spec.app = "app";
    spec.image = "takt/host";
    spec.service = "quiet";
    spec.command = {"sleep", "100000"};
    ASSERT_EQ((*runtime)->Deploy(spec), absl::OkStatus());
    ASSERT_TRUE(WaitUntil([&] { return state_is("quiet", InstanceState::kRunning); }));
    spec.service = "noisy";
    spec.command = {"sh", "-c",
                    "i=0; while [ $i -lt 60000 ]; do echo a line of some length $i; i=$((i+1)); "
                    "done; exit 6"};
    ASSERT_EQ((*runtime)->Deploy(spec), absl::OkStatus());
    ASSERT_TRUE(WaitUntil([&] { return state_is("noisy", InstanceState::kExited); }));
    EXPECT_EQ(service("noisy").instances[0].exit_code, 6) << "its end needs no room";

    spec.service = "other";
    spec.environment["X"] = std::string(100'000, 'x');
    const absl::Status status = (*runtime)->Deploy(spec);
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
    EXPECT_THAT(std::string(status.message()), HasSubstr("No space left on device"));
    EXPECT_EQ(service("other").app, "") << "nothing of it is left";

    EXPECT_EQ((*runtime)->Stop("app", "quiet"), absl::OkStatus());
    EXPECT_TRUE(WaitUntil([&] { return state_is("quiet", InstanceState::kExited); }));
    runtime->reset();
    runtime = EmbeddedRuntime::Open(options, clock);
    ASSERT_TRUE(runtime.ok()) << runtime.status();
    EXPECT_TRUE(service("quiet").stopped) << "and it is remembered";
    EXPECT_EQ(service("noisy").instances.at(0).exit_code, 6);

    EXPECT_EQ((*runtime)->Remove("app", "noisy"), absl::OkStatus());
    ASSERT_TRUE(WaitUntil([&] { return service("noisy").app.empty(); }));
    EXPECT_EQ((*runtime)->Deploy(spec), absl::OkStatus());
    for (const char* name : {"other", "quiet"}) {
      EXPECT_EQ((*runtime)->Remove("app", name), absl::OkStatus());
    }
    EXPECT_TRUE(WaitUntil([&] { return (*runtime)->Observe()->empty(); }));
  }
  EXPECT_EQ(umount2(dir.path().c_str(), MNT_DETACH), 0);
}

TEST(MountsTest, TheSandboxHoldsWhatItPromises) {
  EmbeddedHarness harness(false);
  if (!harness.runtime().capabilities().private_mounts) GTEST_SKIP() << "no namespaces here";
  TempDir volume;
  ServiceSpec spec = harness.Shell(
      "s",
      "touch /ro/x 2>/dev/null && echo wrote-ro; touch /usr/x 2>/dev/null && echo wrote-usr; "
      "ls /tmp | wc -l; touch /tmp/x && echo tmp; hostname; echo $$; cat /proc/1/cmdline | tr "
      "'\\0' "
      "' '; echo; getent hosts sister | cut -d' ' -f1; getent hosts far | cut -d' ' -f1; "
      "getent hosts aunt | cut -d' ' -f1; "
      "head -c 2m /dev/zero > /small/f 2>/dev/null || echo full; "
      "df -k /dev/shm | tail -1 | awk '{print $2}'; pwd");
  spec.mounts = {{"v", volume.path(), "/ro", true, 0}, {"", "", "/small", false, 1 << 20}};
  spec.hostname = "box";
  spec.working_dir = "/made/for/it";
  spec.shm_bytes = 8 << 20;
  spec.extra_hosts = {"far:10.1.2.3"};
  spec.links = {{"aunt", "sister"}};
  ServiceSpec sister = harness.Shell("sister", "true");
  ASSERT_EQ(harness.runtime().Deploy(sister), absl::OkStatus());
  ASSERT_EQ(harness.runtime().Deploy(spec), absl::OkStatus());
  std::vector<std::string> texts;
  ASSERT_TRUE(harness.Eventually([&] {
    const auto services = harness.runtime().Observe();
    for (const ServiceStatus& s : *services) {
      if (s.service != "s" || s.instances.empty() ||
          s.instances[0].state != InstanceState::kExited) {
        continue;
      }
      const auto lines = harness.runtime().ReadLog(s.instances[0].id, 0, 100);
      for (const LogLine& line : *lines) texts.push_back(line.text);
      return true;
    }
    return false;
  }));
  EXPECT_THAT(texts, ElementsAre("0", "tmp", "box", "2", HasSubstr(".takt-shim init"), "127.0.0.1",
                                 "10.1.2.3", "127.0.0.1", "full", "8192", "/made/for/it"));
}

TEST(MountsTest, AReadOnlyRootCannotBeWritten) {
  EmbeddedHarness harness(false);
  if (!harness.runtime().capabilities().private_mounts) GTEST_SKIP() << "no namespaces here";
  ServiceSpec spec = harness.Shell("s", "touch /x /tmp/x /var/x 2>/dev/null; ls /x /tmp/x /var/x");
  spec.read_only = true;
  ASSERT_EQ(harness.runtime().Deploy(spec), absl::OkStatus());
  ASSERT_TRUE(harness.Eventually([&] {
    const auto services = harness.runtime().Observe();
    return !services->at(0).instances.empty() &&
           services->at(0).instances[0].state == InstanceState::kExited;
  }));
  EXPECT_EQ(harness.runtime().Observe()->at(0).instances[0].exit_code, 2) << "nothing is there";
}

}  // namespace
}  // namespace takt::runtime
