// The central log store: every line of every app, kept compressed, found quickly. Not a collector
// (see collector.h) and no judge of what is said.
//
// Lines come in streams (one instance's log, one file of it). A stream's newest entries lie in
// memory and are written every flush interval, together with the position in their source; so what
// a kill -9 takes from memory is read from its source again, and nothing comes twice.
//
// Threads: every function may be called from any thread. Search reads on the caller's thread with a
// connection of its own and delays no Append for longer than its look at the newest entries.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/sqlite.h"
#include "base/status.h"
#include "logs/chunk.h"
#include "logs/query.h"

namespace takt::logs {

inline constexpr std::size_t kMaxEntryBytes = 65 << 10;  // longer ones are cut, and say so
inline constexpr std::size_t kMaxSearchEntries = 10'000;
inline constexpr std::size_t kMaxHistogramBuckets = 2000;
inline constexpr std::size_t kMaxTails = 256;  // subscriptions at once
inline constexpr std::size_t kMaxReaders = 16;

struct StoreOptions {
  std::string path;
  std::uint64_t max_bytes = std::uint64_t{10} << 30;  // on disk; beyond: the oldest entries go
  std::chrono::milliseconds flush_interval{2000};
};

// Names one entry for ever.
struct EntryId {
  std::int64_t chunk = 0;
  std::int64_t index = 0;
  auto operator<=>(const EntryId&) const = default;  // NOLINT(modernize-use-nullptr): none is here
};

struct FoundEntry {
  EntryId id;
  StreamKey stream;
  Entry entry;
};

struct SearchOptions {
  std::int64_t from_us = INT64_MIN, to_us = INT64_MAX;  // [from, to)
  std::size_t limit = 500;                              // at most kMaxSearchEntries
  bool newest_first = true;
  // Go on after this entry of an earlier answer (in the order asked for); chunk 0 = from the start.
  EntryId after;
  std::int64_t after_time_us = 0;
  // Gives up there and says so in `complete`.
  std::chrono::steady_clock::time_point deadline = std::chrono::steady_clock::time_point::max();
};

struct SearchResult {
  std::vector<FoundEntry> entries;
  bool more = false;     // there are further matches
  bool complete = true;  // false: the deadline came first; what is there is right, but not all
  std::uint64_t scanned_entries = 0;
};

struct HistogramResult {
  std::int64_t from_us = 0, bucket_us = 0;
  std::vector<std::array<std::uint64_t, kLevels>> buckets;  // count by level
  std::uint64_t total = 0;
  bool complete = true;
};

struct StoreStats {
  std::uint64_t entries = 0, text_bytes = 0, disk_bytes = 0, streams = 0;
  std::uint64_t dropped_entries = 0;  // by max_bytes, since the store was made
};

// What a durable reader gets next; see LogStore::ReadNext.
struct ReaderBatch {
  std::vector<FoundEntry> entries;       // of a stream in its order
  std::uint64_t passed = 0;              // entries looked at, with those that did not match
  std::map<std::int64_t, EntryId> ends;  // by stream: how far it was read, for CommitRead
  bool more = false;                     // there was more to read
};

struct ReaderState {
  std::uint64_t behind_entries = 0;   // on the disk and not read
  std::int64_t oldest_unread_us = 0;  // about; 0 = nothing is unread
  std::uint64_t removed_entries = 0;  // by days or size before they were read, ever
};

class LogStore {
 public:
  static absl::StatusOr<std::unique_ptr<LogStore>> Open(const StoreOptions& options,
                                                        const Clock& clock);
  // Flushes.
  ~LogStore();

  // The stream's number, made when new. `ttl_days` 0 = no limit of its own; the newest call counts.
  absl::StatusOr<std::int64_t> Stream(const StreamKey& key, int ttl_days);
  // Its source is gone for good: the stream is forgotten once none of its entries is left. So is
  // one that nobody has asked Stream for since the store was opened.
  void Close(std::int64_t stream);
  // Position in the source after the last entry appended. After a restart: after the last one that
  // is on the disk, where reading the source goes on. 0 = nothing yet.
  absl::StatusOr<std::uint64_t> Position(std::int64_t stream);
  // Adds entries, oldest first. Where it fails (RESOURCE_EXHAUSTED: the disk is full), Position
  // tells how many were taken; the source has to keep the rest.
  absl::Status Append(std::int64_t stream, std::span<const Entry> entries);
  // Everything appended so far is on the disk when this returns.
  absl::Status Flush();
  // Writes what has waited for the flush interval; drops what is past its days or over max_bytes.
  // To be called about once a second.
  absl::Status Tend();

