#include "metrics/chunk.h"

#include <zstd.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "base/varint.h"

namespace takt::metrics {
namespace {

constexpr char kSamples = 1, kWindows = 2, kPackedSamples = 3, kPackedWindows = 4;
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

// ---- Columns of whole numbers ----

constexpr std::uint8_t kAsVarints = 127;  // in place of a width
constexpr std::uint8_t kDifferences = 0x80;
constexpr int kMaxWidth = 56;

// How a column is written: first (of differences only), least, unit, then each
// (v - least) / unit, where v is the number or its difference to the one before.
struct Layout {
  bool differences = false;
  std::int64_t first = 0, least = 0;
  std::uint64_t unit = 1;
  int width = 0;  // bits of the greatest

  std::size_t PackedBytes(std::size_t n) const { return (n * width + 7) / 8; }
};

Layout LayoutOf(const std::vector<std::int64_t>& numbers, bool differences) {
  Layout layout{.differences = differences};
  if (numbers.size() <= (differences ? 1u : 0u)) {
    if (!numbers.empty()) layout.first = numbers[0];
    return layout;
  }
  layout.first = numbers[0];
  const auto each = [&](auto use) {
    for (std::size_t i = differences ? 1 : 0; i < numbers.size(); ++i) {
      use(differences ? numbers[i] - numbers[i - 1] : numbers[i]);
    }
  };
  std::int64_t least = std::numeric_limits<std::int64_t>::max(), most = -least;
  each([&](std::int64_t v) {
    least = std::min(least, v);
    most = std::max(most, v);
  });
  std::uint64_t unit = 0;
  each([&](std::int64_t v) {
    const auto above = static_cast<std::uint64_t>(v - least);
    if (unit == 1 || (unit != 0 && above % unit == 0)) return;
    unit = std::gcd(unit, above);
  });
  layout.least = least;
  layout.unit = std::max<std::uint64_t>(unit, 1);
  layout.width =
      static_cast<int>(std::bit_width(static_cast<std::uint64_t>(most - least) / layout.unit));
  return layout;
}

// Numbers below 2^61 either way, so that differences fit.
void PutColumn(const std::vector<std::int64_t>& numbers, bool packed, std::string& out) {
  const Layout plain = LayoutOf(numbers, false), steps = LayoutOf(numbers, true);
  const Layout& layout = steps.width < plain.width ? steps : plain;
  const bool bits = packed && layout.width <= kMaxWidth;
  out.push_back(static_cast<char>((layout.differences ? kDifferences : 0) |
                                  (bits ? layout.width : kAsVarints)));
  if (layout.differences) AppendVarint(Zigzag(layout.first), out);
  AppendVarint(Zigzag(layout.least), out);
  AppendVarint(layout.unit, out);
  std::uint64_t pending = 0;  // bits that are not a byte yet
  int pending_bits = 0;
  for (std::size_t i = layout.differences ? 1 : 0; i < numbers.size(); ++i) {
    const std::int64_t v = layout.differences ? numbers[i] - numbers[i - 1] : numbers[i];
    const std::uint64_t number = static_cast<std::uint64_t>(v - layout.least) / layout.unit;
    if (!bits) {
      AppendVarint(number, out);
      continue;
    }
    pending |= number << pending_bits;
    for (pending_bits += layout.width; pending_bits >= 8; pending_bits -= 8) {
      out.push_back(static_cast<char>(pending));
      pending >>= 8;
    }
  }
  if (pending_bits > 0) out.push_back(static_cast<char>(pending));
}

bool GetColumn(Reader& in, std::size_t n, std::vector<std::int64_t>& numbers) {
  numbers.resize(n);
  const std::uint8_t head = in.Byte();
  const int width = head & 0x7f;
  const bool differences = (head & kDifferences) != 0;
  // Wraps where the bytes are damaged, instead of being undefined.
  std::uint64_t last = differences ? static_cast<std::uint64_t>(Unzigzag(in.Varint())) : 0;
  const auto least = static_cast<std::uint64_t>(Unzigzag(in.Varint()));
  const std::uint64_t unit = in.Varint();
  if (!in.ok || (width > kMaxWidth && width != kAsVarints)) return false;
  std::size_t i = 0;
  if (differences && n > 0) numbers[i++] = static_cast<std::int64_t>(last);
  const auto put = [&](std::uint64_t number) {
    const std::uint64_t v = number * unit + least;
    last = differences ? last + v : v;
    numbers[i] = static_cast<std::int64_t>(last);
  };
  if (width == kAsVarints) {
    for (; i < n; ++i) put(in.Varint());
    return in.ok;
  }
  if (width == 0) {  // every number, or every difference, is the same: times mostly are
    for (; i < n; ++i) {
      last = differences ? last + least : least;
      numbers[i] = static_cast<std::int64_t>(last);
    }
    return true;
  }
  const std::size_t bytes = ((n - i) * static_cast<std::size_t>(width) + 7) / 8;
  if (in.rest.size() < bytes) return false;
  const std::uint64_t mask = (std::uint64_t{1} << width) - 1;
  const char* const data = in.rest.data();
  const std::size_t whole = bytes >= 8 ? bytes - 8 : 0;  // where eight bytes can be read at once
  std::size_t bit = 0;
  for (; i < n; ++i, bit += static_cast<std::size_t>(width)) {
    const std::size_t at = bit / 8;
    std::uint64_t word = 0;
    if (bytes >= 8 && at <= whole) {
      std::memcpy(&word, data + at, 8);
    } else {
      std::memcpy(&word, data + at, bytes - at);
    }
    put(word >> (bit % 8) & mask);
  }
  in.rest.remove_prefix(bytes);
  return true;
}

// v * 10^exponent of each.
std::vector<std::int64_t> Scaled(const std::vector<double>& values, int exponent) {
  std::vector<std::int64_t> numbers;
  numbers.reserve(values.size());
  for (const double v : values) {
    numbers.push_back(static_cast<std::int64_t>(std::nearbyint(v * kPowers[exponent])));
  }
  return numbers;
}

// The least exponent, from `exponent` on, at which every sum is a whole number within what adding
// `counts` numbers in floating point may have lost; -1 for none. Sums of decimals, such as
// 0.1 + 0.2, come back as the decimal that they are.
int ExponentForSums(const std::vector<Window>& windows, int exponent) {
  for (const Window& w : windows) {
    const double reach = std::max(std::abs(w.min), std::abs(w.max)) * static_cast<double>(w.count);
    const double lost = reach * static_cast<double>(w.count) * 0x1p-53;
    while (true) {
      const double scaled = std::nearbyint(w.sum * kPowers[exponent]);
      // Whole numbers must lie far apart compared with what may have been lost, else one is always
      // near.
      if (std::abs(scaled) < 9e15 && lost * kPowers[exponent] < 0x1p-8 &&
          std::abs(scaled / kPowers[exponent] - w.sum) <= lost) {
        break;
      }
      if (++exponent > kMaxExponent) return -1;
    }
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

// Whether the differences of times fit into 64 bits: those of damaged bytes may not.
bool AreTimes(const std::vector<std::int64_t>& numbers) {
  constexpr std::int64_t kMost = std::int64_t{1} << 61;
  return std::all_of(numbers.begin(), numbers.end(),
                     [](std::int64_t t) { return t > -kMost && t < kMost; });
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
  return in.ok && AreTimes(times);
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

// The columns in bits, or as numbers of bytes that zstd makes short: whichever is smaller.
template <typename PutColumns>
std::string Smaller(char kind, PutColumns put) {
  std::string bits, bytes;
  put(true, bits);
  put(false, bytes);
  std::string compressed = Pack(kind, bytes);
  return compressed.size() < bits.size() + 1 ? std::move(compressed) : kind + bits;
}

// What a sum is likely to be, of windows whose numbers have one exponent. Exact in 128 bits.
__int128 LikelySum(std::int64_t min, std::int64_t max, std::int64_t count) {
  return (static_cast<__int128>(min) + max) * count / 2;
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
  const int exponent = ExponentFor(values);
  if (exponent < 0) {
    std::string columns;
    PutTimes(times, columns);
    PutValues(values, columns);
    return Pack(kSamples, columns);
  }
  const std::vector<std::int64_t> numbers = Scaled(values, exponent);
  return Smaller(kPackedSamples, [&](bool packed, std::string& out) {
    AppendVarint(samples.size(), out);
    PutColumn(times, packed, out);
    out.push_back(static_cast<char>(exponent));
    PutColumn(numbers, packed, out);
  });
}

absl::Status DecodeSamples(std::string_view bytes, std::vector<Sample>& out) {
  thread_local std::string storage;
  thread_local std::vector<std::int64_t> times, numbers;
  Reader in;
  if (bytes.empty() || (bytes[0] & 0x7f) != kPackedSamples) {
    TAKT_RETURN_IF_ERROR(Unpack(kSamples, bytes, storage, in));
    thread_local std::vector<double> values;
    if (!GetTimes(in, times) || !GetValues(in, times.size(), values)) return Damaged();
    out.reserve(out.size() + times.size());
    for (std::size_t i = 0; i < times.size(); ++i) out.push_back({times[i], values[i]});
    return absl::OkStatus();
  }
  TAKT_RETURN_IF_ERROR(Unpack(kPackedSamples, bytes, storage, in));
  const std::uint64_t n = in.Varint();
  if (!in.ok || n > kMaxChunkSamples || !GetColumn(in, n, times) || !AreTimes(times)) {
    return Damaged();
  }
  const std::uint8_t exponent = in.Byte();
  if (!in.ok || exponent > kMaxExponent || !GetColumn(in, n, numbers)) return Damaged();
  const double power = kPowers[exponent];
  const std::size_t before = out.size();
  out.resize(before + n);
  for (std::size_t i = 0; i < n; ++i) {
    out[before + i] = {times[i], static_cast<double>(numbers[i]) / power};
  }
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
  std::vector<double> exact = columns[0];
  for (const int c : {1, 3}) exact.insert(exact.end(), columns[c].begin(), columns[c].end());
  int exponent = ExponentFor(exact);
  if (exponent >= 0) exponent = ExponentForSums(windows, exponent);
  // At the exponent of the sums the others must be exact too.
  if (exponent >= 0 && std::any_of(exact.begin(), exact.end(), [exponent](double v) {
        const double scaled = std::nearbyint(v * kPowers[exponent]);
        return !(std::abs(scaled) < 9e15) || scaled / kPowers[exponent] != v;
      })) {
    exponent = -1;
  }
  // Of numbers that go together: the last one, how far the least and greatest are from it, and how
  // far the sum is from what it would be if they lay evenly. Of a counter max is last; the least
  // is nearest to the last one of the window before.
  std::vector<std::int64_t> last, min, max, sum, count;
  if (exponent >= 0) {
    last = Scaled(columns[3], exponent);
    min = Scaled(columns[0], exponent);
    max = Scaled(columns[1], exponent);
    sum = Scaled(columns[2], exponent);
    for (std::size_t i = 0; i < windows.size(); ++i) {
      count.push_back(windows[i].count);
      const __int128 off = sum[i] - LikelySum(min[i], max[i], count[i]);
      constexpr __int128 kFits = __int128{1} << 60;
      if (off > kFits || off < -kFits) exponent = -1;
      sum[i] = static_cast<std::int64_t>(off);
    }
  }
  if (exponent < 0) {
    std::string out;
    PutTimes(times, out);
    for (const auto& column : columns) PutValues(column, out);
    return Pack(kWindows, out);
  }
  std::vector<std::int64_t> min_after_last = min;
  for (std::size_t i = 0; i < windows.size(); ++i) {
    max[i] -= last[i];
    min_after_last[i] -= i == 0 ? min[0] : last[i - 1];
    min[i] -= last[i];
  }
  const auto width = [](const std::vector<std::int64_t>& numbers) {
    return std::min(LayoutOf(numbers, false).width, LayoutOf(numbers, true).width);
  };
  const bool after_last = !windows.empty() && width(min_after_last) < width(min);
  const std::int64_t first_min = after_last ? min[0] + last[0] : 0;
  return Smaller(kPackedWindows, [&](bool packed, std::string& out) {
    AppendVarint(windows.size(), out);
    PutColumn(times, packed, out);
    out.push_back(static_cast<char>(exponent | (after_last ? kDifferences : 0)));
    AppendVarint(Zigzag(first_min), out);
    PutColumn(last, packed, out);
    PutColumn(after_last ? min_after_last : min, packed, out);
    PutColumn(max, packed, out);
    PutColumn(sum, packed, out);
    PutColumn(count, packed, out);
  });
}

absl::Status DecodeWindows(std::string_view bytes, std::vector<Window>& out) {
  constexpr std::int64_t kMostCount = std::int64_t{1} << 32;
  thread_local std::string storage;
  Reader in;
  if (bytes.empty() || (bytes[0] & 0x7f) != kPackedWindows) {
    TAKT_RETURN_IF_ERROR(Unpack(kWindows, bytes, storage, in));
    std::vector<std::int64_t> times;
    if (!GetTimes(in, times)) return Damaged();
    std::vector<double> columns[5];
    for (auto& column : columns) {
      if (!GetValues(in, times.size(), column)) return Damaged();
    }
    for (std::size_t i = 0; i < times.size(); ++i) {
      if (!(columns[4][i] >= 1 && columns[4][i] <= kMostCount)) return Damaged();
      out.push_back({times[i], columns[0][i], columns[1][i], columns[2][i], columns[3][i],
                     static_cast<std::int64_t>(columns[4][i])});
    }
    return absl::OkStatus();
  }
  TAKT_RETURN_IF_ERROR(Unpack(kPackedWindows, bytes, storage, in));
  thread_local std::vector<std::int64_t> times, last, min, max, sum, count;
  const std::uint64_t n = in.Varint();
  if (!in.ok || n > kMaxChunkSamples || !GetColumn(in, n, times) || !AreTimes(times)) {
    return Damaged();
  }
  const std::uint8_t head = in.Byte();
  const std::uint8_t exponent = head & 0x7f;
  const bool after_last = (head & kDifferences) != 0;
  // Numbers of damaged bytes may be any: they wrap instead of being undefined.
  auto before = static_cast<std::uint64_t>(Unzigzag(in.Varint()));
  if (!in.ok || exponent > kMaxExponent) return Damaged();
  for (auto* column : {&last, &min, &max, &sum, &count}) {
    if (!GetColumn(in, n, *column)) return Damaged();
  }
  const double power = kPowers[exponent];
  const auto number = [power](std::uint64_t v) {
    return static_cast<double>(static_cast<std::int64_t>(v)) / power;
  };
  for (std::size_t i = 0; i < n; ++i) {
    if (count[i] < 1 || count[i] > kMostCount) return Damaged();
    const auto newest = static_cast<std::uint64_t>(last[i]);
    const std::uint64_t least = static_cast<std::uint64_t>(min[i]) + (after_last ? before : newest);
    const std::uint64_t most = static_cast<std::uint64_t>(max[i]) + newest;
    const __int128 likely =
        LikelySum(static_cast<std::int64_t>(least), static_cast<std::int64_t>(most), count[i]);
    const std::uint64_t total =
        static_cast<std::uint64_t>(likely) + static_cast<std::uint64_t>(sum[i]);
    out.push_back({times[i], number(least), number(most), number(total), number(newest), count[i]});
    before = newest;
  }
  return absl::OkStatus();
}

void AddSample(const Sample& sample, std::int64_t span_ms, std::vector<Window>& windows) {
  AddWindow({sample.time_ms, sample.value, sample.value, sample.value, sample.value, 1}, span_ms,
            windows);
}

void AddSamples(std::span<const Sample> samples, std::int64_t span_ms,
                std::vector<Window>& windows) {
  for (std::size_t i = 0; i < samples.size();) {
    AddSample(samples[i], span_ms, windows);
    // The rest of the span: no question each time whether it is over, and no division.
    Window& into = windows.back();
    const std::int64_t end = into.time_ms + span_ms;
    double min = into.min, max = into.max, sum = into.sum;
    std::size_t next = i + 1;
    for (; next < samples.size() && samples[next].time_ms < end; ++next) {
      const double value = samples[next].value;
      min = std::min(min, value);
      max = std::max(max, value);
      sum += value;
    }
    into.min = min;
    into.max = max;
    into.sum = sum;
    into.last = samples[next - 1].value;
    into.count += static_cast<std::int64_t>(next - 1 - i);
    i = next;
  }
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
