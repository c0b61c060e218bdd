#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "serving/api/compression.h"
#include "serving/api/rest_api.h"
#include "serving/api/rest_codec.h"
#include "serving/api/rest_fast.h"

namespace takt::serving {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Kind = RestRoute::Kind;

TEST(RouteRest, FollowsTheOriginalsPatterns) {
  const struct {
    const char* method;
    const char* target;
    Kind kind;
    const char* model;
    const char* version;
    const char* label;
  } cases[] = {
      {"POST", "/v1/models/m:predict", Kind::kPredict, "m", "", ""},
      {"POST", "/V1/Models/m/Versions/7:classify", Kind::kClassify, "m", "7", ""},
      {"POST", "/v1/models/m/labels/L:regress", Kind::kRegress, "m", "", "L"},
      {"POST", "/v1/models/m:PREDICT", Kind::kMalformed, "", "", ""},
      {"POST", "/v1/models/m/versions/x:predict", Kind::kMalformed, "", "", ""},
      {"POST", "/v1/models/:predict", Kind::kMalformed, "", "", ""},
      {"POST", "/v1/models/m", Kind::kMalformed, "", "", ""},
      {"GET", "/v1/models/m", Kind::kStatus, "m", "", ""},
      {"GET", "/v1/models", Kind::kStatus, "", "", ""},
      {"GET", "/v1/models/m/versions/2", Kind::kStatus, "m", "2", ""},
      {"GET", "/v1/models/m/labels/L/metadata", Kind::kMetadata, "m", "", "L"},
      {"GET", "/v1/models/m/metadata", Kind::kMetadata, "m", "", ""},
      {"GET", "/v1/models/m/versions", Kind::kMalformed, "", "", ""},
      {"GET", "/v1/models/m/versions/1/", Kind::kMalformed, "", "", ""},
      {"GET", "/v1/models/m:predict", Kind::kMalformed, "", "", ""},
      {"GET", "/v1/models/", Kind::kMalformed, "", "", ""},
      {"DELETE", "/v1/models/m", Kind::kMalformed, "", "", ""},
  };
  for (const auto& c : cases) {
    const RestRoute route = RouteRest(c.method, c.target);
    EXPECT_EQ(route.kind, c.kind) << c.method << " " << c.target;
    if (c.kind == Kind::kMalformed) continue;
    EXPECT_EQ(route.model, c.model) << c.target;
    EXPECT_EQ(route.version, c.version) << c.target;
    EXPECT_EQ(route.label, c.label) << c.target;
  }
}

TensorInfo Info(const char* alias, DataType dtype) {
  TensorInfo info;
  info.alias = alias;
  info.dtype = dtype;
  return info;
}

std::string InputsError(std::string_view body, const std::vector<TensorInfo>& inputs) {
  const auto document = JsonDocument::Parse(body);
  EXPECT_TRUE(document.ok()) << document.status();
  const auto out = RestPredictInputs(*document, inputs, "");
  return out.ok() ? "OK" : std::string(ToStd(out.status().message()));
}

TEST(RestInputs, MessagesAreTheOriginals) {
  const std::vector<TensorInfo> one = {Info("x", DataType::kFloat)};
  const std::vector<TensorInfo> two = {Info("a", DataType::kFloat), Info("b", DataType::kFloat)};
  const std::vector<TensorInfo> text = {Info("s", DataType::kString)};
  const std::vector<TensorInfo> byte = {Info("x", DataType::kInt8)};
  const std::vector<TensorInfo> half = {Info("x", DataType::kHalf)};
  const struct {
    const char* body;
    const std::vector<TensorInfo>& inputs;
    const char* says;
  } cases[] = {
      {R"({"instances": 5})", one, "Excepting 'instances' to be an list/array"},
      {R"({"instances": []})", one, "No values in 'instances' array"},
      {R"({})", one, "Missing 'inputs' or 'instances' key"},
      {R"({"instances": [1, 2]})", two, "instances is a plain list, but expecting list of objects"},
      {R"({"instances": [{"a": 1}]})", two, "keys must be equal to: a,b"},
      {R"({"instances": [{"a": 1, "a": 2, "b": 3}]})", two, "has input a twice"},
      {R"({"instances": [{"x": 1}, 2]})", one, "Expecting object but got list at item 1"},
      {R"({"instances": [1, {"x": 2}]})", one, "Expecting value/list but got object at item 1"},
      {R"({"instances": [[1, [2]]]})", one, "Encountered list at unexpected level: 1 expected < 1"},
      {R"({"instances": [[[1], 2]]})", one,
       "JSON Value: 2 found at incorrect level: 2 in the JSON DOM. Expected at level: 2"},
      {R"({"instances": [16777217]})", one,
       "Cannot convert JSON value: 16777217 to float without loss of precision."},
      {R"({"instances": [1e39]})", one, "Cannot convert JSON value: 1e39 to float without loss"},
      {R"({"instances": [null]})", one,
       "JSON Value: null Type: Null is not of expected type: float"},
      {R"({"instances": [true]})", one,
       "JSON Value: true Type: True is not of expected type: float"},
      {R"({"instances": [{"b64": 5}]})", text, "does not have named input: b64"},
      {R"({"inputs": {"s": {"b64": "YQ==", "x": 1}}})", text,
       "not formatted correctly for base64 data"},
      {R"({"instances": [128]})", byte,
       "JSON Value: 128 Type: Number is not of expected type: int8"},
      {R"({"instances": [1.5]})", half,
       "UNIMPLEMENTED: Conversion of JSON Value: 1.5 to type: half"},
  };
  for (const auto& c : cases)
    EXPECT_THAT(InputsError(c.body, c.inputs), HasSubstr(c.says)) << c.body;
}

// The first element of each level promises a billion values that the body does not hold.
TEST(RestInputs, ASmallBodyCannotAskForALargeTensor) {
  std::string ones = "[1";
  for (int i = 1; i < 1000; ++i) ones += ",1";
  ones += "]";
  std::string square = "[" + ones;
  for (int i = 1; i < 1000; ++i) square += ",1";
  square += "]";
  std::string cube = "[" + square;
  for (int i = 1; i < 1000; ++i) cube += ",1";
  cube += "]";
  const std::vector<TensorInfo> inputs = {Info("x", DataType::kDouble)};
  EXPECT_THAT(InputsError("{\"instances\": [" + cube + "]}", inputs),
              HasSubstr("found at incorrect level"));
  EXPECT_THAT(InputsError("{\"inputs\": " + cube + "}", inputs),
              HasSubstr("found at incorrect level"));
}

TEST(RestInputs, FillTensorsInBothForms) {
  const std::vector<TensorInfo> two = {Info("a", DataType::kFloat), Info("b", DataType::kInt64)};
  const auto rows =
      JsonDocument::Parse(R"({"instances": [{"b": [1, 2], "a": 0.5}, {"a": 1, "b": [3, 4]}]})");
  auto inputs = RestPredictInputs(*rows, two, "").value();
  EXPECT_EQ(inputs.format, RestFormat::kRow);
  EXPECT_THAT(inputs.tensors[0].dims(), ElementsAre(2));
  EXPECT_EQ(inputs.tensors[0].as<float>()[1], 1.0f);
  EXPECT_THAT(inputs.tensors[1].dims(), ElementsAre(2, 2));
  EXPECT_EQ(inputs.tensors[1].as<std::int64_t>()[2], 3);
  const auto columns = JsonDocument::Parse(R"({"inputs": {"a": [], "b": 7, "more": 1}})");
  inputs = RestPredictInputs(*columns, two, "").value();
  EXPECT_EQ(inputs.format, RestFormat::kColumn);
  EXPECT_THAT(inputs.tensors[0].dims(), ElementsAre(0));
  EXPECT_EQ(inputs.tensors[1].rank(), 0);
}

std::string Describe(const RestInputs& inputs) {
  std::string out = inputs.format == RestFormat::kRow ? "rows" : "columns";
  for (const Tensor& tensor : inputs.tensors) {
    absl::StrAppend(&out, " ", DataTypeName(tensor.dtype()), ShapeText(tensor.dims()), "{");
    if (tensor.dtype() == DataType::kString) {
      for (const std::string& value : tensor.strings()) absl::StrAppend(&out, value, ",");
    } else {
      out.append(static_cast<const char*>(tensor.data()), tensor.bytes());
    }
    out.append("}");
  }
  return out;
}

// Each body goes to both readers: where the quick one answers, it must say what the exact one says.
// `quick`: whether it is expected to.
TEST(RestInputs, TheQuickReaderAgreesWithTheExactOne) {
  const std::vector<TensorInfo> f = {Info("x", DataType::kFloat)};
  const std::vector<TensorInfo> d = {Info("x", DataType::kDouble)};
  const std::vector<TensorInfo> i = {Info("x", DataType::kInt32)};
  const std::vector<TensorInfo> b = {Info("x", DataType::kInt8)};
  const std::vector<TensorInfo> u = {Info("x", DataType::kUint64)};
  const std::vector<TensorInfo> t = {Info("x", DataType::kBool)};
  const std::vector<TensorInfo> s = {Info("x", DataType::kString)};
  const std::vector<TensorInfo> two = {Info("a", DataType::kFloat), Info("b", DataType::kInt64)};
  std::string long_row = "1.5";
  for (int n = 0; n < 5000; ++n) long_row += ",0." + std::to_string(n);
  const struct {
    std::string body;
    const std::vector<TensorInfo>& inputs;
    bool quick;
  } cases[] = {
      {R"({"instances": [1, 2.5, -3e2]})", f, true},
      {R"({"instances": [[1, 2], [3, 4]]})", f, true},
      {R"({"instances": [[[1], [2]], [[3], [4]]], "signature_name": "q"})", f, true},
      {"{\"instances\": [[" + long_row + "],[" + long_row + "]]}", f, true},
      {"{\"inputs\": [[" + long_row + "]]}", d, true},
      {R"({"instances": [{"x": 1}, {"x": 2}]})", f, true},
      {R"({"instances": [{"b": [1, 2], "a": 0.5}, {"a": 1, "b": [3, 4]}]})", two, true},
      {R"({"inputs": {"a": [1, 2], "b": 7}})", two, true},
      {R"({"inputs": 3.5})", f, true},
      {R"({"inputs": {"x": [1]}})", f, true},
      {R"({"instances": [1, -7, 2147483647]})", i, true},
      {R"({"instances": [true, false]})", t, true},
      {R"({"instances": ["a\u00e9", {"b64": "aGk="}, ""]})", s, true},
      {R"({"instances": [0.1, 16777215, -16777215]})", f, true},
      {R"( {"instances": [1]} trailing text)", f, false},
      // Left to the exact reader, whatever it says.
      {R"({"instances": [NaN, Infinity]})", f, false},
      {R"({"instances": [16777217]})", f, false},
      {R"({"instances": [16777217.5]})", f, false},
      {R"({"instances": [-0]})", f, false},
      {R"({"instances": [1e400]})", f, false},
      {R"({"instances": []})", f, false},
      {R"({"instances": [[]]})", f, false},
      {R"({"instances": [[1], 2]})", f, false},
      {R"({"instances": [[1, 2], [3]]})", f, false},
      {R"({"instances": [1, [2]]})", f, false},
      {R"({"instances": ["1"]})", f, false},
      {R"({"instances": [128]})", b, false},
      {R"({"instances": [1.0]})", i, false},
      {R"({"instances": [18446744073709551615]})", u, false},
      {R"({"instances": [1]})", s, false},
      {R"({"instances": [{"b64": "!"}]})", s, false},
      {R"({"instances": [{"a": 1}]})", two, false},
      {R"({"instances": [{"a": 1, "a": 2, "b": 1}]})", two, false},
      {R"({"instances": [{"a": 1, "b": 2, "c": 3}]})", two, false},
      {R"({"instances": [1, 2]})", two, false},
      {R"({"inputs": {"a": [1]}})", two, false},
      {R"({"inputs": {"a": [1], "b": [1], "c": [1]}})", two, false},
      {R"({"instances": [1], "inputs": [1]})", f, false},
      {R"({"instances": [1], "other": 1})", f, false},
      {R"({"other": {"nested": [1, 2}, "instances": [1]})", f, false},
      {R"({"instances": [1],})", f, false},
      {R"({"instances": [1 2]})", f, false},
      {R"({"instances": [01]})", f, false},
      {R"({"instances": [1], "instances": [2]})", f, false},
      {R"([1])", f, false},
      {"", f, false},
      {"{\"instances\": [\"\xff\"]}", s, false},
      {"{\"inst\\u0061nces\": [1]}", f, false},
  };
  for (const auto& c : cases) {
    std::string body = c.body;
    const auto fast = ReadPredictFast(
        &body, [&](std::string_view) -> const std::vector<TensorInfo>* { return &c.inputs; });
    EXPECT_EQ(body, c.body);
    EXPECT_EQ(fast.has_value(), c.quick) << c.body.substr(0, 100);
    if (!fast.has_value()) continue;
    const auto document = JsonDocument::Parse(c.body);
    ASSERT_TRUE(document.ok()) << document.status();
    const auto exact = RestPredictInputs(*document, c.inputs, "");
    ASSERT_TRUE(exact.ok()) << exact.status() << c.body.substr(0, 100);
    EXPECT_EQ(Describe(fast->inputs), Describe(*exact)) << c.body.substr(0, 100);
  }
}

// A signature that is named after the values, and takes others, is read anew.
TEST(RestInputs, TheQuickReaderKnowsWhichSignatureItRead) {
  const std::vector<TensorInfo> f = {Info("x", DataType::kFloat)};
  const std::vector<TensorInfo> i = {Info("x", DataType::kInt32)};
  const auto find = [&](std::string_view name) { return name == "i" ? &i : &f; };
  std::string before = R"({"signature_name": "i", "instances": [1]})";
  EXPECT_EQ(ReadPredictFast(&before, find)->inputs.tensors[0].dtype(), DataType::kInt32);
  std::string after = R"({"instances": [1], "signature_name": "i"})";
  EXPECT_FALSE(ReadPredictFast(&after, find).has_value());
}

TEST(RestAnswer, WritesEachTypeAndRefusesWhatHasNoForm) {
  const auto answer = [](DataType dtype, const auto& values) {
    Tensor tensor = Tensor::Allocate(dtype, {static_cast<std::int64_t>(values.size())}).value();
    std::memcpy(tensor.mutable_data(), values.data(), tensor.bytes());
    const auto out = RestPredictAnswer({Info("y", dtype)}, {tensor}, RestFormat::kRow);
    return out.ok() ? *out : std::string(ToStd(out.status().message()));
  };
  const auto rows = [](const char* inner) {
    return StrCat("{\n    \"predictions\": [", inner, "\n    ]\n}");
  };
  EXPECT_EQ(answer(DataType::kFloat, std::vector<float>{1, 0.1f}), rows("1.0, 0.1"));
  EXPECT_EQ(answer(DataType::kDouble, std::vector<double>{0.1}), rows("0.1"));
  EXPECT_EQ(answer(DataType::kInt8, std::vector<std::int8_t>{-1}), rows("-1"));
  EXPECT_EQ(answer(DataType::kUint64, std::vector<std::uint64_t>{UINT64_MAX}),
            rows("18446744073709551615"));
  EXPECT_EQ(answer(DataType::kHalf, std::vector<std::uint16_t>{0x3c00, 0xc000, 0x0001, 0x7c00}),
            rows("1.0, -2.0, 5.9604645e-08, Infinity"));
  EXPECT_EQ(answer(DataType::kBfloat16, std::vector<std::uint16_t>{0x3f80}), rows("1.0"));
  EXPECT_EQ(answer(DataType::kComplex64, std::vector<std::uint64_t>{0}),
            "Failed to write JSON value for tensor type: complex64");
}

TEST(RestAnswer, BytesAreBase64ByName) {
  const Tensor tensor = Tensor::FromStrings({1}, {"hi\xff"});
  const auto named = [&](const char* alias) {
    return RestPredictAnswer({Info(alias, DataType::kString)}, {tensor}, RestFormat::kColumn)
        .value();
  };
  EXPECT_THAT(named("y_bytes"), HasSubstr("\"b64\": \"aGn/\""));
  EXPECT_THAT(named("y"), HasSubstr("\"hi\xff\""));
}

TEST(Compression, GoesBothWaysAndIsBounded) {
  const std::string text(100000, 'x');
  const std::string packed = Gzip(text);
  EXPECT_LT(packed.size(), 1000);
  EXPECT_EQ(Gunzip(packed, text.size()).value(), text);
  EXPECT_THAT(std::string(ToStd(Gunzip(packed, text.size() - 1).status().message())),
              HasSubstr("inflates to more than 99999 bytes"));
  EXPECT_FALSE(Gunzip(packed.substr(0, packed.size() / 2), text.size()).ok());
  EXPECT_FALSE(Gunzip("not gzip", 100).ok());
  EXPECT_FALSE(Gunzip("", 100).ok());
}

}  // namespace
}  // namespace takt::serving
