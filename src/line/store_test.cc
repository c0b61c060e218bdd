#include "line/store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/fs.h"

namespace takt::line {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr std::uint64_t kBig = 1 << 30;

Revision Number(int number) {
  Revision revision;
  revision.number = number;
  revision.configuration.template_text = "services: {}\n";
  revision.configuration.template_name = "t.yml";
  revision.configuration.values = {{"V", std::to_string(number)}, {"quote", "\"\n\x01"}};
  revision.configuration.volume_options["m"].subdirectory = "a/b";
  revision.image_digests = {{"web", "sha256:1"}};
  revision.created_at = "2026-01-01T00:00:00.000Z";
  revision.author = "ann";
  revision.why = "because";
  revision.rollback_of = number - 1;
  return revision;
}

Event Note(const std::string& app, const std::string& kind) {
  return {0, "2026-01-01T00:00:00.000Z", app, kind, "message", "info"};
}

class StoreTest : public ::testing::Test {
 protected:
  StoreTest() { Reopen(); }
  void Reopen(std::uint64_t max_bytes = kBig) {
    store_.reset();
    auto store = Store::Open(dir_.path(), max_bytes);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
  }
  std::string Path(const std::string& name) const { return JoinPath(dir_.path(), name); }
  std::vector<std::string> Kinds(const std::string& app = "") {
    std::vector<std::string> kinds;
    const std::vector<Event> events = *store_->Events(app, 0, 100);
    kinds.reserve(events.size());
    for (const Event& event : events) kinds.push_back(event.kind);
    return kinds;
  }