  absl::StatusOr<SearchResult> Search(const Query& query, const SearchOptions& options);
  // Counts of matches in `buckets` equal spans of [from, to).
  absl::StatusOr<HistogramResult> Histogram(const Query& query, std::int64_t from_us,
                                            std::int64_t to_us, std::size_t buckets,
                                            std::chrono::steady_clock::time_point deadline);
  // The entries of the same stream around one, oldest first, itself included. NOT_FOUND when it has
  // gone.
  absl::StatusOr<std::vector<FoundEntry>> Context(EntryId id, std::size_t before,
                                                  std::size_t after);
  // Calls `on_entries` from the appending thread for everything that matches, from now on, until
  // the result is destroyed (which waits for a call under way) or `on_entries` returns false.
  // RESOURCE_EXHAUSTED beyond kMaxTails.
  using Tail = std::shared_ptr<void>;
  absl::StatusOr<Tail> Follow(std::shared_ptr<const Query> query,
                              std::function<bool(const std::vector<FoundEntry>&)> on_entries);

  // Durable readers: the store remembers under a name how far each has read, in the same database
  // as the entries, so both survive the same deaths. Each entry is read at least once; those that
  // days or size remove before are counted. ALREADY_EXISTS, RESOURCE_EXHAUSTED beyond kMaxReaders.
  absl::Status AddReader(const std::string& name, bool from_start);
  absl::Status RemoveReader(const std::string& name);  // OK where there is none
  absl::StatusOr<std::vector<std::string>> Readers();
  // What comes after the last CommitRead and is on the disk (so the newest entries come after the
  // flush interval): matches of `query` up to about so many entries and bytes of text. Without
  // CommitRead the same again. NOT_FOUND for an unknown reader.
  absl::StatusOr<ReaderBatch> ReadNext(const std::string& name, const Query& query,
                                       std::size_t max_entries, std::size_t max_bytes);
  absl::Status CommitRead(const std::string& name, const ReaderBatch& batch);
  absl::StatusOr<ReaderState> StateOfReader(const std::string& name);
  // Counts up with each flush: where it stands still, ReadNext has nothing new.
  std::uint64_t flushes() const { return flushes_; }

  absl::StatusOr<StoreStats> Stats();
  // All streams, for lists of what there is to ask about.
  std::vector<StreamKey> Streams();

 private:
  struct OpenStream;
  struct Follower;
  struct ChunkRow;
  class Collected;
  LogStore(const StoreOptions& options, const Clock& clock);
  absl::Status Load();
  OpenStream* FindStream(std::int64_t id);
  absl::StatusOr<std::int64_t> StreamLocked(const StreamKey& key, int ttl_days);
  absl::Status AppendLocked(OpenStream& stream, std::span<const Entry> entries,
                            std::vector<FoundEntry>* added);
  absl::Status FlushStream(OpenStream& stream);
  absl::Status FlushLocked(bool everything);
  absl::Status DropExpired();
  absl::Status DropEmptyStreams();
  // Until the store has its size and the disk some room. RESOURCE_EXHAUSTED: too full even for
  // that.
  absl::Status DropOldest();
  absl::Status DropOverSize();  // the same, with the reserve's help
  std::string ReservePath() const;
  void KeepReserve() const;  // a file that keeps some room, for DropOverSize
  // Chunks on the disk that may hold matches, by falling (newest_first) or rising time.
  absl::StatusOr<std::vector<ChunkRow>> ListChunks(std::int64_t from_us, std::int64_t to_us,
                                                   bool newest_first);
  absl::StatusOr<std::string> ReadFilter(std::int64_t chunk);
  // OK with no entries when the chunk has gone meanwhile.
  absl::Status ReadColumns(std::int64_t chunk, bool with_text, Columns& columns);
  // Calls visit(index) for the entries of `columns` in [from, to) that match.
  static void ForMatches(const Query& query, const StreamKey& key, const Columns& columns,
                         std::int64_t from_us, std::int64_t to_us,
                         const std::function<void(std::size_t)>& visit);
  void Notify(const std::vector<FoundEntry>& added);
  // Counts, for each reader, what it has not read of the chunks (alias c) that `condition` takes;
  // to be called before they are removed.
  absl::Status CountUnread(std::string_view condition, std::initializer_list<SqlValue> values);
  std::int64_t OldestOpenChunk() const;  // INT64_MAX when none is open

  const StoreOptions options_;
  const Clock& clock_;
  std::mutex mutex_;
  std::unique_ptr<Sqlite> db_;  // under mutex_
  std::map<std::int64_t, std::unique_ptr<OpenStream>> streams_;
  std::map<std::string, std::int64_t> ids_;  // by StreamKey, joined
  std::mutex read_mutex_;
  std::unique_ptr<Sqlite> reader_;  // under read_mutex_
  std::mutex followers_mutex_;
  std::vector<std::weak_ptr<Follower>> followers_;
  std::chrono::steady_clock::time_point last_drop_{};
  std::atomic<std::uint64_t> flushes_{0};
};

}  // namespace takt::logs
