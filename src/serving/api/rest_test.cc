#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "absl/strings/str_join.h"
#include "serving/api/rest_api.h"
#include "serving/api/rest_codec.h"
#include "tensorflow/core/framework/tensor.pb.h"

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

// What the original has for Predict over gRPC only: a signature whose inputs have defaults.
TEST(RestInputs, WithADefaultMayBeLeftOut) {
  std::vector<TensorInfo> inputs = {Info("k", DataType::kFloat), Info("x", DataType::kFloat)};
  tensorflow::TensorProto three;
  three.set_dtype(tensorflow::DT_FLOAT);
  three.add_float_val(3);
  inputs[0].default_value = three.SerializeAsString();
  const struct {
    const char* body;
    int k_rank;
    float k;
  } answered[] = {
      {R"({"instances": [{"x": 1}, {"x": 2}]})", 0, 3},
      {R"({"instances": [1, 2]})", 0, 3},
      {R"({"inputs": {"x": [1, 2]}})", 0, 3},
      {R"({"inputs": [1, 2]})", 0, 3},
      {R"({"instances": [{"x": 1, "k": 5}, {"k": 6, "x": 2}]})", 1, 5},
      {R"({"inputs": {"x": [1, 2], "k": 7}})", 0, 7},
  };
  for (const auto& c : answered) {
    const auto document = JsonDocument::Parse(c.body);
    const auto out = RestPredictInputs(*document, inputs, "");
    ASSERT_TRUE(out.ok()) << c.body << out.status();
    EXPECT_EQ(out->tensors[0].rank(), c.k_rank) << c.body;
    EXPECT_EQ(out->tensors[0].as<float>()[0], c.k) << c.body;
    EXPECT_THAT(out->tensors[1].dims(), ElementsAre(2)) << c.body;
    EXPECT_EQ(out->tensors[1].as<float>()[1], 2.0f) << c.body;
  }
  EXPECT_THAT(InputsError(R"({"instances": [{"x": 1}, {"x": 2, "k": 5}]})", inputs),
              HasSubstr("Failed to process element: 1 of 'instances' list."));
  EXPECT_THAT(InputsError(R"({"instances": [{"k": 1}]})", inputs),
              HasSubstr("keys must be equal to: k,x"));
  EXPECT_THAT(InputsError(R"({"inputs": {"k": 1}})", inputs),
              HasSubstr("Missing named input: x in 'inputs' object."));
  inputs[1].default_value = inputs[0].default_value;
  EXPECT_THAT(InputsError(R"({"instances": [1]})", inputs), HasSubstr("instances is a plain list"));
  EXPECT_EQ(InputsError(R"({"inputs": {}})", inputs), "OK");
  inputs[0].default_value = "no tensor";
  EXPECT_THAT(InputsError(R"({"inputs": {"x": 1}})", inputs), HasSubstr("not a tensor"));
}

// An object that is base64 counts as a value: it has no name either.
TEST(RestInputs, ValuesWithoutNamesAreForOneInput) {
  EXPECT_THAT(InputsError(R"({"instances": [{"b64": "YQ=="}]})",
                          {Info("a", DataType::kString), Info("b", DataType::kString)}),
              HasSubstr("instances is a plain list"));
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

template <typename T>
std::string ValuesOf(const Tensor& tensor) {
  return absl::StrJoin(tensor.as<T>(), tensor.as<T>() + tensor.elements(), " ",
                       [](std::string* out, T value) { absl::StrAppend(out, value); });
}
std::string Values(const Tensor& tensor) {
  switch (tensor.dtype()) {
    case DataType::kFloat:
      return ValuesOf<float>(tensor);
    case DataType::kDouble:
      return ValuesOf<double>(tensor);
    case DataType::kInt32:
      return ValuesOf<std::int32_t>(tensor);
    case DataType::kInt64:
      return ValuesOf<std::int64_t>(tensor);
    default:
      return absl::StrJoin(tensor.as<std::int8_t>(), tensor.as<std::int8_t>() + tensor.elements(),
                           " ", [](std::string* out, int value) { absl::StrAppend(out, value); });
  }
}

// Lists of numbers are taken as a whole where that is safe, else one by one.
TEST(RestInputs, AListIsWhatItsNumbersAre) {
  const std::vector<TensorInfo> f = {Info("x", DataType::kFloat)};
  const std::vector<TensorInfo> d = {Info("x", DataType::kDouble)};
  const std::vector<TensorInfo> i = {Info("x", DataType::kInt32)};
  const std::vector<TensorInfo> b = {Info("x", DataType::kInt8)};
  const std::vector<TensorInfo> l = {Info("x", DataType::kInt64)};
  const struct {
    std::string list;
    const std::vector<TensorInfo>& inputs;
    std::string want;  // "" = refused
  } cases[] = {
      {"[1.0, 2.5, -3e2]", f, "1 2.5 -300"},
      {"[1, 2.5, -3e2]", f, "1 2.5 -300"},
      {"[1, 2, 3]", f, "1 2 3"},
      {"[NaN, 1.0, -Infinity]", f, "nan 1 -inf"},
      {"[1.0, NaN, Infinity]", f, "1 nan inf"},
      {"[16777215, -16777215]", f, "1.67772e+07 -1.67772e+07"},
      {"[16777217]", f, ""},
      {"[16777217.0]", f, "1.67772e+07"},
      {"[1, 16777217.0]", f, "1 1.67772e+07"},
      {"[16777217, 0.5]", f, ""},
      {"[1e39]", f, ""},
      {"[0.5, 1e39]", d, "0.5 1e+39"},
      {"[9007199254740992.0, 9007199254740991]", d, "9.0072e+15 9.0072e+15"},
      {"[9007199254740993]", d, ""},
      {"[-0, -0.0]", f, "0 -0"},
      {"[1, -7, 2147483647, -2147483648]", i, "1 -7 2147483647 -2147483648"},
      {"[2147483648]", i, ""},
      {"[1, 1.0]", i, ""},
      {"[127, -128]", b, "127 -128"},
      {"[128]", b, ""},
      {"[9223372036854775807, 1, -9223372036854775808]", l,
       "9223372036854775807 1 -9223372036854775808"},
      {"[9223372036854775808]", l, ""},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.list);
    for (const std::string& body : {StrCat("{\"instances\": [", c.list, "]}"),
                                    StrCat("{\"inputs\": ", c.list, "}", std::string(64, ' '))}) {
      const auto document = JsonDocument::Parse(body);
      ASSERT_TRUE(document.ok()) << document.status();
      const auto inputs = RestPredictInputs(*document, c.inputs, "");
      EXPECT_EQ(inputs.ok(), !c.want.empty()) << inputs.status();
      if (inputs.ok()) {
        EXPECT_EQ(Values(inputs->tensors[0]), c.want);
      }
    }
  }
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

}  // namespace
}  // namespace takt::serving
