#include "serving/api/rest_fast.h"

#include <simdjson.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "absl/strings/escaping.h"

namespace takt::serving {
namespace {

namespace ondemand = simdjson::ondemand;

// Values of one tensor while it grows. Its shape is what the first of each list shows; a list of
// another size ends the quick way.
class TensorReader {
 public:
  explicit TensorReader(DataType dtype) : dtype_(dtype) {}

  // False: not for the quick way.
  bool Read(ondemand::value value, std::size_t level) {
    if (rank_known_ && level == dims_.size()) return ReadLeaf(value);
    simdjson::ondemand::json_type type{};
    if (value.type().get(type)) return false;
    if (type != ondemand::json_type::array) {
      if (rank_known_) return false;  // levels differ
      rank_known_ = true;
      return ReadLeaf(value);
    }
    if (rank_known_ ? level >= dims_.size() : level >= kMaxRank) return false;
    ondemand::array array;
    if (value.get_array().get(array)) return false;
    return ReadList(array, level);
  }

  bool ReadList(ondemand::array array, std::size_t level) {
    if (level >= dims_.size()) dims_.push_back(kUnknown);
    std::int64_t count = 0;
    const bool leaves = rank_known_ && level + 1 == dims_.size();
    for (auto element : array) {
      ondemand::value value;
      if (element.get(value)) return false;
      if (!(leaves ? ReadLeaf(value) : Read(value, level + 1))) return false;
      ++count;
    }
    if (count == 0) return false;
    if (dims_[level] == kUnknown) dims_[level] = count;
    return dims_[level] == count;
  }

  // `rows`: how many rows were read one by one, as the first dimension.
  std::optional<Tensor> Take(std::optional<std::int64_t> rows) {
    Dims dims = dims_;
    if (rows.has_value()) dims.insert(dims.begin(), *rows);
    if (dtype_ == DataType::kString)
      return Tensor::FromStrings(std::move(dims), std::move(strings_));
    return Tensor::Wrap(dtype_, std::move(dims), buffer_.owner(), buffer_.data(), used_);
  }

 private:
  static constexpr std::size_t kMaxRank = 16;
  static constexpr std::int64_t kUnknown = -1;
  static constexpr std::int64_t kFirstElements = 1024;

  bool Grow() {
    const std::int64_t elements =
        buffer_.dtype() == DataType::kInvalid ? kFirstElements : 2 * buffer_.elements();
    absl::StatusOr<Tensor> larger = Tensor::Allocate(dtype_, {elements});
    if (!larger.ok()) return false;
    if (used_ > 0) std::memcpy(larger->mutable_data(), buffer_.data(), used_);
    buffer_ = *std::move(larger);
    at_ = static_cast<char*>(buffer_.mutable_data());
    return true;
  }

  template <typename T>
  bool Put(T value) {
    if (used_ + sizeof(T) > buffer_.bytes() && !Grow()) return false;
    std::memcpy(at_ + used_, &value, sizeof(T));
    used_ += sizeof(T);
    return true;
  }

  template <typename Float>
  bool PutFloat(ondemand::value& value) {
    // Whole numbers beyond the mantissa are refused by the exact reader, decimal ones are not: it
    // can tell them apart. A whole "-0" is plus zero there.
    constexpr double kLargest =
        static_cast<double>((std::int64_t{1} << std::numeric_limits<Float>::digits) - 1);
    double number = 0;
    if (value.get_double().get(number) || std::abs(number) > kLargest) return false;
    if (number == 0 && std::signbit(number)) return false;
    return Put(static_cast<Float>(number));
  }

  template <typename T>
  bool PutInteger(ondemand::value& value) {
    std::int64_t number = 0;
    if (value.get_int64().get(number) || !std::in_range<T>(number)) return false;
    return Put(static_cast<T>(number));
  }

  bool PutString(ondemand::value& value) {
    ondemand::json_type type{};
    if (value.type().get(type)) return false;
    std::string_view text;
    if (type == ondemand::json_type::string) {
      if (value.get_string().get(text)) return false;
      strings_.emplace_back(text);
      return true;
    }
    // {"b64": "..."}
    ondemand::object object;
    if (type != ondemand::json_type::object || value.get_object().get(object)) return false;
    bool first = true;
    for (auto member : object) {
      ondemand::field field;
      if (!first || std::move(member).get(field) || field.key() != "b64" ||
          field.value().get_string().get(text)) {
        return false;
      }
      first = false;
      if (!absl::Base64Unescape(ToAbsl(text), &strings_.emplace_back())) return false;
    }
    return !first;
  }

  bool ReadLeaf(ondemand::value& value) {
    switch (dtype_) {
      case DataType::kFloat:
        return PutFloat<float>(value);
      case DataType::kDouble:
        return PutFloat<double>(value);
      case DataType::kInt32:
        return PutInteger<std::int32_t>(value);
      case DataType::kInt64:
        return PutInteger<std::int64_t>(value);
      case DataType::kInt16:
        return PutInteger<std::int16_t>(value);
      case DataType::kInt8:
        return PutInteger<std::int8_t>(value);
      case DataType::kUint8:
        return PutInteger<std::uint8_t>(value);
      case DataType::kUint32:
        return PutInteger<std::uint32_t>(value);
      case DataType::kBool: {
        bool truth = false;
        return !value.get_bool().get(truth) && Put(truth);
      }
      case DataType::kString:
        return PutString(value);
      default:
        return false;
    }
  }

