// Bodies of /v1 predict and classify. No input may crash a reader, and what stands
// behind a document, which says how numbers near its end are read, must not change what is read.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <string>
#include <string_view>

#include "base/fuzz_for_test.h"
#include "serving/api/json.h"
#include "serving/api/rest_codec.h"

namespace takt::serving {
namespace {

bool Same(const Tensor& a, const Tensor& b) {
  if (a.dtype() != b.dtype() || a.dims() != b.dims() || a.bytes() != b.bytes()) return false;
  if (a.dtype() == DataType::kString) return a.strings() == b.strings();
  return a.bytes() == 0 || std::memcmp(a.data(), b.data(), a.bytes()) == 0;
}

TensorInfo Info(const char* alias, DataType dtype) {
  TensorInfo info;
  info.alias = alias;
  info.dtype = dtype;
  return info;
}

void Compare(const std::string& body, const std::vector<TensorInfo>& inputs) {
  const auto document = JsonDocument::Parse(body);
  if (!document.ok()) return;
  static_cast<void>(RestSignatureName(*document));
  const auto read = RestPredictInputs(*document, inputs, "");
  const std::string longer = body + std::string(64, ' ');
  const auto again = JsonDocument::Parse(longer);
  if (!again.ok() || JsonText(document->root()) != JsonText(again->root())) std::abort();
  const auto read_again = RestPredictInputs(*again, inputs, "");
  if (read.status() != read_again.status()) std::abort();
  if (!read.ok()) return;
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    if (!Same(read->tensors[i], read_again->tensors[i])) std::abort();
  }
}

}  // namespace
}  // namespace takt::serving

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace takt::serving;  // NOLINT(google-build-using-namespace)
  if (size == 0) return 0;
  const std::string body(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (takt::Choice(data[0], 7)) {
    case 0:
      Compare(body, {Info("x", DataType::kFloat)});
      break;
    case 1:
      Compare(body, {Info("x", DataType::kDouble)});
      break;
    case 2:
      Compare(body, {Info("x", DataType::kInt8)});
      break;
    case 3:
      Compare(body, {Info("x", DataType::kString)});
      break;
    case 4:
      Compare(body, {Info("a", DataType::kFloat), Info("b", DataType::kInt64)});
      break;
    case 5:
      Compare(body, {Info("x", DataType::kBool)});
      break;
    default: {
      const auto document = JsonDocument::Parse(body);
      if (document.ok()) static_cast<void>(RestExamples(*document));
      break;
    }
  }
  return 0;
}
