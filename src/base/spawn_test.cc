#include "base/spawn.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/fs.h"

namespace takt {
namespace {

// What a shell script writes and how it ends.
struct Ended {
  std::string said;
  int status = -1;
};
Ended Shell(const std::string& script, SpawnSession session = SpawnSession::kSame) {
  TempDir dir;
  const std::string path = dir.path() + "/said";
  const int out = open(path.c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
  Ended ended;
  const absl::StatusOr<pid_t> pid = Spawn({"/bin/sh", "-c", script}, {.out = out}, session);
  close(out);
  EXPECT_TRUE(pid.ok()) << pid.status();
  if (pid.ok()) waitpid(*pid, &ended.status, 0);
  ended.said = ReadFile(path, 4096).value();
  return ended;
}

TEST(Spawn, GivesTheStreamsThatAreNamedAndNothingElse) {
  EXPECT_EQ(Shell("echo hello; echo lost >&2; cat; exit 3").said, "hello\n");
  EXPECT_EQ(WEXITSTATUS(Shell("exit 3").status), 3);
}

TEST(Spawn, SignalsAreAsByDefault) {
  sigset_t blocked, before;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &blocked, &before);
  const auto handler = signal(SIGTERM, SIG_IGN);
  const Ended ended = Shell("kill -TERM $$; echo survived");
  signal(SIGTERM, handler);
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  EXPECT_EQ(ended.said, "");
  EXPECT_EQ(WTERMSIG(ended.status), SIGTERM);
}

TEST(Spawn, MayHaveASessionOfItsOwn) {
  const std::string own = std::to_string(getsid(0)) + "\n";
  constexpr const char* kSession = "cut -d' ' -f6 /proc/$$/stat";
  EXPECT_EQ(Shell(kSession).said, own);
  EXPECT_NE(Shell(kSession, SpawnSession::kOwn).said, own);
}

TEST(Spawn, NamesTheProgramThatIsNotThere) {
  const absl::StatusOr<pid_t> pid = Spawn({"/no/such/program"});
  EXPECT_EQ(pid.status().code(), absl::StatusCode::kNotFound);
  EXPECT_NE(std::string(ToStd(pid.status().message())).find("/no/such/program"), std::string::npos);
}

}  // namespace
}  // namespace takt
