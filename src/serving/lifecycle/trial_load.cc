#include "serving/lifecycle/trial_load.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <iostream>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/fs.h"
#include "base/spawn.h"
#include "serving/log.h"

namespace takt::serving {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::size_t kMaxCommandLineBytes = std::size_t{2} << 20;
constexpr int kTrialNice = 10;  // ManagerOptions::load_nice's

// What the process writes until it closes its end; the last kMaxTrialOutputBytes. False when the
// time is over before.
bool ReadToEnd(int fd, Clock::time_point end, std::string* output) {
  while (true) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(end - Clock::now()).count();
    pollfd poller{fd, POLLIN, 0};
    const int ready = left <= 0 ? 0 : poll(&poller, 1, static_cast<int>(left));
    if (ready < 0 && errno == EINTR) continue;
    if (ready <= 0) return false;
    char buffer[4096];
    const ssize_t got = read(fd, buffer, sizeof buffer);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return true;
    output->append(buffer, static_cast<std::size_t>(got));
    if (output->size() > kMaxTrialOutputBytes) {
      output->erase(0, output->size() - kMaxTrialOutputBytes);
    }
  }
}

std::string LastLine(const std::string& output) {
  const std::vector<std::string> lines = absl::StrSplit(output, '\n', absl::SkipWhitespace());
  return lines.empty() ? "it wrote nothing" : lines.back();
}

// What EndTrial writes before the error's message, and the exit status that holds its code.
constexpr std::string_view kOutcome = "trial failed: ";
constexpr int kExitCodes = 64;

// The error that a process on trial ended with.
absl::Status ErrorOf(int exit_status, const std::string& directory, const std::string& output) {
  const std::size_t outcome = output.rfind(kOutcome);
  if (exit_status <= kExitCodes || outcome == std::string::npos) {
    return absl::InternalError(StrCat(directory, ": loading it on trial ended with status ",
                                      exit_status, ": ", LastLine(output)));
  }
  return absl::Status(
      static_cast<absl::StatusCode>(exit_status - kExitCodes),
      absl::StripTrailingAsciiWhitespace(ToAbsl(output).substr(outcome + kOutcome.size())));
}

// Starts this program anew for `directory`; its output goes to `output`.
absl::StatusOr<pid_t> StartTrial(const std::string& directory, int output) {
  TAKT_ASSIGN_OR_RETURN(const std::string own,
                        ReadFile("/proc/self/cmdline", kMaxCommandLineBytes));
  std::vector<std::string> words =
      absl::StrSplit(absl::StripSuffix(ToAbsl(own), absl::string_view("\0", 1)), '\0');
  words.push_back(StrCat("--trial_load_of=", directory));
  words[0] = "/proc/self/exe";
  return Spawn(words, {.out = output, .error = output});
}

}  // namespace

absl::Status LoadOnTrial(const std::string& directory, std::chrono::milliseconds limit) {
  int ends[2] = {-1, -1};
  const absl::StatusOr<pid_t> pid =
      pipe2(ends, O_CLOEXEC) == 0 ? StartTrial(directory, ends[1]) : ErrnoStatus(errno, "pipe");
  close(ends[1]);
  if (!pid.ok()) {
    close(ends[0]);
    Log(LogLevel::kWarning,
        StrCat(directory, ": is loaded without a trial: ", pid.status().ToString()));
    return absl::OkStatus();
  }

  std::string output;
  const bool ended = ReadToEnd(ends[0], Clock::now() + limit, &output);
  close(ends[0]);
  if (!ended) kill(*pid, SIGKILL);
  int status = 0;
  while (waitpid(*pid, &status, 0) < 0 && errno == EINTR) continue;
  if (!ended) {
    return absl::DeadlineExceededError(
        StrCat(directory, ": loading it on trial did not end within ", limit.count(), " ms"));
  }
  if (WIFSIGNALED(status)) {
    return absl::InternalError(StrCat(directory, ": loading it ended a process on trial by signal ",
                                      WTERMSIG(status), " (", strsignal(WTERMSIG(status)),
                                      "): ", LastLine(output)));
  }
  if (WEXITSTATUS(status) != 0) return ErrorOf(WEXITSTATUS(status), directory, output);
  return absl::OkStatus();
}

int EndTrial(const absl::Status& status) {
  if (status.ok()) return 0;
  std::cerr << kOutcome << status.message() << std::endl;
  return kExitCodes + static_cast<int>(status.code());
}

void BecomeTrial() {
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  const rlimit none{0, 0};
  setrlimit(RLIMIT_CORE, &none);  // its abort leaves no core behind
  setpriority(PRIO_PROCESS, 0, kTrialNice);
  const int fd = open("/proc/self/oom_score_adj", O_WRONLY | O_CLOEXEC);
  if (fd < 0) return;
  // Where it may not, it is as likely to go as others.
  [[maybe_unused]] const ssize_t written = write(fd, "1000", 4);
  close(fd);
}

}  // namespace takt::serving
