#include "logs/collector.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "base/fs.h"
#include "runtime/fake/fake_runtime.h"

namespace takt::logs {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;
using namespace std::chrono_literals;

class CollectorTest : public testing::Test {
 protected:
  CollectorTest() {
    Open();
    runtime::ServiceSpec spec;
    spec.app = "mnist";
    spec.service = "trainer";
    spec.revision = 3;
    spec.image = "i";
    EXPECT_TRUE(runtime_.Deploy(spec).ok());
    runtime_.Advance(1s);
    instance_ = runtime_.Live("mnist", "trainer").at(0);
  }
  void Open() {
    collector_.reset();
    store_.reset();
    auto store = LogStore::Open({.path = dir_.path() + "/logs.db"}, clock_);
    EXPECT_TRUE(store.ok()) << store.status();
    store_ = std::move(*store);
    collector_ = std::make_unique<Collector>(
        runtime_, *store_, [this](const auto&, const auto&) { return logs_; }, clock_);
    runtime_.SetLogListener([this](const std::string& id) { collector_->OnLogGrew(id); });
    runtime_.SetListener([this] { collector_->OnStateChanged(); });
  }
  void Collect() {
    ASSERT_TRUE(collector_->Step().ok());
    clock_.Advance(1s);
    ASSERT_TRUE(collector_->Step().ok());
  }
  std::vector<FoundEntry> Find(const std::string& query) {
    auto result = store_->Search(*Query::Parse(query), {.newest_first = false});
    EXPECT_TRUE(result.ok()) << result.status();
    return result->entries;
  }
  std::vector<std::string> Texts(const std::string& query = "") {
    std::vector<std::string> texts;
    for (const auto& f : Find(query)) texts.push_back(f.entry.text);
    return texts;
  }
  void Append(const std::string& name, const std::string& text) {
    std::ofstream(dir_.path() + "/files/" + name, std::ios::app | std::ios::binary) << text;
  }
  void DeclareFiles(const std::string& source) {
    ASSERT_TRUE(MakeDirs(dir_.path() + "/files").ok());
    logs_.stores = {{"app", source, 2}};
    logs_.mounts = {{"/var/log", dir_.path() + "/files"}};
  }

