// Queries that people write and lines that programs write: what a query finds, every shortcut of
// the store lets it find. And chunks from a disk that may be damaged.
#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>

#include "base/fuzz_for_test.h"
#include "logs/chunk.h"
#include "logs/entry.h"
#include "logs/query.h"

namespace takt::logs {
namespace {

void Line(std::string_view line) {
  static_cast<void>(RecogniseTime(line));
  static_cast<void>(RecogniseLevel(line));
  const std::string_view shown = CollapseCarriageReturns(line);
  Require(shown.size() <= line.size(), "a line only gets shorter");
  VisitFields(line, [](std::string_view, std::string_view) { return true; });
}

// The first line is a query, the rest an entry.
void Ask(std::string_view text) {
  const std::size_t end = std::min(text.find('\n'), text.size());
  Entry entry;
  entry.text = text.substr(std::min(end + 1, text.size()));
  Line(entry.text);
  static_cast<void>(Continues(text.substr(0, end), entry.text));

  const auto query = Query::Parse(text.substr(0, end));
  if (!query.ok()) {
    Require(!query.status().message().empty(), "a refusal says why");
    return;
  }
  StreamKey stream;
  stream.app = "mnist";
  stream.service = "train";
  stream.instance = "train-1";
  stream.revision = 2;
  std::string lower = entry.text;
  LowerAscii(lower);
  const Subject subject{&stream, RecogniseLevel(entry.text), false, entry.text, lower};
  const bool matches = query->Match(subject);
  if (query->AlwaysMatchesStream(stream)) Require(matches, "what always matches, matches");
  if (!matches) return;
  Require(query->MayMatchStream(stream), "no stream with a match is passed by");
  Require(query->MayMatchChunk(stream, BuildFilter(entry.text)), "no chunk with a match is");
  Require(lower.find(query->anchor()) != std::string::npos, "every match holds the anchor");
}

void Chunk(std::string_view bytes) {
  const std::size_t half = bytes.size() / 2;
  Columns columns;
  if (!DecodeMeta(bytes.substr(0, half), columns).ok()) return;
  if (!DecodeText(bytes.substr(half), columns).ok()) return;
  Columns again;
  Require(DecodeMeta(EncodeMeta(columns), again).ok() &&
              DecodeText(EncodeText(columns), again).ok() && again.times_us == columns.times_us &&
              again.flags == columns.flags && again.ends == columns.ends &&
              again.text == columns.text,
          "what is packed can be unpacked");
  for (std::size_t i = 0; i < columns.size(); ++i) static_cast<void>(columns.Text(i));
}

}  // namespace
}  // namespace takt::logs

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (takt::Choice(data[0], 2) == 0) {
    takt::logs::Ask(text);
  } else {
    takt::logs::Chunk(text);
  }
  return 0;
}
