// What is proven of rows, against what TensorFlow answers: several requests in one run, and each of
// them alone, on the models of tests/serving/row_models.py.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "base/fs.h"
#include "serving/engine/exported_models_for_test.h"
#include "tensorflow/core/example/example.pb.h"

namespace takt::serving {
namespace {

constexpr std::int64_t kOpenDimension = 6;  // what a request chooses where the model leaves it open

class RowsOnTensorflow : public OnTensorflow {
 protected:
  static void SetUpTestSuite() { SetUpOn("row_models.py"); }

  static std::vector<std::string> Models(const std::string& kind) {
    auto names = ListDir(StrCat(directory_->path(), "/", kind));
    EXPECT_TRUE(names.ok()) << names.status();
    return names.value_or(std::vector<std::string>());
  }
  void Load(const std::string& model) {
    plan_ = nullptr;
    auto session = engine_->Load({StrCat(directory_->path(), "/", model, "/1"), {"serve"}});
    ASSERT_TRUE(session.ok()) << session.status();
    session_ = *std::move(session);
    for (const SignatureDef& def : session_->signatures()) {
      if (def.name == "serving_default") def_ = &def;
    }
    std::vector<std::string> feeds;
    std::vector<std::string> fetches;
    for (const TensorInfo& info : def_->inputs) feeds.push_back(info.tensor_name);
    for (const TensorInfo& info : def_->outputs) fetches.push_back(info.tensor_name);
    auto plan = session_->Prepare(feeds, fetches);
    ASSERT_TRUE(plan.ok()) << plan.status();
    plan_ = *std::move(plan);
  }

  Tensor Random(const TensorInfo& info, std::int64_t rows) {
    Dims dims = info.dims;
    dims[0] = rows;
    for (std::int64_t& dim : dims) dim = dim < 0 ? kOpenDimension : dim;
    const std::int64_t count = ElementCount(dims).value();
    if (info.dtype == DataType::kString) {
      std::vector<std::string> strings;
      for (std::int64_t i = 0; i < count; ++i) {
        strings.push_back(dims.size() == 1 ? Example() : std::string(1, "abc"[random_() % 3]));
      }
      return Tensor::FromStrings(dims, std::move(strings));
    }
    Tensor tensor = Tensor::Allocate(info.dtype, dims).value();
    for (std::int64_t i = 0; i < count; ++i) {
      const auto small = static_cast<std::int32_t>(random_() % 8);
      if (info.dtype == DataType::kInt32) {
        static_cast<std::int32_t*>(tensor.mutable_data())[i] = small;
      } else if (info.dtype == DataType::kInt64) {
        static_cast<std::int64_t*>(tensor.mutable_data())[i] = small;
      } else {
        EXPECT_EQ(info.dtype, DataType::kFloat);
        static_cast<float*>(tensor.mutable_data())[i] =
            std::uniform_real_distribution<float>(-1, 1)(random_);
      }
    }
    return tensor;
  }
  std::string Example() {
    tensorflow::Example example;
    auto& x = (*example.mutable_features()->mutable_feature())["x"];
    for (int i = 0; i < 3; ++i) {
      x.mutable_float_list()->add_value(std::uniform_real_distribution<float>(-1, 1)(random_));
    }
    return example.SerializeAsString();
  }

  // "" where one run of all requests answers as a run of each does.
  std::string Difference() {
    constexpr std::array<std::int64_t, 3> kRows = {1, 2, 1};
    std::vector<std::vector<Tensor>> requests;
    for (const std::int64_t rows : kRows) {
      std::vector<Tensor>& request = requests.emplace_back();
      for (const TensorInfo& info : def_->inputs) request.push_back(Random(info, rows));
    }
    std::vector<Tensor> all;
    for (std::size_t i = 0; i < def_->inputs.size(); ++i) {
      std::vector<Tensor> pieces;
      for (const auto& request : requests) pieces.push_back(request[i]);
      all.push_back(Tensor::Concat(pieces).value());
    }
    auto together = session_->Run(*plan_, all, {});
    if (!together.ok()) return StrCat("together: ", together.status().ToString());
    std::int64_t first = 0;
    for (std::size_t r = 0; r < kRows.size(); ++r) {
      auto alone = session_->Run(*plan_, requests[r], {});
      if (!alone.ok()) return StrCat("alone: ", alone.status().ToString());
      for (std::size_t i = 0; i < alone->size(); ++i) {
        const Tensor& whole = (*together)[i];
        if (whole.rank() == 0 || whole.dims()[0] != 4) return "is not by rows";
        std::string difference = Compare((*alone)[i], whole.Slice(first, kRows[r]));
        if (!difference.empty()) return difference;
      }
      first += kRows[r];
    }
    return "";
  }
  static std::string Compare(const Tensor& a, const Tensor& b) {
    if (a.dims() != b.dims()) return StrCat(ShapeText(a.dims()), " and ", ShapeText(b.dims()));
    if (a.dtype() == DataType::kString) return a.strings() == b.strings() ? "" : "strings";
    if (a.dtype() != DataType::kFloat) {
      return std::memcmp(a.data(), b.data(), a.bytes()) == 0 ? "" : "numbers";
    }
    for (std::int64_t i = 0; i < a.elements(); ++i) {
      const float x = a.as<float>()[i];
      const float y = b.as<float>()[i];
      if (!(std::abs(x - y) <= 1e-5F * std::max(1.0F, std::abs(x)))) return StrCat(x, " and ", y);
    }
    return "";
  }

  std::unique_ptr<Session> session_;
  std::unique_ptr<Session::Plan> plan_;
  const SignatureDef* def_ = nullptr;
  std::mt19937 random_{1};
};

TEST_F(RowsOnTensorflow, WhatIsProvenIsSo) {
  for (const std::string& model : Models("rows")) {
    SCOPED_TRACE(model);
    Load(StrCat("rows/", model));
    ASSERT_NE(plan_, nullptr);
    EXPECT_EQ(def_->why_rows_may_depend, "");
    for (int i = 0; i < 3; ++i) EXPECT_EQ(Difference(), "");
  }
}

TEST_F(RowsOnTensorflow, ModelsThatMixRowsAreNotProven) {
  for (const std::string& model : Models("mixes")) {
    SCOPED_TRACE(model);
    Load(StrCat("mixes/", model));
    ASSERT_NE(plan_, nullptr);
    EXPECT_NE(def_->why_rows_may_depend, "");
    std::string difference;
    for (int i = 0; i < 20 && difference.empty(); ++i) difference = Difference();
    EXPECT_NE(difference, "") << "so it shows nothing";
  }
}

TEST_F(RowsOnTensorflow, WhatIsApartMayBeBeyondTheProof) {
  for (const std::string& model : Models("unproven")) {
    SCOPED_TRACE(model);
    Load(StrCat("unproven/", model));
    ASSERT_NE(plan_, nullptr);
    EXPECT_NE(def_->why_rows_may_depend, "");
    EXPECT_EQ(Difference(), "");
  }
}

}  // namespace
}  // namespace takt::serving
