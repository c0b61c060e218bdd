#include "base/sqlite.h"

#include <gtest/gtest.h>

#include "base/fs.h"

namespace takt {
namespace {

using std::string_view;

std::unique_ptr<Sqlite> OpenOrDie(const std::string& path, Sqlite::Options options = {}) {
  auto db = Sqlite::Open(path, options);
  EXPECT_TRUE(db.ok()) << db.status();
  return db.ok() ? std::move(*db) : nullptr;
}

TEST(Sqlite, KeepsEveryKindOfValue) {
  TempDir dir;
  auto db = OpenOrDie(dir.path() + "/a.db");
  ASSERT_TRUE(db->Script("CREATE TABLE t(i, r, s, b, n)").ok());
  ASSERT_TRUE(
      db->Run("INSERT INTO t VALUES(?,?,?,?,?)", {std::int64_t{-7}, 1.5, string_view("text"),
                                                  SqlBlob{string_view("\0\1", 2)}, nullptr})
          .ok());
  auto rows = db->Query("SELECT * FROM t");
  ASSERT_TRUE(rows.ok());
  ASSERT_TRUE(*rows->Next());
  EXPECT_EQ(rows->Int(0), -7);
  EXPECT_EQ(rows->Real(1), 1.5);
  EXPECT_EQ(rows->Text(2), "text");
  EXPECT_EQ(rows->Blob(3), string_view("\0\1", 2));
  EXPECT_TRUE(rows->IsNull(4));
  EXPECT_FALSE(*rows->Next());
}

TEST(Sqlite, ATransactionThatIsNotCommittedLeavesNothing) {
  TempDir dir;
  auto db = OpenOrDie(dir.path() + "/a.db");
  ASSERT_TRUE(db->Script("CREATE TABLE t(i)").ok());
  {
    auto transaction = SqlTransaction::Begin(*db);
    ASSERT_TRUE(transaction.ok());
    ASSERT_TRUE(db->Run("INSERT INTO t VALUES(1)").ok());
  }
  auto rows = db->Query("SELECT count(*) FROM t");
  ASSERT_TRUE(*rows->Next());
  EXPECT_EQ(rows->Int(0), 0);
}

TEST(Sqlite, AnExclusiveFileIsRefusedToASecondOwner) {
  TempDir dir;
  auto first = OpenOrDie(dir.path() + "/a.db", {.exclusive = true});
  auto second = Sqlite::Open(dir.path() + "/a.db", {.exclusive = true});
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition) << second.status();
}

TEST(Sqlite, AFileThatIsNoDatabaseIsDataLossAndNamed) {
  TempDir dir;
  const std::string path = dir.path() + "/a.db";
  ASSERT_TRUE(WriteFileAtomic(path, std::string(8192, 'x')).ok());
  auto db = Sqlite::Open(path, {});
  EXPECT_EQ(db.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_NE(db.status().message().find(ToAbsl(path)), absl::string_view::npos);
}

TEST(Sqlite, ABackupIsAWholeCopy) {
  TempDir dir;
  auto db = OpenOrDie(dir.path() + "/a.db");
  ASSERT_TRUE(db->Script("CREATE TABLE t(i); INSERT INTO t VALUES(5)").ok());
  for (int round = 0; round < 2; ++round) {
    ASSERT_TRUE(db->BackupTo(dir.path() + "/b.db").ok());
  }
  auto copy = OpenOrDie(dir.path() + "/b.db", {.read_only = true});
  EXPECT_TRUE(copy->Check().ok());
  auto rows = copy->Query("SELECT i FROM t");
  ASSERT_TRUE(*rows->Next());
  EXPECT_EQ(rows->Int(0), 5);
}

TEST(Sqlite, AnErrorNamesTheFileAndTheStatement) {
  TempDir dir;
  auto db = OpenOrDie(dir.path() + "/a.db");
  const absl::Status status = db->Run("INSERT INTO absent VALUES(1)");
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_NE(status.message().find("a.db: no such table"), absl::string_view::npos) << status;
}

}  // namespace
}  // namespace takt
