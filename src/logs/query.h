// The log query language, small and familiar:
//
//   word            the text holds it, letter case aside
//   "two words"     the text holds the phrase as whole words, letter case aside
//   'Exact: x'      the text holds it exactly
//   /time(d)? out/  RE2; add (?i) for letter case aside
//   level>=warn     levels: trace < debug < info < warn < error < fatal
//   app=a  service=  instance=  store=  node=  run=  revision=  stream=stderr
//   status=500  lr<0.1  user!=bob  path=~"^/v1"  name!~x     fields of JSON and key=value lines
//   a b, a and b;  a or b;  not a;  ( )                      "and" binds closer than "or"
//
// A trailing * in an = comparison matches any rest. A field that a line does not have makes every
// comparison with it false, != included; `not field=x` also takes lines without the field.
// An empty query takes everything. Immutable after Parse; any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "base/status.h"
#include "logs/entry.h"

namespace takt::logs {

inline constexpr std::size_t kMaxQueryBytes = 4096;
inline constexpr int kMaxQueryDepth = 50;

// Where a stream of lines comes from.
struct StreamKey {
  std::string app, service, instance;
  std::string store = "stdout";  // log store's name, or "stdout" where none was declared
  std::string node;
  std::string run;  // "" where the instance is no training
  int revision = 0;
  std::string file;         // path in the instance, for a store that follows files
  std::uint64_t inode = 0;  // of that file: a rotated one is another stream
  bool operator==(const StreamKey&) const = default;
};

// What one entry is matched by. `lower` is `text` in lower case (ASCII).
struct Subject {
  const StreamKey* stream = nullptr;
  Level level = Level::kUnknown;
  bool is_stderr = false;
  std::string_view text, lower;
};

class Query {
 public:
  // INVALID_ARGUMENT naming the column (from 1), what was expected and what came.
  static absl::StatusOr<Query> Parse(std::string_view text);
  Query(Query&&) noexcept;
  Query& operator=(Query&&) noexcept;
  ~Query();

  bool Match(const Subject& subject) const;
  // False only when no entry of the stream can match.
  bool MayMatchStream(const StreamKey& stream) const;
  // False only when no entry of the chunk with this filter, of this stream, can match.
  bool MayMatchChunk(const StreamKey& stream, std::string_view filter) const;
  // True when every entry of the stream matches: nothing but the stream is asked about.
  bool AlwaysMatchesStream(const StreamKey& stream) const;
  // A text in lower case that every match holds, the longest known; "" when there is none.
  std::string_view anchor() const { return anchor_; }

  struct Node;

 private:
  explicit Query(std::unique_ptr<Node> root);
  std::unique_ptr<Node> root_;
  std::string anchor_;
};

}  // namespace takt::logs
