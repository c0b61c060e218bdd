#include "logs/store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sched.h>
#include <sys/mount.h>

#include <fstream>

#include "base/fs.h"

namespace takt::logs {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

constexpr std::int64_t kSecond = 1'000'000;

class LogStoreTest : public testing::Test {
 protected:
  LogStoreTest() { Reopen(); }
  void Reopen(std::uint64_t max_bytes = std::uint64_t{10} << 30) {
    store_.reset();
    auto store = LogStore::Open({.path = dir_.path() + "/logs.db", .max_bytes = max_bytes}, clock_);
    EXPECT_TRUE(store.ok()) << store.status();
    store_ = std::move(*store);
  }
  std::int64_t Stream(const std::string& app, int ttl_days = 0) {
    auto id = store_->Stream({.app = app, .service = "s", .instance = app + "-1"}, ttl_days);
    EXPECT_TRUE(id.ok()) << id.status();
    return id.value_or(0);
  }
  void Add(std::int64_t stream, std::int64_t time_us, const std::string& text,
           std::uint64_t position = 0, Level level = Level::kInfo) {
    const Entry entry{time_us, level, false, text, position};
    ASSERT_TRUE(store_->Append(stream, {&entry, 1}).ok());
  }
  SearchResult Find(const std::string& query, SearchOptions options = {}) {
    auto parsed = Query::Parse(query);
    EXPECT_TRUE(parsed.ok()) << parsed.status();
    auto result = store_->Search(*parsed, options);
    EXPECT_TRUE(result.ok()) << result.status();
    return result.ok() ? std::move(*result) : SearchResult{};
  }
  std::vector<std::string> Texts(const std::string& query, SearchOptions options = {}) {
    std::vector<std::string> texts;
    for (const FoundEntry& f : Find(query, options).entries) texts.push_back(f.entry.text);
    return texts;
  }

