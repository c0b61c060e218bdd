#include "learning/events.h"

#include <bit>
#include <cmath>
#include <cstring>

#include "absl/strings/str_format.h"
#include "base/proto_wire.h"

namespace takt::learning {
namespace {

// DataType's numbers, tensorflow/core/framework/types.proto.
enum DataType : std::uint64_t {
  kFloat = 1,
  kDouble = 2,
  kInt32 = 3,
  kString = 7,
  kInt64 = 9,
  kBfloat16 = 14,
  kHalf = 19
};

double HalfToDouble(std::uint16_t bits) {
  const int exponent = (bits >> 10) & 31, fraction = bits & 1023;
  double value;
  if (exponent == 31) {
    value = fraction != 0 ? std::nan("") : HUGE_VAL;
  } else if (exponent == 0) {
    value = std::ldexp(fraction, -24);
  } else {
    value = std::ldexp(fraction + 1024, exponent - 25);
  }
  return (bits & 0x8000) != 0 ? -value : value;
}

// The parts of a TensorProto that summaries use.
struct TensorValue {
  std::uint64_t dtype = 0;
  std::string_view content;
  std::vector<double> numbers;
  std::vector<std::string_view> strings;
};

template <typename T, typename Convert>
void AppendFixed(std::string_view bytes, std::vector<double>& out, Convert convert) {
  for (std::size_t i = 0; i + sizeof(T) <= bytes.size(); i += sizeof(T)) {
    T value;
    std::memcpy(&value, bytes.data() + i, sizeof(T));
    out.push_back(convert(value));
  }
}

template <typename T>
void AppendFixed(std::string_view bytes, std::vector<double>& out) {
  AppendFixed<T>(bytes, out, [](T value) { return static_cast<double>(value); });
}

template <typename Convert>
void AppendVarints(const ProtoReader& field, std::vector<double>& out, Convert convert) {
  if (field.type() == WireType::kVarint) {
    out.push_back(convert(field.Varint()));
    return;
  }
  // Packed: bare varints, one after another.
  std::uint64_t value = 0;
  int shift = 0;
  for (const char c : field.Bytes()) {
    if (shift < 64) value |= static_cast<std::uint64_t>(c & 0x7f) << shift;
    shift += 7;
    if ((c & 0x80) == 0) {
      out.push_back(convert(value));
      value = 0;
      shift = 0;
    }
  }
}

bool DecodeTensor(std::string_view bytes, TensorValue& tensor) {
  ProtoReader r(bytes);
  while (r.Next()) {
    const auto packed = [&r] { return r.type() == WireType::kBytes; };
    switch (r.field()) {
      case 1:
        tensor.dtype = r.Varint();
        break;
      case 4:
        tensor.content = r.Bytes();
        break;
      case 5:
        if (packed()) {
          AppendFixed<float>(r.Bytes(), tensor.numbers);
        } else {
          tensor.numbers.push_back(r.Float());
        }
        break;
      case 6:
        if (packed()) {
          AppendFixed<double>(r.Bytes(), tensor.numbers);
        } else {
          tensor.numbers.push_back(r.Double());
        }
        break;
      case 7:
      case 10:
        AppendVarints(r, tensor.numbers, [](std::uint64_t v) {
          return static_cast<double>(static_cast<std::int64_t>(v));
        });
        break;
      case 8:
        tensor.strings.push_back(r.Bytes());
        break;
      case 13: {
        const bool bfloat = tensor.dtype == kBfloat16;
        AppendVarints(r, tensor.numbers, [bfloat](std::uint64_t v) -> double {
          return bfloat ? std::bit_cast<float>(static_cast<std::uint32_t>(v << 16))
                        : HalfToDouble(static_cast<std::uint16_t>(v));
        });
        break;
      }
      default:
        break;
    }
  }
  switch (tensor.content.empty() ? 0 : tensor.dtype) {
    case kFloat:
      AppendFixed<float>(tensor.content, tensor.numbers);
      break;
    case kDouble:
      AppendFixed<double>(tensor.content, tensor.numbers);
      break;
    case kInt32:
      AppendFixed<std::int32_t>(tensor.content, tensor.numbers);
      break;
    case kInt64:
      AppendFixed<std::int64_t>(tensor.content, tensor.numbers);
      break;
    case kHalf:
      AppendFixed<std::uint16_t>(tensor.content, tensor.numbers, HalfToDouble);
      break;
    case kBfloat16:
      AppendFixed<std::uint16_t>(tensor.content, tensor.numbers, [](std::uint16_t v) -> double {
        return std::bit_cast<float>(static_cast<std::uint32_t>(v) << 16);
      });
      break;
    default:
      break;
  }
  return r.ok();
}

// HistogramProto: bucket_limit[i] is the right edge of bucket[i]; min is the first left edge.
bool DecodeOldHistogram(std::string_view bytes, std::vector<HistogramBucket>& out) {
  double min = 0;
  std::vector<double> limits, counts;
  ProtoReader r(bytes);
  while (r.Next()) {
    if (r.field() == 1) min = r.Double();
    if (r.field() != 6 && r.field() != 7) continue;
    auto& list = r.field() == 6 ? limits : counts;
    if (r.type() == WireType::kBytes) {
      AppendFixed<double>(r.Bytes(), list);
    } else {
      list.push_back(r.Double());
    }
  }
  double left = min;
  for (std::size_t i = 0; i < limits.size() && i < counts.size(); ++i) {
    if (counts[i] > 0) out.push_back({left, limits[i], counts[i]});
    left = limits[i];
  }
  return r.ok();
}

struct Metadata {
  std::string plugin;
  std::string_view content;
};

bool DecodeMetadata(std::string_view bytes, Metadata& metadata) {
  ProtoReader r(bytes);
  while (r.Next()) {
    if (r.field() != 1) continue;
    ProtoReader plugin(r.Bytes());
    while (plugin.Next()) {
      if (plugin.field() == 1) metadata.plugin = plugin.Bytes();
      if (plugin.field() == 2) metadata.content = plugin.Bytes();
    }
    if (!plugin.ok()) return false;
  }
  return r.ok();
}

// google.protobuf.Value, as people write it.
std::string DecodeJsonValue(std::string_view bytes) {
  ProtoReader r(bytes);
  std::string text;
  while (r.Next()) {
    if (r.field() == 1) text = "null";
    if (r.field() == 2) text = absl::StrFormat("%.9g", r.Double());
    if (r.field() == 3) text = r.Bytes();
    if (r.field() == 4) text = r.Varint() != 0 ? "true" : "false";
  }
  return text;
}

// HParamsPluginData.session_start_info (field 3) .hparams (field 1, a map).
void DecodeHyperparameters(std::string_view content, Event& event) {
  ProtoReader data(content);
  while (data.Next()) {
    if (data.field() != 3) continue;
    ProtoReader start(data.Bytes());
    while (start.Next()) {
      if (start.field() != 1) continue;
      ProtoReader entry(start.Bytes());
      std::pair<std::string, std::string> parameter;
      while (entry.Next()) {
        if (entry.field() == 1) parameter.first = entry.Bytes();
        if (entry.field() == 2) parameter.second = DecodeJsonValue(entry.Bytes());
      }
      if (!parameter.first.empty()) event.hyperparameters.push_back(std::move(parameter));
    }
  }
}

bool DecodeTensorValue(const Metadata& metadata, std::string_view bytes, Value& value,
                       Event& event) {
  TensorValue tensor;
  if (!DecodeTensor(bytes, tensor)) return false;
  const std::string& plugin = metadata.plugin;
  if (plugin == "hparams") {
    DecodeHyperparameters(metadata.content, event);
    return true;
  }
  // Some writers leave the plugin out after a tag's first value: one number is a scalar then.
  if ((plugin == "scalars" || plugin.empty()) && tensor.numbers.size() == 1) {
    value.kind = Kind::kScalar;
    value.scalar = tensor.numbers[0];
  } else if (plugin == "histograms" && tensor.numbers.size() % 3 == 0) {  // [k, 3]
    value.kind = Kind::kHistogram;
    for (std::size_t i = 0; i < tensor.numbers.size(); i += 3) {
      value.histogram.push_back({tensor.numbers[i], tensor.numbers[i + 1], tensor.numbers[i + 2]});
    }
  } else if (plugin == "images" && tensor.strings.size() >= 3) {  // width, height, image...
    value.kind = Kind::kImage;
    value.image = tensor.strings[2];
  } else if (plugin == "text" && !tensor.strings.empty()) {
    value.kind = Kind::kText;
    value.text = std::move(tensor.strings);
  } else {
    event.unknown_plugins.push_back(plugin.empty() ? "none" : plugin);
    return true;
  }
  event.values.push_back(std::move(value));
  return true;
}

bool DecodeValue(std::string_view bytes, Event& event) {
  Value value;
  Metadata metadata;
  std::string_view tensor;
  bool has_tensor = false, has_other = false;
  ProtoReader r(bytes);
  while (r.Next()) {
    switch (r.field()) {
      case 1:
        if (r.type() == WireType::kBytes) value.tag = r.Bytes();
        break;
      case 2:
        value.kind = Kind::kScalar;
        value.scalar = r.Float();
        has_other = true;
        break;
      case 4: {
        ProtoReader image(r.Bytes());
        value.kind = Kind::kImage;
        while (image.Next()) {
          if (image.field() == 4) value.image = image.Bytes();
        }
        if (!image.ok()) return false;
        has_other = true;
        break;
      }
      case 5:
        value.kind = Kind::kHistogram;
        if (!DecodeOldHistogram(r.Bytes(), value.histogram)) return false;
        has_other = true;
        break;
      case 6:
        event.unknown_plugins.push_back("audio");
        return true;
      case 8:
        tensor = r.Bytes();
        has_tensor = true;
        break;
      case 9:
        if (!DecodeMetadata(r.Bytes(), metadata)) return false;
        break;
      default:
        break;
    }
  }
  if (!r.ok()) return false;
  if (has_other) {
    event.values.push_back(std::move(value));
    return true;
  }
  if (metadata.plugin == "hparams" && !has_tensor) {
    DecodeHyperparameters(metadata.content, event);
    return true;
  }
  return has_tensor ? DecodeTensorValue(metadata, tensor, value, event) : true;
}

}  // namespace

const char* KindName(Kind kind) {
  switch (kind) {
    case Kind::kScalar:
      return "scalar";
    case Kind::kHistogram:
      return "histogram";
    case Kind::kImage:
      return "image";
    case Kind::kText:
      return "text";
  }
  return "unknown";
}

absl::StatusOr<Event> DecodeEvent(std::string_view record) {
  Event event;
  bool good = true;
  ProtoReader r(record);
  while (good && r.Next()) {
    // A field of another wire type is one that nobody knows.
    if (r.field() == 1 && r.type() == WireType::kFixed64) event.wall_time = r.Double();
    if (r.field() == 2 && r.type() == WireType::kVarint) event.step = r.Int64();
    if (r.field() != 5) continue;
    ProtoReader summary(r.Bytes());
    while (good && summary.Next()) {
      if (summary.field() == 1) good = DecodeValue(summary.Bytes(), event);
    }
    good = good && summary.ok();
  }
  if (!good || !r.ok()) return absl::InvalidArgumentError("not a TensorFlow Event message");
  return event;
}

}  // namespace takt::learning