  TempDir dir_;
  std::unique_ptr<Store> store_;
};

TEST_F(StoreTest, KeepsAppsWithTheirCurrentRevision) {
  ASSERT_TRUE(store_->AddApp("a", Number(1), Note("a", "created")).ok());
  ASSERT_TRUE(store_->AddRevision("a", Number(2), Note("a", "configured")).ok());
  ASSERT_TRUE(store_->SetStopped("a", true, {}, Note("a", "stopping")).ok());
  Handed handed{"id\n1", "settings", 2, 1, Phase::kDeployed, {"x.1", "x.2"}, {{"id\n1", 1}}};
  ASSERT_TRUE(store_->PutHanded("a", "web", handed).ok());
  Reopen();
  auto apps = store_->Apps();
  ASSERT_EQ(apps->size(), 1u);
  const Store::AppRow& app = apps->front();
  EXPECT_EQ(app.revision.number, 2);
  EXPECT_EQ(app.revision.configuration, Number(2).configuration);
  EXPECT_EQ(app.revision.image_digests, Number(2).image_digests);
  EXPECT_EQ(app.revision.author, "ann");
  EXPECT_EQ(app.revision.why, "because");
  EXPECT_EQ(app.revision.rollback_of, 1);
  EXPECT_TRUE(app.stopped);
  EXPECT_FALSE(app.removing);
  EXPECT_EQ(app.handed.at("web"), handed);
  EXPECT_EQ(store_->Revisions("a")->front().number, 2);
  EXPECT_EQ(store_->GetRevision("a", 1)->configuration.values.at("V"), "1");
  EXPECT_EQ(store_->GetRevision("a", 3).status().code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(Kinds(), ElementsAre("created", "configured", "stopping"));
}

TEST_F(StoreTest, RunsAgainWhatItIsAskedTo) {
  ASSERT_TRUE(store_->AddApp("a", Number(1), Note("a", "created")).ok());
  for (const char* service : {"x", "y"}) {
    ASSERT_TRUE(store_->PutHanded("a", service, {"", "", 1, 1, Phase::kDeployed, {}, {}}).ok());
  }
  ASSERT_TRUE(store_->SetStopped("a", false, {"y"}, Note("a", "starting")).ok());
  auto apps = store_->Apps();
  EXPECT_EQ(apps->front().handed.at("x").phase, Phase::kDeployed);
  EXPECT_EQ(apps->front().handed.at("y").phase, Phase::kStopFirst);
}

TEST_F(StoreTest, ARemovedAppLeavesOnlyItsEvents) {
  ASSERT_TRUE(store_->AddApp("a", Number(1), Note("a", "created")).ok());
  ASSERT_TRUE(store_->PutHanded("a", "web", {}).ok());
  ASSERT_TRUE(store_->DeleteApp("a", Note("a", "removed")).ok());
  EXPECT_TRUE(store_->Apps()->empty());
  EXPECT_TRUE(store_->Revisions("a")->empty());
  EXPECT_THAT(Kinds(), ElementsAre("created", "removed"));
  ASSERT_TRUE(store_->AddApp("a", Number(1), Note("a", "created")).ok());
  EXPECT_TRUE(store_->Apps()->front().handed.empty());
}

TEST_F(StoreTest, AFailedChangeLeavesNothing) {
  ASSERT_TRUE(store_->AddApp("a", Number(1), Note("a", "created")).ok());
  EXPECT_FALSE(store_->AddApp("a", Number(1), Note("a", "again")).ok());
  EXPECT_FALSE(store_->AddRevision("a", Number(1), Note("a", "again")).ok());
  EXPECT_FALSE(store_->AddRevision("b", Number(1), Note("b", "nobody")).ok());
  EXPECT_THAT(Kinds(), ElementsAre("created"));
}

TEST_F(StoreTest, TheOldestRevisionsAndEventsGo) {
  ASSERT_TRUE(store_->AddApp("a", Number(1), Note("a", "created")).ok());
  {
    // All but the last few at once: one by one they would each wait for the disk.
    auto db = Sqlite::Open(Path("takt.db"), {});
    ASSERT_TRUE(
        (*db)
            ->Script(StrCat(
                "WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < ",
                kMaxRevisionsPerApp,
                ") INSERT INTO revisions SELECT app, i, template_name, template_text, "
                "parameter_values, volume_options, image_digests, created_at, author, why, "
                "rollback_of FROM revisions, n WHERE number = 1; INSERT INTO events (time, "
                "app, kind, message, level) SELECT '', 'b', 'tick', '', 'info' FROM revisions, "
                "(VALUES (1),(2),(3),(4),(5),(6),(7),(8),(9),(10))"))
            .ok());
  }
  EXPECT_EQ(store_->Revisions("a")->back().number, 1);
  int last = static_cast<int>(kMaxRevisionsPerApp) + 2;
  for (int n = last - 1; n <= last; ++n) {
    ASSERT_TRUE(store_->AddRevision("a", Number(n), Note("a", "configured")).ok());
  }
  EXPECT_EQ(store_->Revisions("a")->size(), kMaxRevisionsPerApp);
  EXPECT_EQ(store_->Revisions("a")->back().number, 3);
  auto events = store_->Events("", 0, kMaxEvents * 2);
  EXPECT_EQ(events->size(), kMaxEvents);
  EXPECT_EQ(events->front().kind, "tick") << "the creation was older";
  EXPECT_EQ(store_->Events("a", 0, 10)->size(), 2u);
  EXPECT_EQ(store_->Events("", events->back().id - 2, 10)->size(), 2u);
}

TEST_F(StoreTest, AFullDiskIsSaidAndLeavesNothing) {
  ASSERT_TRUE(store_->AddApp("a", Number(1), Note("a", "created")).ok());
  Reopen(128 << 10);
  Revision big = Number(2);
  big.configuration.template_text.assign(1 << 20, 'x');
  absl::Status status = store_->AddRevision("a", big, Note("a", "configured"));
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr(Path("takt.db")));
  EXPECT_EQ(store_->Apps()->front().revision.number, 1);
  EXPECT_THAT(Kinds(), ElementsAre("created"));
  EXPECT_TRUE(store_->AddRevision("a", Number(2), Note("a", "configured")).ok())
      << "a smaller one still goes";
}

TEST_F(StoreTest, BackupsRotate) {
  EXPECT_FALSE(store_->HasBackup());
  for (int n = 1; n <= kMaxBackups + 1; ++n) {
    std::string name = "a" + std::to_string(n);
    ASSERT_TRUE(store_->AddApp(name, Number(1), Note(name, "created")).ok());
    ASSERT_TRUE(Store::Backup(dir_.path()).ok());
  }
  EXPECT_TRUE(store_->HasBackup());
  std::vector<std::size_t> apps;
  for (const char* name : {"takt.db.backup", "takt.db.backup.1", "takt.db.backup.2"}) {
    TempDir restored;
    std::string copy = *ReadFile(Path(name), kBig);
    ASSERT_TRUE(WriteFileAtomic(JoinPath(restored.path(), "takt.db"), copy).ok());
    apps.push_back((*Store::Open(restored.path(), kBig))->Apps()->size());
  }
  EXPECT_THAT(apps, ElementsAre(4, 3, 2));
  EXPECT_FALSE(Exists(Path("takt.db.backup.3")));
}

// Runs what the message says to run.
void FollowAdvice(const absl::Status& status) {
  std::string message(status.message());
  std::size_t begin = message.find(": mv ") + 2, end = message.find("; then start");
  ASSERT_NE(end, std::string::npos) << message;
  ASSERT_EQ(std::system(message.substr(begin, end - begin).c_str()), 0);
}

TEST_F(StoreTest, ACorruptDatabaseIsKeptAndTheLastGoodBackupOffered) {
  ASSERT_TRUE(store_->AddApp("a", Number(1), Note("a", "created")).ok());
  ASSERT_TRUE(Store::Backup(dir_.path()).ok());
  ASSERT_TRUE(store_->AddApp("b", Number(1), Note("b", "created")).ok());
  ASSERT_TRUE(Store::Backup(dir_.path()).ok());
  store_.reset();
  const std::string whole = *ReadFile(Path("takt.db"), kBig);
  std::string torn = whole;
  for (std::size_t i = 4096; i < torn.size(); ++i) torn[i] = static_cast<char>(i * 31);
  struct Case {
    const char* what;
    std::string content, backup;
    std::string offered;
    std::size_t apps;
  };
  const std::string good = *ReadFile(Path("takt.db.backup"), kBig);
  const Case kCases[] = {
      {"no database at all", std::string(8192, 'x'), good, "takt.db.backup ", 2},
      {"torn pages", torn, good, "takt.db.backup ", 2},
      {"cut short", whole.substr(0, whole.size() / 2), good, "takt.db.backup ", 2},
      {"empty, though there was one", "", good, "takt.db.backup ", 2},
      {"the newest backup is corrupt too", torn, torn, "takt.db.backup.1 ", 1},
  };
  for (const Case& c : kCases) {
    ASSERT_TRUE(WriteFileAtomic(Path("takt.db"), c.content).ok());
    ASSERT_TRUE(WriteFileAtomic(Path("takt.db.backup"), c.backup).ok());
    absl::Status status = Store::Open(dir_.path(), kBig).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << c.what << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("The last backup is " + Path(c.offered)))
        << c.what;
    EXPECT_EQ(*ReadFile(Path("takt.db"), kBig), c.content) << c.what << ": the file is kept";
    FollowAdvice(status);
    auto store = Store::Open(dir_.path(), kBig);
    ASSERT_TRUE(store.ok()) << c.what << store.status();
    EXPECT_EQ((*store)->Apps()->size(), c.apps) << c.what;
    EXPECT_TRUE(Exists(Path("takt.db.corrupt")));
  }
}

