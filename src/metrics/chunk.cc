#include "metrics/chunk.h"

#include <zstd.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "base/varint.h"

namespace takt::metrics {
namespace {

constexpr char kSamples = 1, kWindows = 2;
constexpr char kCompressed = static_cast<char>(0x80);
constexpr int kMaxExponent = 9;
constexpr std::uint8_t kRaw = 255;
constexpr double kPowers[] = {1, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9};

struct Reader {
  std::string_view rest;
  bool ok = true;
  std::uint64_t Varint() {
    const char* at = rest.data();
    std::uint64_t value = 0;
    if (!ReadVarint(at, rest.data() + rest.size(), value)) {
      ok = false;
      return 0;
    }
    rest.remove_prefix(static_cast<std::size_t>(at - rest.data()));
    return value;
  }
  std::uint8_t Byte() {
    if (rest.empty()) {
      ok = false;
      return 0;
    }
    const auto byte = static_cast<std::uint8_t>(rest[0]);
    rest.remove_prefix(1);
    return byte;
  }
};

// The least e for which every value is a whole number of 10^-e, bit for bit; -1 for none.
int ExponentFor(const std::vector<double>& values) {
  int exponent = 0;
  for (const double v : values) {
    while (true) {
      const double scaled = std::nearbyint(v * kPowers[exponent]);
      // Minus zero would come back as zero.
      if (std::abs(scaled) < 9e15 && scaled / kPowers[exponent] == v &&
          !(v == 0 && std::signbit(v))) {
        break;
      }
      if (++exponent > kMaxExponent) return -1;
    }
  }
  // A value that fits a smaller exponent may not fit the greatest one.
  for (const double v : values) {
    const double scaled = std::nearbyint(v * kPowers[exponent]);
    if (!(std::abs(scaled) < 9e15) || scaled / kPowers[exponent] != v) return -1;
  }
  return exponent;
}

void PutValues(const std::vector<double>& values, std::string& out) {
  const int exponent = ExponentFor(values);
  if (exponent >= 0) {
    out.push_back(static_cast<char>(exponent));
    std::int64_t last = 0;
    for (const double v : values) {
      const auto whole = static_cast<std::int64_t>(std::nearbyint(v * kPowers[exponent]));
      AppendVarint(Zigzag(whole - last), out);
      last = whole;
    }
    return;
  }
  out.push_back(static_cast<char>(kRaw));
  const std::size_t start = out.size(), n = values.size();
  out.resize(start + n * 8);
  std::uint64_t last = 0;
  for (std::size_t i = 0; i < n; ++i) {
    const auto bits = std::bit_cast<std::uint64_t>(values[i]);
    const std::uint64_t difference = bits ^ last;
    last = bits;
    for (std::size_t byte = 0; byte < 8; ++byte) {
      out[start + byte * n + i] = static_cast<char>(difference >> (8 * byte));
    }
  }
}

bool GetValues(Reader& in, std::size_t n, std::vector<double>& values) {
  values.resize(n);
  const std::uint8_t exponent = in.Byte();
  if (exponent <= kMaxExponent) {
    std::int64_t last = 0;
    for (double& v : values) {
      last = static_cast<std::int64_t>(static_cast<std::uint64_t>(last) +
                                       static_cast<std::uint64_t>(Unzigzag(in.Varint())));
      v = static_cast<double>(last) / kPowers[exponent];
    }
    return in.ok;
  }
  if (exponent != kRaw || in.rest.size() < n * 8) return false;
  std::uint64_t last = 0;
  for (std::size_t i = 0; i < n; ++i) {
    std::uint64_t difference = 0;
    for (std::size_t byte = 0; byte < 8; ++byte) {
      difference |= static_cast<std::uint64_t>(static_cast<std::uint8_t>(in.rest[byte * n + i]))
                    << (8 * byte);
    }
    last ^= difference;
    values[i] = std::bit_cast<double>(last);
  }
  in.rest.remove_prefix(n * 8);
  return true;
}

void PutTimes(const std::vector<std::int64_t>& times, std::string& out) {
  AppendVarint(times.size(), out);
  std::int64_t last = 0, last_delta = 0;
  for (const std::int64_t t : times) {
    const std::int64_t delta = t - last;
    AppendVarint(Zigzag(delta - last_delta), out);
    last = t;
    last_delta = delta;
  }
}

bool GetTimes(Reader& in, std::vector<std::int64_t>& times) {
  const std::uint64_t n = in.Varint();
  if (!in.ok || n > kMaxChunkSamples) return false;
  times.resize(n);
  std::uint64_t last = 0, delta = 0;
  for (std::int64_t& t : times) {
    delta += static_cast<std::uint64_t>(Unzigzag(in.Varint()));
    last += delta;
    t = static_cast<std::int64_t>(last);
  }
  return in.ok;
}

std::string Pack(char kind, const std::string& columns) {
  struct Context {
    ZSTD_CCtx* zstd = ZSTD_createCCtx();
    ~Context() { ZSTD_freeCCtx(zstd); }
  };
  thread_local Context context;
  std::string out(1 + ZSTD_compressBound(columns.size()), kind);
  const std::size_t size = ZSTD_compressCCtx(context.zstd, out.data() + 1, out.size() - 1,
                                             columns.data(), columns.size(), 1);
  if (ZSTD_isError(size) != 0 || size >= columns.size()) return kind + columns;
  out[0] = static_cast<char>(kind | kCompressed);
  out.resize(1 + size);
  return out;
}

absl::Status Damaged() { return absl::DataLossError("metrics chunk: damaged"); }

absl::Status Unpack(char kind, std::string_view bytes, std::string& storage, Reader& in) {
  if (bytes.empty() || (bytes[0] & 0x7f) != kind) return Damaged();
  if ((bytes[0] & kCompressed) == 0) {
    in.rest = bytes.substr(1);
    return absl::OkStatus();
  }
  bytes.remove_prefix(1);
  const auto size = ZSTD_getFrameContentSize(bytes.data(), bytes.size());
  if (size > kMaxChunkSamples * 64) return Damaged();  // both error values are greater
  storage.resize(size);
  struct Context {
    ZSTD_DCtx* zstd = ZSTD_createDCtx();
    ~Context() { ZSTD_freeDCtx(zstd); }
  };
  thread_local Context context;
  if (ZSTD_decompressDCtx(context.zstd, storage.data(), size, bytes.data(), bytes.size()) != size) {
    return Damaged();
  }
  in.rest = storage;
  return absl::OkStatus();
}

}  // namespace

std::string EncodeSamples(const std::vector<Sample>& samples) {
  std::vector<std::int64_t> times;
  std::vector<double> values;
  times.reserve(samples.size());
  values.reserve(samples.size());
  for (const Sample& s : samples) {
    times.push_back(s.time_ms);
    values.push_back(s.value);
  }
  std::string columns;
  PutTimes(times, columns);
  PutValues(values, columns);
  return Pack(kSamples, columns);
}

absl::Status DecodeSamples(std::string_view bytes, std::vector<Sample>& out) {
  thread_local std::string storage;
  Reader in;
  TAKT_RETURN_IF_ERROR(Unpack(kSamples, bytes, storage, in));
  thread_local std::vector<std::int64_t> times;
  thread_local std::vector<double> values;
  if (!GetTimes(in, times) || !GetValues(in, times.size(), values)) return Damaged();
  out.reserve(out.size() + times.size());
  for (std::size_t i = 0; i < times.size(); ++i) out.push_back({times[i], values[i]});
  return absl::OkStatus();
}

std::string EncodeWindows(const std::vector<Window>& windows) {
  std::vector<std::int64_t> times;
  std::vector<double> columns[5];
  for (const Window& w : windows) {
    times.push_back(w.time_ms);
    const double values[] = {w.min, w.max, w.sum, w.last, static_cast<double>(w.count)};
    for (int c = 0; c < 5; ++c) columns[c].push_back(values[c]);
  }
  std::string out;
  PutTimes(times, out);
  for (const auto& column : columns) PutValues(column, out);
  return Pack(kWindows, out);
}

absl::Status DecodeWindows(std::string_view bytes, std::vector<Window>& out) {
  std::string storage;
  Reader in;
  TAKT_RETURN_IF_ERROR(Unpack(kWindows, bytes, storage, in));
  std::vector<std::int64_t> times;
  if (!GetTimes(in, times)) return Damaged();
  std::vector<double> columns[5];
  for (auto& column : columns) {
    if (!GetValues(in, times.size(), column)) return Damaged();
  }
  for (std::size_t i = 0; i < times.size(); ++i) {
    out.push_back({times[i], columns[0][i], columns[1][i], columns[2][i], columns[3][i],
                   static_cast<std::int64_t>(columns[4][i])});
  }
  return absl::OkStatus();
}

void AddSample(const Sample& sample, std::int64_t span_ms, std::vector<Window>& windows) {
  AddWindow({sample.time_ms, sample.value, sample.value, sample.value, sample.value, 1}, span_ms,
            windows);
}

void AddWindow(const Window& window, std::int64_t span_ms, std::vector<Window>& windows) {
  // Mostly it falls into the last one: no division then.
  if (windows.empty() || window.time_ms < windows.back().time_ms ||
      window.time_ms - windows.back().time_ms >= span_ms) {
    windows.push_back(window);
    windows.back().time_ms = window.time_ms - window.time_ms % span_ms;
    return;
  }
  Window& into = windows.back();
  into.min = std::min(into.min, window.min);
  into.max = std::max(into.max, window.max);
  into.sum += window.sum;
  into.last = window.last;
  into.count += window.count;
}

}  // namespace takt::metrics