  DataType dtype_;
  bool rank_known_ = false;
  Dims dims_;
  Tensor buffer_;
  char* at_ = nullptr;
  std::size_t used_ = 0;
  std::vector<std::string> strings_;
};

int Find(const std::vector<TensorInfo>& inputs, std::string_view alias) {
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i].alias == alias) return static_cast<int>(i);
  }
  return -1;
}

// Members of an object, each to the reader of its name; each input exactly once.
bool ReadNamed(ondemand::object object, const std::vector<TensorInfo>& inputs,
               std::vector<TensorReader>* readers, std::vector<bool>* seen) {
  std::fill(seen->begin(), seen->end(), false);
  std::size_t count = 0;
  for (auto member : object) {
    ondemand::field field;
    std::string_view name;
    if (std::move(member).get(field) || field.unescaped_key().get(name)) return false;
    const int at = Find(inputs, name);
    if (at < 0 || (*seen)[static_cast<std::size_t>(at)]) return false;
    (*seen)[static_cast<std::size_t>(at)] = true;
    ++count;
    if (!(*readers)[static_cast<std::size_t>(at)].Read(field.value(), 0)) return false;
  }
  return count == inputs.size();
}

std::optional<RestInputs> Finish(std::vector<TensorReader>* readers, RestFormat format,
                                 std::optional<std::int64_t> rows) {
  RestInputs out;
  out.format = format;
  for (TensorReader& reader : *readers) {
    std::optional<Tensor> tensor = reader.Take(rows);
    if (!tensor.has_value()) return std::nullopt;
    out.tensors.push_back(*std::move(tensor));
  }
  return out;
}

std::optional<RestInputs> ReadRows(ondemand::value value, const std::vector<TensorInfo>& inputs) {
  std::vector<TensorReader> readers;
  readers.reserve(inputs.size());
  for (const TensorInfo& input : inputs) readers.emplace_back(input.dtype);
  ondemand::array rows;
  if (value.get_array().get(rows)) return std::nullopt;
  bool empty = true;
  if (rows.is_empty().get(empty) || empty) return std::nullopt;
  // A string model's rows may be {"b64": ...}, which are no named inputs.
  if (inputs.size() == 1) {
    ondemand::json_type type{};
    for (auto row : rows) {
      if (row.type().get(type)) return std::nullopt;
      break;
    }
    if (rows.reset().error() != simdjson::SUCCESS) return std::nullopt;
    if (type != ondemand::json_type::object || inputs[0].dtype == DataType::kString) {
      if (!readers[0].ReadList(rows, 0)) return std::nullopt;
      return Finish(&readers, RestFormat::kRow, std::nullopt);
    }
  }
  std::vector<bool> seen(inputs.size());
  std::int64_t count = 0;
  for (auto row : rows) {
    ondemand::object object;
    if (row.get_object().get(object) || !ReadNamed(object, inputs, &readers, &seen)) {
      return std::nullopt;
    }
    ++count;
  }
  return Finish(&readers, RestFormat::kRow, count);
}

std::optional<RestInputs> ReadColumns(ondemand::value value,
                                      const std::vector<TensorInfo>& inputs) {
  std::vector<TensorReader> readers;
  readers.reserve(inputs.size());
  for (const TensorInfo& input : inputs) readers.emplace_back(input.dtype);
  ondemand::json_type type{};
  if (value.type().get(type)) return std::nullopt;
  if (type == ondemand::json_type::object) {
    if (inputs.size() == 1 && inputs[0].dtype == DataType::kString) return std::nullopt;
    ondemand::object object;
    std::vector<bool> seen(inputs.size());
    if (value.get_object().get(object) || !ReadNamed(object, inputs, &readers, &seen)) {
      return std::nullopt;
    }
  } else if (inputs.size() != 1 || !readers[0].Read(value, 0)) {
    return std::nullopt;
  }
  return Finish(&readers, RestFormat::kColumn, std::nullopt);
}

}  // namespace

std::optional<FastPredict> ReadPredictFast(
    std::string* body,
    const std::function<const std::vector<TensorInfo>*(std::string_view name)>& find) {
  thread_local ondemand::parser parser;
  if (body->capacity() < body->size() + simdjson::SIMDJSON_PADDING) {
    body->reserve(body->size() + simdjson::SIMDJSON_PADDING);
  }
  ondemand::document document;
  ondemand::object root;
  if (parser.iterate(simdjson::padded_string_view(*body)).get(document) ||
      document.get_object().get(root)) {
    return std::nullopt;
  }
  FastPredict out;
  const std::vector<TensorInfo>* inputs = nullptr;
  bool named = false;
  bool filled = false;
  for (auto member : root) {
    ondemand::field field;
    if (std::move(member).get(field)) return std::nullopt;
    const ondemand::raw_json_string key = field.key();
    if (key == "signature_name") {
      std::string_view name;
      if (named || field.value().get_string().get(name)) return std::nullopt;
      named = true;
      // After the values were read by another signature's types: the exact reader starts anew.
      if (filled && find(name) != inputs) return std::nullopt;
      out.signature_name = std::string(name);
      continue;
    }
    const bool rows = key == "instances";
    if (filled || (!rows && key != "inputs")) return std::nullopt;
    inputs = find(out.signature_name);
    if (inputs == nullptr || inputs->empty()) return std::nullopt;
    std::optional<RestInputs> read =
        rows ? ReadRows(field.value(), *inputs) : ReadColumns(field.value(), *inputs);
    if (!read.has_value()) return std::nullopt;
    out.inputs = *std::move(read);
    filled = true;
  }
  if (!filled) return std::nullopt;
  return out;
}

}  // namespace takt::serving
