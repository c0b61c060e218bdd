// What others tell of their figures: Prometheus' text, files of /proc, and packed samples from a
// disk that may be damaged.
#include <cmath>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/fuzz_for_test.h"
#include "metrics/chunk.h"
#include "metrics/node.h"
#include "metrics/prometheus.h"

namespace takt::metrics {
namespace {

void Scrape(std::string_view text) {
  const auto read = ParseExposition(text);
  if (!read.ok()) return;
  Require(read->figures.size() <= kMaxScrapedFigures, "no more figures than the limit");
  // Counters and gauges of one name may stand apart in what others write: types are not compared.
  const auto again = ParseExposition(WriteExposition(read->figures));
  Require(again.ok() && again->dropped == 0 && again->figures.size() == read->figures.size(),
          "what is written can be read");
  for (std::size_t i = 0; i < read->figures.size(); ++i) {
    const Figure &a = read->figures[i], &b = again->figures[i];
    Require(a.name == b.name && a.labels == b.labels, "names and labels survive");
    Require(a.value == b.value || (std::isnan(a.value) && std::isnan(b.value)), "values survive");
  }
}

template <typename T, typename Decode, typename Encode>
void Unpack(std::string_view bytes, Decode decode, Encode encode) {
  std::vector<T> values;
  if (!decode(bytes, values).ok() || values.empty()) return;
  // What damaged bytes say may be no samples (a window of none, say), and is refused the next time.
  std::vector<T> again;
  if (decode(encode(values), again).ok())
    Require(again.size() == values.size(), "as many come out");
}

}  // namespace
}  // namespace takt::metrics

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace takt::metrics;
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (takt::Choice(data[0], 4)) {
    case 0:
      Scrape(text);
      break;
    case 1:
      Unpack<Sample>(text, DecodeSamples, EncodeSamples);
      break;
    case 2:
      Unpack<Window>(text, DecodeWindows, EncodeWindows);
      break;
    default: {
      std::vector<Figure> figures;
      ParseStat(text, 100, figures);
      ParseMeminfo(text, figures);
      ParseNetDev(text, figures);
      ParseDiskstats(text, figures);
      ParsePressure("cpu", text, figures);
      ParseLoadavg(text, figures);
      ParseFileNr(text, figures);
      break;
    }
  }
  return 0;
}