  TempDir dir_;
  FakeClock clock_;
  std::unique_ptr<LogStore> store_;
};

TEST_F(LogStoreTest, FindsEntriesBeforeAndAfterTheyAreOnTheDisk) {
  const auto a = Stream("a"), b = Stream("b");
  Add(a, 1, "one error");
  Add(b, 2, "two error");
  Add(a, 3, "three");
  for (int round = 0; round < 3; ++round) {
    EXPECT_THAT(Texts("error"), ElementsAre("two error", "one error")) << round;
    EXPECT_THAT(Texts("app=a"), ElementsAre("three", "one error")) << round;
    EXPECT_THAT(Texts("", {.newest_first = false}), ElementsAre("one error", "two error", "three"));
    if (round == 0) {
      ASSERT_TRUE(store_->Flush().ok());
    }
    if (round == 1) Reopen();
  }
}

// What kill -9 leaves is what another connection sees.
std::int64_t OnDisk(const std::string& path) {
  auto db = Sqlite::Open(path, {.read_only = true});
  EXPECT_TRUE(db.ok()) << db.status();
  auto rows = (*db)->Query("SELECT position FROM stream");
  EXPECT_TRUE(rows.ok() && *rows->Next());
  return rows->Int(0);
}

TEST_F(LogStoreTest, APositionIsOnTheDiskTogetherWithItsEntries) {
  const auto a = Stream("a");
  Add(a, 1, "x", 10);
  EXPECT_EQ(*store_->Position(a), 10u);
  EXPECT_EQ(OnDisk(dir_.path() + "/logs.db"), 0);
  ASSERT_TRUE(store_->Flush().ok());
  EXPECT_EQ(OnDisk(dir_.path() + "/logs.db"), 10);
  Reopen();
  EXPECT_EQ(*store_->Position(Stream("a")), 10u);
}

TEST_F(LogStoreTest, TendWritesAfterTheFlushInterval) {
  const auto a = Stream("a");
  Add(a, 1, "x", 10);
  ASSERT_TRUE(store_->Tend().ok());
  EXPECT_EQ(OnDisk(dir_.path() + "/logs.db"), 0);
  clock_.Advance(std::chrono::seconds(3));
  ASSERT_TRUE(store_->Tend().ok());
  EXPECT_EQ(OnDisk(dir_.path() + "/logs.db"), 10);
}

TEST_F(LogStoreTest, PagesThroughManyChunksInBothOrdersWithoutLossOrRepeat) {
  const auto a = Stream("a"), b = Stream("b");
  const int total = 3 * static_cast<int>(kMaxChunkEntries);
  for (int i = 0; i < total; ++i) {
    Add(i % 3 == 0 ? a : b, i / 2, "line " + std::to_string(i));  // pairs share a time
  }
  for (const bool newest_first : {true, false}) {
    std::vector<std::string> all;
    SearchOptions options{.limit = 1000, .newest_first = newest_first};
    while (true) {
      const SearchResult page = Find("line", options);
      for (const auto& f : page.entries) all.push_back(f.entry.text);
      if (!page.more) break;
      options.after = page.entries.back().id;
      options.after_time_us = page.entries.back().entry.time_us;
    }
    EXPECT_EQ(all.size(), static_cast<std::size_t>(total));
    std::sort(all.begin(), all.end());
    EXPECT_EQ(std::unique(all.begin(), all.end()), all.end());
  }
}

TEST_F(LogStoreTest, TimesBoundASearch) {
  const auto a = Stream("a");
  for (int i = 0; i < 10; ++i) Add(a, i, std::to_string(i));
  EXPECT_THAT(Texts("", {.from_us = 3, .to_us = 6}), ElementsAre("5", "4", "3"));
  ASSERT_TRUE(store_->Flush().ok());
  Reopen();
  EXPECT_THAT(Texts("", {.from_us = 3, .to_us = 6}), ElementsAre("5", "4", "3"));
}

TEST_F(LogStoreTest, AClockThatJumpsBackLosesNothing) {
  const auto a = Stream("a");
  Add(a, 100, "first");
  Add(a, 50, "second");
  ASSERT_TRUE(store_->Flush().ok());
  EXPECT_THAT(Texts("", {.from_us = 40, .to_us = 60}), ElementsAre("second"));
  EXPECT_THAT(Texts(""), ElementsAre("first", "second"));
}

TEST_F(LogStoreTest, ARareTextIsFoundWithoutReadingTheRest) {
  const auto a = Stream("a");
  for (int i = 0; i < 50'000; ++i) Add(a, i, "step " + std::to_string(i) + " loss 0.25");
  Add(a, 50'001, "a needle in it");
  ASSERT_TRUE(store_->Flush().ok());
  Reopen();
  const SearchResult result = Find("needle");
  ASSERT_EQ(result.entries.size(), 1u);
  EXPECT_LE(result.scanned_entries, kMaxChunkEntries);
}

TEST_F(LogStoreTest, CountsByTimeAndLevelAlikeFromMemoryAndDisk) {
  const auto a = Stream("a");
  for (int i = 0; i < 10'000; ++i) {
    Add(a, i, i % 100 == 0 ? "bad" : "good", 0, i % 100 == 0 ? Level::kError : Level::kInfo);
  }
  for (int round = 0; round < 2; ++round) {
    for (const char* query : {"", "app=a", "a or b or good or bad"}) {
      const auto h = store_->Histogram(*Query::Parse(query), 0, 10'000, 10,
                                       std::chrono::steady_clock::time_point::max());
      ASSERT_TRUE(h.ok());
      EXPECT_EQ(h->total, 10'000u) << query;
      for (const auto& bucket : h->buckets) {
        EXPECT_EQ(bucket[static_cast<int>(Level::kInfo)], 990u) << query;
        EXPECT_EQ(bucket[static_cast<int>(Level::kError)], 10u) << query;
      }
    }
    EXPECT_EQ(store_
                  ->Histogram(*Query::Parse("bad"), 0, 5000, 3,
                              std::chrono::steady_clock::time_point::max())
                  ->total,
              50u);
    ASSERT_TRUE(store_->Flush().ok());
    Reopen();
  }
}

TEST_F(LogStoreTest, ContextStaysInTheStreamAndCrossesChunks) {
  const auto a = Stream("a"), b = Stream("b");
  const int total = static_cast<int>(kMaxChunkEntries) + 3;
  for (int i = 0; i < total; ++i) {
    Add(a, i, "a" + std::to_string(i));
    Add(b, i, "b");
  }
  const auto found = Find("a4096", {.limit = 1});
  ASSERT_EQ(found.entries.size(), 1u);
  const auto context = store_->Context(found.entries[0].id, 2, 2);
  ASSERT_TRUE(context.ok()) << context.status();
  std::vector<std::string> texts;
  for (const auto& f : *context) texts.push_back(f.entry.text);
  EXPECT_THAT(texts, ElementsAre("a4094", "a4095", "a4096", "a4097", "a4098"));
}

TEST_F(LogStoreTest, ContextOfWhatHasGoneIsNotFound) {
  EXPECT_EQ(store_->Context({77, 0}, 1, 1).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(LogStoreTest, DropsWhatIsPastItsDays) {
  const std::int64_t now =
      std::chrono::duration_cast<std::chrono::microseconds>(clock_.Now().time_since_epoch())
          .count();
  const auto a = Stream("a", 2);
  Add(a, now, "old");
  ASSERT_TRUE(store_->Flush().ok());
  Reopen();
  clock_.Advance(std::chrono::hours(47));
  ASSERT_TRUE(store_->Tend().ok());
  EXPECT_THAT(Texts("old"), ElementsAre("old"));
  clock_.Advance(std::chrono::hours(2));
  ASSERT_TRUE(store_->Tend().ok());
  EXPECT_THAT(Texts("old"), IsEmpty());
}

TEST_F(LogStoreTest, OverItsSizeTheOldestGoAndItIsSaid) {
  Reopen(4 << 20);
  const auto a = Stream("a");
  std::uint32_t noise = 1;
  for (int i = 0; i < 60'000; ++i) {
    std::string text = "line " + std::to_string(i);
    for (int k = 0; k < 20; ++k) {  // text that does not compress away
      noise = noise * 1664525 + 1013904223;
      text += absl::StrCat(" ", noise);
    }
    Add(a, i * kSecond, text);
  }
  ASSERT_TRUE(store_->Flush().ok());
  clock_.Advance(std::chrono::minutes(2));
  ASSERT_TRUE(store_->Tend().ok());
  EXPECT_THAT(Texts("\"line 0\""), IsEmpty());
  EXPECT_THAT(Texts("\"line 59999\"").size(), 1u);
  EXPECT_THAT(Texts("store=takt"), ElementsAre(HasSubstr("oldest")));
  const auto stats = store_->Stats();
  EXPECT_GT(stats->dropped_entries, 0u);
  const std::uint64_t before = stats->disk_bytes;
  for (int i = 0; i < 10'000; ++i) Add(a, (100'000 + i) * kSecond, "more");
  ASSERT_TRUE(store_->Flush().ok());
  EXPECT_LE(store_->Stats()->disk_bytes, before + (1 << 20));  // freed pages are used again
}

TEST_F(LogStoreTest, AClockThatJumpsBackHidesNothing) {
  const auto a = Stream("a");
  for (int i = 0; i < 10; ++i) Add(a, (1000 + i) * kSecond, "before " + std::to_string(i));
  for (int i = 0; i < 10; ++i) Add(a, (500 + i) * kSecond, "after " + std::to_string(i));
  Add(a, 1005 * kSecond, "right again");
  for (int round = 0; round < 2; ++round) {
    EXPECT_THAT(Texts("after", {.from_us = 500 * kSecond, .to_us = 503 * kSecond}),
                ElementsAre("after 2", "after 1", "after 0"));
    EXPECT_THAT(Texts("", {.from_us = 1004 * kSecond, .to_us = 1006 * kSecond}),
                ElementsAre("right again", "before 5", "before 4"));
    EXPECT_EQ(Find("", {.limit = 100}).entries.size(), 21u);
    std::size_t paged = 0;
    for (SearchOptions options{.limit = 4};;) {
      const SearchResult page = Find("", options);
      paged += page.entries.size();
      if (!page.more) break;
      options.after = page.entries.back().id;
      options.after_time_us = page.entries.back().entry.time_us;
    }
    EXPECT_EQ(paged, 21u);
    const auto histogram = store_->Histogram(*Query::Parse(""), 0, 2000 * kSecond, 2,
                                             std::chrono::steady_clock::time_point::max());
    EXPECT_EQ(histogram->total, 21u);
    // Around an entry stands what its source said around it, whatever the clock said.
    const auto after = Find("\"after 0\"").entries.at(0);
    const auto context = store_->Context(after.id, 1, 1);
    EXPECT_EQ(context->at(0).entry.text, "before 9");
    EXPECT_EQ(context->at(2).entry.text, "after 1");
    Reopen();
  }
}

TEST_F(LogStoreTest, ManyStreamsAreFoundByNameAndForgottenWithTheirEntries) {
  const std::int64_t now =
      std::chrono::duration_cast<std::chrono::microseconds>(clock_.Now().time_since_epoch())
          .count();
  constexpr int kStreams = 20'000;
  for (int i = 0; i < kStreams; ++i) {
    const auto id =
        store_->Stream({.app = "a", .service = "s", .instance = absl::StrCat("i", i)}, 1);
    ASSERT_TRUE(id.ok());
    Add(*id, now + i, absl::StrCat("label=", i, " hello"));
    if (i % 1000 != 0) store_->Close(*id);  // a thousandth of the instances are still there
  }
  ASSERT_TRUE(store_->Flush().ok());
  EXPECT_THAT(Texts("instance=i7777"), ElementsAre("label=7777 hello"));
  EXPECT_THAT(Texts("label=4242"), ElementsAre("label=4242 hello"));
  EXPECT_EQ(Find("hello", {.limit = 10}).entries.size(), 10u);
  clock_.Advance(std::chrono::minutes(10));
  ASSERT_TRUE(store_->Tend().ok());  // the chunks leave the memory
  clock_.Advance(std::chrono::hours(48));
  ASSERT_TRUE(store_->Tend().ok());
  EXPECT_EQ(store_->Streams().size(), kStreams / 1000u);
  Reopen();
  clock_.Advance(std::chrono::minutes(2));
  ASSERT_TRUE(store_->Tend().ok());
  EXPECT_THAT(store_->Streams(), IsEmpty());
}

TEST_F(LogStoreTest, AHundredThousandValuesOfAFieldCostNothingSpecial) {
  const auto a = Stream("a");
  std::vector<Entry> entries;
  constexpr int kValues = 100'000;
  entries.reserve(kValues);
  for (int i = 0; i < kValues; ++i) {
    entries.push_back({i, Level::kInfo, false, absl::StrCat("user=u", i, " hello"),
                       static_cast<std::uint64_t>(i + 1)});
  }
  ASSERT_TRUE(store_->Append(a, entries).ok());
  ASSERT_TRUE(store_->Flush().ok());
  Reopen();
  EXPECT_THAT(Texts("user=u77777"), ElementsAre("user=u77777 hello"));
  EXPECT_EQ(store_->Streams().size(), 1u);
  EXPECT_LT(store_->Stats()->disk_bytes, kValues * 60u);
}

// A file system of its own, which only this process sees. False where it may not be made.
bool MountSmallDisk(const std::string& path, const char* size) {
  if (unshare(CLONE_NEWNS) != 0) return false;
  if (mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) return false;
  return mount("tmpfs", path.c_str(), "tmpfs", 0, size) == 0;
}

TEST_F(LogStoreTest, OnAFullDiskTheOldestGoAndItIsSaidAndNewEntriesAreKept) {
  store_.reset();
  if (!MountSmallDisk(dir_.path(), "size=64m")) GTEST_SKIP() << "needs CAP_SYS_ADMIN";
  Reopen();
  const auto a = Stream("a");
  std::uint32_t noise = 1;
  // As a source does: what the store does not take now is offered again later.
  std::uint64_t given = 0;
  const auto give = [&](int lines) {
    for (int i = 0; i < lines; ++i) {
      std::string text = absl::StrCat("line ", given);
      for (int k = 0; k < 30; ++k) {
        noise = noise * 1664525 + 1013904223;
        text += absl::StrCat(" ", noise);
      }
      const Entry entry{static_cast<std::int64_t>(given) * kSecond, Level::kInfo, false, text,
                        given + 1};
      for (int attempt = 0; !store_->Append(a, {&entry, 1}).ok(); ++attempt) {
        ASSERT_LT(attempt, 100) << "the store does not recover: " << store_->Tend();
        clock_.Advance(std::chrono::seconds(1));
        store_->Tend().IgnoreError();
      }
      ++given;
      if (given % 1000 == 0) {
        clock_.Advance(std::chrono::minutes(2));
        store_->Tend().IgnoreError();
      }
    }
  };
  give(300'000);  // some 100 MB
  // Somebody else takes all that is left.
  {
    std::ofstream file(dir_.path() + "/other", std::ios::binary);
    const std::string block(4096, 'x');
    while (file.write(block.data(), std::ssize(block)).flush()) {
    }
  }
  give(50'000);
  for (int i = 0; i < 10; ++i) {
    clock_.Advance(std::chrono::minutes(2));
    if (store_->Tend().ok()) break;
  }
  ASSERT_TRUE(store_->Flush().ok());
  EXPECT_THAT(Texts("\"line 0\""), IsEmpty());
  EXPECT_EQ(Texts(absl::StrCat("\"line ", given - 1, "\"")).size(), 1u);
  EXPECT_THAT(Texts("store=takt"),
              testing::Contains(HasSubstr("the disk is nearly full: the oldest")));
  const auto stats = store_->Stats();
  EXPECT_EQ(stats->entries + stats->dropped_entries,
            given + Find("store=takt", {.limit = 10'000}).entries.size());
  // On a disk that stays full nothing more goes as long as nothing comes.
  for (int i = 0; i < 10; ++i) {
    clock_.Advance(std::chrono::minutes(2));
    EXPECT_TRUE(store_->Tend().ok());
  }
  EXPECT_EQ(store_->Stats()->dropped_entries, stats->dropped_entries);
  store_.reset();
  umount2(dir_.path().c_str(), MNT_DETACH);
}

TEST_F(LogStoreTest, AnEntryOverTheLimitIsCutAndSaysSo) {
  const auto a = Stream("a");
  std::string text;
  while (text.size() < kMaxEntryBytes * 2) text += "\xe4\xb8\xad";
  Add(a, 1, text);
  const auto found = Find("");
  ASSERT_EQ(found.entries.size(), 1u);
  EXPECT_LE(found.entries[0].entry.text.size(), kMaxEntryBytes);
  EXPECT_THAT(found.entries[0].entry.text, HasSubstr("more bytes cut]"));
}

TEST_F(LogStoreTest, ATailSeesWhatMatchesFromNowOnUntilItIsDropped) {
  const auto a = Stream("a");
  Add(a, 1, "match before");
  std::vector<std::string> seen;
  auto tail = store_->Follow(std::make_shared<const Query>(std::move(*Query::Parse("match"))),
                             [&](const std::vector<FoundEntry>& entries) {
                               for (const auto& f : entries) seen.push_back(f.entry.text);
                               return true;
                             });
  ASSERT_TRUE(tail.ok());
  Add(a, 2, "match one");
  Add(a, 3, "other");
  tail->reset();
  Add(a, 4, "match after");
  EXPECT_THAT(seen, ElementsAre("match one"));
}

TEST_F(LogStoreTest, ATailThatWantsNoMoreIsNotAskedAgain) {
  const auto a = Stream("a");
  int calls = 0;
  const auto tail =
      store_->Follow(std::make_shared<const Query>(std::move(*Query::Parse(""))), [&](const auto&) {
        ++calls;
        return false;
      });
  Add(a, 1, "one");
  Add(a, 2, "two");
  EXPECT_EQ(calls, 1);
}

TEST_F(LogStoreTest, TailsHaveALimit) {
  std::vector<LogStore::Tail> tails;
  const auto query = std::make_shared<const Query>(std::move(*Query::Parse("")));
  for (std::size_t i = 0; i < kMaxTails; ++i) {
    auto tail = store_->Follow(query, [](const auto&) { return true; });
    ASSERT_TRUE(tail.ok());
    tails.push_back(*tail);
  }
  EXPECT_EQ(store_->Follow(query, [](const auto&) { return true; }).status().code(),
            absl::StatusCode::kResourceExhausted);
  tails.pop_back();
  EXPECT_TRUE(store_->Follow(query, [](const auto&) { return true; }).ok());
}

TEST_F(LogStoreTest, ADeadlineGivesWhatWasFoundAndSaysSo) {
  const auto a = Stream("a");
  for (int i = 0; i < 10'000; ++i) Add(a, i, "x");
  ASSERT_TRUE(store_->Flush().ok());
  Reopen();
  const auto result = Find(
      "x", {.limit = 9000, .deadline = std::chrono::steady_clock::now() - std::chrono::seconds(1)});
  EXPECT_FALSE(result.complete);
}

}  // namespace
}  // namespace takt::logs