TEST_F(StoreTest, WithoutABackupItSaysHowToBeginAnew) {
  store_.reset();
  ASSERT_TRUE(WriteFileAtomic(Path("takt.db"), "garbage, not a database at all").ok());
  absl::Status status = Store::Open(dir_.path(), kBig).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("There is no backup"));
  FollowAdvice(status);
  EXPECT_TRUE(Store::Open(dir_.path(), kBig).ok());
}

TEST_F(StoreTest, AnOlderFormatIsBroughtOn) {
  ASSERT_TRUE(store_->AddApp("a", Number(1), Note("a", "created")).ok());
  ASSERT_TRUE(store_->PutHanded("a", "web", {"id", "s", 1, 7, Phase::kDeployed, {}, {}}).ok());
  store_.reset();
  {
    auto db = Sqlite::Open(Path("takt.db"), {});
    ASSERT_TRUE((*db)->Script("ALTER TABLE handed DROP COLUMN tried; PRAGMA user_version=1").ok());
  }
  Reopen();
  auto apps = store_->Apps();
  EXPECT_EQ(apps->front().handed.at("web").tried, (std::map<std::string, int>{{"id", 7}}));
}

TEST_F(StoreTest, ANewerFormatIsRefused) {
  {
    auto db = Sqlite::Open(Path("takt.db"), {});
    ASSERT_TRUE((*db)->Script("PRAGMA user_version=999").ok());
  }
  store_.reset();
  absl::Status status = Store::Open(dir_.path(), kBig).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("newer takt"));
}

TEST_F(StoreTest, OneDaemonHasTheDirectory) {
  auto lock = DataLock::Take(dir_.path());
  ASSERT_TRUE(lock.ok()) << lock.status();
  absl::Status second = DataLock::Take(dir_.path()).status();
  EXPECT_EQ(second.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(second.message()),
              HasSubstr("in use by another daemon (process " + std::to_string(::getpid())));
  lock->reset();
  EXPECT_TRUE(DataLock::Take(dir_.path()).ok());
}

TEST_F(StoreTest, RemembersWhatWasTold) {
  ASSERT_TRUE(store_->PutSeen("x.1", "running", Note("a", "started")).ok());
  ASSERT_TRUE(store_->PutSeen("x.1", "stopping", Event{}).ok());
  Reopen();
  EXPECT_THAT(*store_->Seen(), ElementsAre(std::pair("x.1", "stopping")));
  EXPECT_THAT(Kinds(), ElementsAre("started"));
  ASSERT_TRUE(store_->DeleteSeen("x.1").ok());
  EXPECT_TRUE(store_->Seen()->empty());
}

}  // namespace
}  // namespace takt::line
