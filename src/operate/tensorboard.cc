#include "operate/tensorboard.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>

#include "absl/strings/numbers.h"
#include "base/fs.h"
#include "base/spawn.h"
#include "base/str.h"
#include "line/spec.h"
#include "operate/directories.h"
#include "template/template.h"

namespace takt::operate {
namespace {

constexpr std::chrono::milliseconds kLook{50};
constexpr std::chrono::seconds kIdleLook{1};
constexpr std::size_t kMaxOutputBytes = 1 << 20;
constexpr std::size_t kToldBytes = 500;
constexpr std::string_view kReady = " at http://127.0.0.1:";

std::string OwnPrefix() {
  char self[4096];
  const ssize_t n = readlink("/proc/self/exe", self, sizeof self);
  if (n <= 0) return "";
  return CleanPath(std::string(self, static_cast<std::size_t>(n)) + "/../..");
}

}  // namespace

// One process. `ready` says which port; a board that failed or ended is dropped and made anew.
struct TensorBoards::Board {
  std::mutex starting;  // held by who starts it
  pid_t pid = -1;
  int stdin_fd = -1;
  std::uint16_t port = 0;                            // 0 = not yet
  std::chrono::steady_clock::time_point last_use{};  // under the owner's mutex

  ~Board() {
    if (stdin_fd >= 0) close(stdin_fd);
    if (pid > 0) {
      kill(pid, SIGKILL);
      waitpid(pid, nullptr, 0);
    }
  }
  bool Lives() const { return pid > 0 && waitpid(pid, nullptr, WNOHANG) == 0; }
};

TensorBoards::TensorBoards(TensorBoardOptions options, line::Line& line,
                           storage::VolumeStore& volumes, const Clock& clock)
    : options_(std::move(options)), line_(line), volumes_(volumes), clock_(clock) {
  if (options_.prefix.empty()) options_.prefix = OwnPrefix();
  thread_ = std::thread([this] { Watch(); });
}

TensorBoards::~TensorBoards() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

// A directory with one link for each directory of events, named after the revision that wrote
// there.
absl::StatusOr<std::string> TensorBoards::LinkDirectories(const std::string& name) {
  TAKT_ASSIGN_OR_RETURN(const line::App app, line_.Get(name));
  TAKT_ASSIGN_OR_RETURN(const std::vector<line::Revision> revisions, line_.Revisions(name));
  std::set<std::string> services;
  for (const line::ServiceView& service : app.services) {
    if (service.role == "training") services.insert(service.spec.name);
  }
  const std::string directory = JoinPath(JoinPath(options_.data_dir, "tensorboard"), name);
  TAKT_RETURN_IF_ERROR(MakeDirs(directory, 0750));
  TAKT_ASSIGN_OR_RETURN(const std::vector<std::string> old, ListDir(directory));
  for (const std::string& link : old) unlink(JoinPath(directory, link).c_str());
  std::set<std::string> linked;
  for (std::size_t i = 0; i < std::min(revisions.size(), kMaxTensorBoardRevisions); ++i) {
    const line::Revision& revision = revisions[i];
    templates::LoadOptions load;
    load.project_name = name;
    load.values = revision.configuration.values;
    templates::LoadResult loaded =
        templates::LoadTemplate(revision.configuration.template_text, load);
    line::ApplyVolumeOptions(revision.configuration.volume_options, loaded.spec);
    for (templates::ServiceSpec& spec : loaded.spec.services) {
      if (!services.contains(spec.name)) continue;
      for (templates::Mount& mount : spec.mounts) {
        if (mount.kind != templates::Mount::Kind::kVolume) continue;
        mount.source = line::PlatformVolume(loaded.spec, mount.source);
      }
      int number = 0;
      for (const std::string& events : EventDirectories(spec, volumes_)) {
        if (!IsDirectory(events) || !linked.insert(events).second) continue;
        const std::string link =
            StrCat("r", revision.number, services.size() > 1 ? "-" + spec.name : std::string(),
                   number == 0 ? std::string() : StrCat("-", number));
        ++number;
        if (symlink(events.c_str(), JoinPath(directory, link).c_str()) != 0) {
          return ErrnoStatus(errno, JoinPath(directory, link));
        }
      }
    }
  }
  if (linked.empty()) {
    return absl::FailedPreconditionError(
        StrCat("app \"", name, "\" has written no training events yet"));
  }
  return directory;
}

absl::Status TensorBoards::Start(const std::string& app, Board& board) {
  TAKT_ASSIGN_OR_RETURN(const std::string directory, LinkDirectories(app));
  const std::string log = directory + ".log";
  const std::string python = JoinPath(options_.prefix, "lib/takt/venv/bin/python");
  const std::string script = JoinPath(options_.prefix, "share/takt/start_tensorboard.py");
  const std::string path = StrCat(kTensorBoardPath, app);
  int input[2];
  if (pipe2(input, O_CLOEXEC) != 0) return ErrnoStatus(errno, "pipe");
  const int output = open(log.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0640);
  const absl::StatusOr<pid_t> pid = output < 0
                                        ? ErrnoStatus(errno, log)
                                        : Spawn({python, script, directory, path},
                                                {.in = input[0], .out = output, .error = output});
  close(input[0]);
  if (output >= 0) close(output);
  board.stdin_fd = input[1];
  if (!pid.ok()) {
    return absl::UnavailableError(StrCat("TensorBoard: ", pid.status().message()));
  }
  board.pid = *pid;
  const auto deadline = clock_.Steady() + kTensorBoardStart;
  while (true) {
    const bool lives = board.Lives();
    const auto output = ReadFile(log, kMaxOutputBytes);
    const std::string said = output.ok() ? *output : "";
    const auto at = said.find(kReady);
    int port = 0;
    if (at != std::string::npos &&
        absl::SimpleAtoi(said.substr(at + kReady.size(),
                                     said.find('/', at + kReady.size()) - at - kReady.size()),
                         &port)) {
      board.port = static_cast<std::uint16_t>(port);
      return absl::OkStatus();
    }
    if (!lives) {
      board.pid = -1;  // reaped
      return absl::UnavailableError(
          StrCat("TensorBoard ended at once: ",
                 said.substr(said.size() - std::min(said.size(), kToldBytes))));
    }
    if (clock_.Steady() > deadline) {
      return absl::UnavailableError(
          StrCat("TensorBoard does not answer after ", kTensorBoardStart.count(), " s; see ", log));
    }
    std::unique_lock lock(mutex_);
    wake_.wait_for(lock, kLook, [this] { return stop_; });
    if (stop_) return absl::UnavailableError("the daemon is ending");
  }
}

absl::StatusOr<std::uint16_t> TensorBoards::Open(const std::string& app) {
  std::shared_ptr<Board> board, ended;
  {
    const std::lock_guard lock(mutex_);
    std::shared_ptr<Board>& mine = boards_[app];
    if (mine == nullptr) mine = std::make_shared<Board>();
    board = mine;
    board->last_use = clock_.Steady();
    if (boards_.size() > kMaxTensorBoards) {
      const auto oldest = std::min_element(
          boards_.begin(), boards_.end(),
          [](const auto& a, const auto& b) { return a.second->last_use < b.second->last_use; });
      ended = oldest->second;
      boards_.erase(oldest);
    }
  }
  ended.reset();
  absl::Status status;
  std::uint16_t port = 0;
  {
    const std::lock_guard starting(board->starting);
    if (board->port == 0) {
      status = Start(app, *board);
    } else if (!board->Lives()) {
      board->pid = -1;
      status = absl::UnavailableError("TensorBoard has ended; ask again");
    }
    port = board->port;
  }
  if (status.ok()) return port;
  const std::lock_guard lock(mutex_);
  const auto it = boards_.find(app);
  if (it != boards_.end() && it->second == board) boards_.erase(it);  // the next one tries anew
  return status;
}

std::vector<std::string> TensorBoards::Running() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::string> apps;
  for (const auto& [app, board] : boards_) apps.push_back(app);
  return apps;
}

void TensorBoards::Watch() {
  std::unique_lock lock(mutex_);
  while (!stop_) {
    std::vector<std::shared_ptr<Board>> idle;  // ended without the lock
    for (auto it = boards_.begin(); it != boards_.end();) {
      if (clock_.Steady() - it->second->last_use < options_.idle) {
        ++it;
        continue;
      }
      idle.push_back(std::move(it->second));
      it = boards_.erase(it);
    }
    lock.unlock();
    idle.clear();
    lock.lock();
    wake_.wait_for(lock, kIdleLook, [this] { return stop_; });
  }
}

}  // namespace takt::operate
