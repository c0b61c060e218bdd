// What tests on TensorFlow itself share: models that a script of tests/serving exports, and an
// engine for them.
#pragma once

#include <gtest/gtest.h>

#include <cstdlib>
#include <memory>
#include <string>
#include <string_view>

#include "base/fs.h"
#include "serving/engine/engine.h"

namespace takt::serving {

// Runs tests/serving/`script` with `directory` as where to put its models. "" or what went wrong.
inline std::string ExportModels(std::string_view script, const std::string& directory) {
  setenv("TF_CPP_MIN_LOG_LEVEL", "2", 0);
  const std::string log = directory + "/export.log";
  const std::string command =
      StrCat(TAKT_BINARY_DIR "/lib/takt/venv/bin/python " TAKT_SOURCE_DIR "/tests/serving/", script,
             " ", directory, " >", log, " 2>&1");
  if (std::system(command.c_str()) == 0) return "";
  return StrCat(script, " failed: ", ReadFile(log, 1 << 20).value_or(""));
}

// The suite's models and engine, for as long as it runs.
class OnTensorflow : public testing::Test {
 protected:
  static void SetUpOn(std::string_view script) {
    directory_ = new TempDir;
    ASSERT_EQ(ExportModels(script, directory_->path()), "");
    auto engine = MakeTensorflowEngine({});
    ASSERT_TRUE(engine.ok()) << engine.status();
    engine_ = engine->release();
  }
  static void TearDownTestSuite() {
    delete engine_;
    delete directory_;
  }

  static inline TempDir* directory_ = nullptr;
  static inline Engine* engine_ = nullptr;
};

}  // namespace takt::serving