  TempDir dir_;
  FakeClock clock_;
  runtime::FakeRuntime runtime_{clock_};
  ServiceLogs logs_;
  std::string instance_;
  std::unique_ptr<LogStore> store_;
  std::unique_ptr<Collector> collector_;
};

TEST_F(CollectorTest, KeepsTheOutputOfAnAppWithoutLabels) {
  runtime_.Log(instance_, "step 1");
  runtime_.Log(instance_, "ERROR out of luck", true);
  Collect();
  const auto found = Find("");
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(found[0].entry.text, "step 1");
  EXPECT_EQ(found[0].stream.app, "mnist");
  EXPECT_EQ(found[0].stream.service, "trainer");
  EXPECT_EQ(found[0].stream.instance, instance_);
  EXPECT_EQ(found[0].stream.revision, 3);
  EXPECT_EQ(found[0].stream.store, "stdout");
  EXPECT_TRUE(found[1].entry.is_stderr);
  EXPECT_EQ(found[1].entry.level, Level::kError);
}

TEST_F(CollectorTest, PutsOutputIntoTheStoreThatALabelNames) {
  logs_.stores = {{"mnist", "stdout", 5}};
  runtime_.Log(instance_, "step 1");
  Collect();
  EXPECT_THAT(Texts("store=mnist"), ElementsAre("step 1"));
  EXPECT_THAT(Texts("store=stdout"), IsEmpty());
}

TEST_F(CollectorTest, AnEntryWaitsForTheLinesThatBelongToIt) {
  runtime_.Log(instance_, "Traceback (most recent call last):");
  ASSERT_TRUE(collector_->Step().ok());
  EXPECT_THAT(Texts(), IsEmpty());
  runtime_.Log(instance_, "  File \"a.py\", line 1");
  runtime_.Log(instance_, "ValueError: x");
  Collect();
  EXPECT_THAT(Texts(), ElementsAre("Traceback (most recent call last):\n  File \"a.py\", line 1\n"
                                   "ValueError: x"));
}

TEST_F(CollectorTest, ADaemonThatDiedReadsOnWithoutLossOrRepeat) {
  runtime_.Log(instance_, "one");
  Collect();
  ASSERT_TRUE(store_->Flush().ok());
  runtime_.Log(instance_, "two");
  Open();
  runtime_.Log(instance_, "three");
  Collect();
  EXPECT_THAT(Texts(), ElementsAre("one", "two", "three"));
}

TEST_F(CollectorTest, ReadsTheLastWordsOfAnInstanceThatEnded) {
  runtime_.Log(instance_, "last words");
  runtime_.Exit(instance_, 1);
  runtime_.Advance(1s);
  ASSERT_TRUE(collector_->Step().ok());
  EXPECT_THAT(Texts(), ElementsAre("last words"));
}

TEST_F(CollectorTest, FollowsFilesThroughRotationAndTruncation) {
  DeclareFiles("/var/log/*.log");
  Append("a.log", "one\ntwo\nunfinis");
  Collect();
  EXPECT_THAT(Texts("store=app"), ElementsAre("one", "two"));
  Append("a.log", "hed\n");
  ASSERT_EQ(
      std::rename((dir_.path() + "/files/a.log").c_str(), (dir_.path() + "/files/a.log.1").c_str()),
      0);
  Append("a.log", "new file\n");
  Append("b.txt", "not asked for\n");
  Collect();
  EXPECT_THAT(Texts("store=app"), testing::IsSupersetOf({"unfinished", "new file"}));
  std::ofstream(dir_.path() + "/files/a.log", std::ios::trunc) << "again\n";
  Collect();
  EXPECT_THAT(Texts("store=app"), testing::Contains("again"));
  EXPECT_THAT(Texts("asked"), IsEmpty());
}

TEST_F(CollectorTest, FollowsAFileOnAMountInsideAMount) {
  DeclareFiles("/var/log/deep/*.log");
  ASSERT_TRUE(MakeDirs(dir_.path() + "/deep").ok());
  logs_.mounts.emplace_back("/var/log/deep", dir_.path() + "/deep");
  ASSERT_TRUE(MakeDirs(dir_.path() + "/files/deep").ok());
  Append("deep/hidden.log", "hidden by the mount\n");
  std::ofstream(dir_.path() + "/deep/a.log") << "seen by the instance\n";
  Collect();
  EXPECT_THAT(Texts("store=app"), ElementsAre("seen by the instance"));
}

TEST_F(CollectorTest, TakesTheTimeThatALineOfAFileStates) {
  DeclareFiles("/var/log/a.log");
  Append("a.log", "2025-12-31T12:00:00Z hello\n1999-01-01T00:00:00Z not plausible\n");
  Collect();
  const auto found = Find("store=app hello");
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0].entry.time_us, 1'767'182'400'000'000);
  EXPECT_GT(Find("plausible").at(0).entry.time_us, 1'767'182'400'000'000);
}

TEST_F(CollectorTest, AFileWithoutNewlinesAndOfBinaryIsTakenInPiecesOfValidText) {
  DeclareFiles("/var/log/a.log");
  Append("a.log", std::string(3 * kMaxEntryBytes, '\xff') + "\n\xe4\xb8\xad \x80\n");
  Collect();
  const auto texts = Texts("store=app");
  ASSERT_GE(texts.size(), 4u);
  for (const std::string& text : texts) EXPECT_LE(text.size(), kMaxEntryBytes);
  EXPECT_EQ(texts.back(), "\xe4\xb8\xad \xef\xbf\xbd");
}

TEST_F(CollectorTest, OfALineWithoutAnEndKeepsTheBeginningAndSaysWhatWasDropped) {
  DeclareFiles("/var/log/a.log");
  constexpr std::size_t kBytes = 40 << 20;
  Append("a.log", std::string(kBytes, 'x'));
  for (int i = 0; i < 40; ++i) Collect();
  EXPECT_EQ(Texts("store=app").size(), kMaxLinePieces);
  Append("a.log", "\nnext\n");
  Collect();
  const auto texts = Texts("store=app");
  ASSERT_EQ(texts.size(), kMaxLinePieces + 2);
  EXPECT_THAT(texts[0], testing::EndsWith("x [takt: the line goes on]"));
  EXPECT_THAT(texts[kMaxLinePieces],
              testing::StartsWith(StrCat("[takt: ", kBytes - kMaxLinePieces * kMaxLineBytes,
                                         " bytes of this line were dropped")));
  EXPECT_EQ(texts.back(), "next");
}

TEST_F(CollectorTest, ALongLineOfOutputIsMarkedAndAShortOneNot) {
  const std::string piece(kMaxLineBytes, 'x');
  runtime_.LogWith(instance_, {.text = piece, .goes_on = true});
  runtime_.LogWith(instance_, {.is_stderr = true, .text = "an error between"});
  runtime_.LogWith(instance_, {.text = "end"});
  runtime_.LogWith(instance_, {.text = piece});
  Collect();
  EXPECT_THAT(Texts(),
              ElementsAre(piece + " [takt: the line goes on]", "an error between", "end", piece));
}

TEST_F(CollectorTest, SaysWhatTheLimitOfAnInstancesLogTookBeforeItWasRead) {
  runtime_.LogWith(instance_, {.text = "after the gap", .lost_bytes = 12345});
  Collect();
  const auto texts = Texts();
  ASSERT_EQ(texts.size(), 2u);
  EXPECT_THAT(texts[0], testing::StartsWith("[takt: 12345 bytes of output are missing here"));
  EXPECT_EQ(Find("level=warn").size(), 1u);
}

TEST_F(CollectorTest, AfterAGapALineIsALineOfItsOwn) {
  const std::string piece(kMaxLineBytes, 'x');
  for (std::size_t i = 0; i < kMaxLinePieces + 2; ++i) {
    runtime_.LogWith(instance_, {.text = piece, .goes_on = true});
  }
  runtime_.LogWith(instance_, {.text = "a short line", .lost_bytes = 500});
  Collect();
  const auto texts = Texts();
  ASSERT_EQ(texts.size(), kMaxLinePieces + 3);
  EXPECT_THAT(texts[kMaxLinePieces], testing::StartsWith(absl::StrCat("[takt: ", 2 * kMaxLineBytes,
                                                                      " bytes of this line")));
  EXPECT_THAT(texts[kMaxLinePieces + 1], testing::StartsWith("[takt: 500 bytes"));
  EXPECT_EQ(texts.back(), "a short line");
}

TEST_F(CollectorTest, AFileThatNobodyWritesAnyMoreGivesItsLastLineWithoutAnEnd) {
  DeclareFiles("/var/log/a.log");
  Append("a.log", "one\nlast words");
  Collect();
  EXPECT_THAT(Texts("store=app"), ElementsAre("one"));
  runtime_.Exit(instance_, 1);
  Collect();
  EXPECT_THAT(Texts("store=app"), ElementsAre("one", "last words"));
}

TEST_F(CollectorTest, ASourceThatWritesMuchDoesNotKeepOthersWaiting) {
  runtime::ServiceSpec spec;
  spec.app = "other";
  spec.service = "s";
  spec.revision = 1;
  spec.image = "i";
  ASSERT_TRUE(runtime_.Deploy(spec).ok());
  runtime_.Advance(1s);
  const std::string other = runtime_.Live("other", "s").at(0);
  constexpr int kLines = 50'000;
  for (int i = 0; i < kLines; ++i) runtime_.Log(instance_, StrCat("line ", i));
  runtime_.Log(other, "hello");
  Collect();
  EXPECT_LT(store_->Stats()->entries, kLines);
  EXPECT_THAT(Texts("app=other"), ElementsAre("hello"));
  for (int i = 0; i < 3; ++i) Collect();
  ASSERT_TRUE(store_->Flush().ok());
  EXPECT_EQ(store_->Stats()->entries, 0u + kLines + 1);
}

TEST_F(CollectorTest, DoesNotReadThroughALinkOutOfTheVolume) {
  DeclareFiles("/var/log/*.log");
  std::ofstream(dir_.path() + "/secret") << "secret\n";
  ASSERT_EQ(symlink((dir_.path() + "/secret").c_str(), (dir_.path() + "/files/link.log").c_str()),
            0);
  Collect();
  EXPECT_THAT(Texts("secret"), IsEmpty());
}

TEST_F(CollectorTest, RunsOnAThreadOfItsOwnUntilStopped) {
  collector_->Start();
  runtime_.Log(instance_, "hello");
  collector_->Stop();
  runtime_.Exit(instance_, 0);
  EXPECT_TRUE(collector_->Step().ok());
  EXPECT_THAT(Texts(), ElementsAre("hello"));
}

}  // namespace
}  // namespace takt::logs
