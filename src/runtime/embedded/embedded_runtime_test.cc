// The embedded runtime with real processes, in both of its modes.
#include "runtime/embedded/embedded_runtime.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

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
using testing::Not;

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

}  // namespace
}  // namespace takt::runtime
