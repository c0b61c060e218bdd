// The real TensorBoard, of the Python environment beside the programs.
#include "operate/tensorboard.h"

#include <fcntl.h>
#include <signal.h>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/fs.h"
#include "learning/event_for_test.h"
#include "line/test_world.h"
#include "net/http_client.h"

namespace takt::operate {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr const char* kTemplate = R"(
trainer:
  image: trainer
  command: train /models/digits
  volumes: ['models:/models']
  labels:
    takt.learning: /models/events/${VERSION}
)";

class TensorBoardTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_TRUE(world_.volumes->Create("models", "local", {}).ok());
    ASSERT_TRUE(
        world_.line->Create("mnist", {.template_text = kTemplate, .values = {{"VERSION", "1"}}}, {})
            .ok());
  }
  void WriteEvents(const std::string& version) {
    std::string file;
    for (int step = 1; step <= 3; ++step) {
      learning::AppendScalarEvent(1e9 + step, step, "loss", 1.0F / static_cast<float>(step), file);
    }
    const std::string directory =
        JoinPath(world_.volumes->Resolve("models", "").value(), "events/" + version);
    ASSERT_TRUE(MakeDirs(directory).ok());
    ASSERT_TRUE(WriteFileAtomic(directory + "/events.out.tfevents.1.host", file).ok());
  }
  std::unique_ptr<TensorBoards> Make(std::chrono::milliseconds idle = kTensorBoardIdle) {
    return std::make_unique<TensorBoards>(
        TensorBoardOptions{.data_dir = world_.dir.path(), .prefix = TAKT_BINARY_DIR, .idle = idle},
        *world_.line, *world_.volumes, clock_);
  }
  static absl::StatusOr<net::HttpReply> Get(std::uint16_t port, const std::string& path) {
    net::HttpClientOptions options;
    options.port = port;
    return net::HttpClient(options).Call({.target = path});
  }

  line::TestWorld world_;
  RealClock clock_;
};

TEST_F(TensorBoardTest, ShowsTheRunsOfAllRevisionsAndIsTheSameForTheNext) {
  WriteEvents("1");
  WriteEvents("2");
  ASSERT_TRUE(
      world_.line
          ->Configure("mnist", {.template_text = kTemplate, .values = {{"VERSION", "2"}}}, {})
          .ok());
  const auto boards = Make();
  const auto port = boards->Open("mnist");
  ASSERT_TRUE(port.ok()) << port.status();
  EXPECT_EQ(*boards->Open("mnist"), *port);
  EXPECT_THAT(boards->Running(), ElementsAre("mnist"));
  // It reads the files after it answers.
  std::string runs;
  const auto deadline = clock_.Steady() + std::chrono::seconds(60);
  while (runs.find("r1") == std::string::npos && clock_.Steady() < deadline) {
    const auto reply = Get(*port, "/tensorboard/mnist/data/runs");
    ASSERT_TRUE(reply.ok()) << reply.status();
    runs = reply->body;
  }
  EXPECT_EQ(runs, "[\"r1\", \"r2\"]");
}

TEST_F(TensorBoardTest, EndsWhenNobodyAsksAndWithItsOwner) {
  WriteEvents("1");
  auto boards = Make(std::chrono::milliseconds(1));
  const auto first = boards->Open("mnist");
  ASSERT_TRUE(first.ok()) << first.status();
  const auto deadline = clock_.Steady() + std::chrono::seconds(30);
  while (Get(*first, "/").ok() && clock_.Steady() < deadline) continue;
  EXPECT_FALSE(Get(*first, "/").ok());
  EXPECT_THAT(boards->Running(), IsEmpty());
  boards = Make();
  const auto second = boards->Open("mnist");
  ASSERT_TRUE(second.ok()) << second.status();
  boards.reset();
  EXPECT_FALSE(Get(*second, "/").ok());
}

TEST_F(TensorBoardTest, SaysWhatIsMissing) {
  const auto boards = Make();
  EXPECT_EQ(boards->Open("other").status().code(), absl::StatusCode::kNotFound);
  const absl::Status none = boards->Open("mnist").status();
  EXPECT_EQ(none.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(none.message()), HasSubstr("no training events yet"));
  WriteEvents("1");
  TensorBoards elsewhere({.data_dir = world_.dir.path(), .prefix = "/nowhere"}, *world_.line,
                         *world_.volumes, clock_);
  EXPECT_EQ(elsewhere.Open("mnist").status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(elsewhere.Running(), IsEmpty());
}

}  // namespace
}  // namespace takt::operate
