// A TensorBoard for whoever likes it: one process an app, started when it is asked for, over the
// directories that the app's training services write events to, of older revisions too. It is ended
// when nobody asked for kTensorBoardIdle, and with the daemon, however that ends.
//
// Threads: one that ends what is idle; every function may be called from any thread.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "base/clock.h"
#include "base/status.h"
#include "line/line.h"
#include "storage/volumes.h"

namespace takt::operate {

inline constexpr std::size_t kMaxTensorBoards = 4;  // beyond: the one idle longest is ended
inline constexpr std::chrono::minutes kTensorBoardIdle{10};
inline constexpr std::chrono::seconds kTensorBoardStart{60};  // until it answers
inline constexpr std::size_t kMaxTensorBoardRevisions = 50;   // the newest

// Under which addresses of the daemon they answer: /tensorboard/APP/...
inline constexpr std::string_view kTensorBoardPath = "/tensorboard/";

struct TensorBoardOptions {
  std::string data_dir;  // keeps its logs and links in a directory of it
  std::string prefix;    // where Takt is installed; "" = above this program
  std::chrono::milliseconds idle = kTensorBoardIdle;
};

class TensorBoards {
 public:
  // Everything given must outlive it.
  TensorBoards(TensorBoardOptions options, line::Line& line, storage::VolumeStore& volumes,
               const Clock& clock);
  ~TensorBoards();  // ends all of them

  // The port at 127.0.0.1 where the app's answers; it is started where it does not run, which takes
  // seconds. NOT_FOUND for an unknown app, FAILED_PRECONDITION where the app writes no events,
  // UNAVAILABLE where it cannot be started.
  absl::StatusOr<std::uint16_t> Open(const std::string& app);
  std::vector<std::string> Running() const;  // apps

 private:
  struct Board;
  absl::StatusOr<std::string> LinkDirectories(const std::string& app);
  absl::Status Start(const std::string& app, Board& board);
  void Watch();

  TensorBoardOptions options_;
  line::Line& line_;
  storage::VolumeStore& volumes_;
  const Clock& clock_;
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::map<std::string, std::shared_ptr<Board>> boards_;  // by app; under mutex_
  bool stop_ = false;                                     // under mutex_
  std::thread thread_;
};

}  // namespace takt::operate
