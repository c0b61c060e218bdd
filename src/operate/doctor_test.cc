// What is said of a run from its events and its CPU, while time passes.
#include "operate/doctor.h"

#include <cmath>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/fs.h"
#include "learning/event_for_test.h"

namespace takt::operate {
namespace {

using ::testing::HasSubstr;

class DoctorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    store_ = learning::LearningStore::Open(JoinPath(dir_.path(), "learning.db")).value();
    ASSERT_TRUE(MakeDirs(JoinPath(dir_.path(), "events")).ok());
    run_.app = "mnist";
    run_.number = 1;
    run_.service = "trainer";
    run_.started = 1000;
  }
  void Write(double wall_time, int step, float loss) {
    learning::AppendScalarEvent(wall_time, step, "loss", loss, events_);
    const std::string path = JoinPath(dir_.path(), "events/events.out.tfevents.1.host");
    ASSERT_TRUE(WriteFileWhole(path, events_).ok());
    ASSERT_TRUE(store_->Scan({"mnist", "trainer", JoinPath(dir_.path(), "events")}).ok());
  }
  std::string Examine(double now, bool expects_events = true) {
    const auto findings = doctor_.Examine(run_, expects_events, *store_, now);
    EXPECT_TRUE(findings.ok()) << findings.status();
    std::string text;
    for (const learning::Finding& finding : *findings) {
      text += StrCat(text.empty() ? "" : "; ", learning::FindingName(finding.kind), ": ",
                     finding.message);
    }
    return text;
  }

  TempDir dir_;
  std::unique_ptr<learning::LearningStore> store_;
  std::string events_;
  operate::Run run_;
  Doctor doctor_;
};

TEST_F(DoctorTest, SaysNothingOfARunThatGoesWell) {
  for (int step = 0; step < 100; ++step) {
    const double now = 1000 + 10 * step;
    Write(now, step, 1.0F / static_cast<float>(step + 1));
    run_.cpu_seconds += 9;
    EXPECT_EQ(Examine(now), "");
  }
}

TEST_F(DoctorTest, SaysThatTheLossIsNoNumberUntilItIsOneAgain) {
  Write(1001, 1, 0.5F);
  EXPECT_EQ(Examine(1002), "");
  Write(1003, 2, NAN);
  EXPECT_EQ(Examine(1004), "not_finite: loss is NaN since step 2");
  Write(1005, 3, 0.4F);
  EXPECT_EQ(Examine(1006), "");
}

TEST_F(DoctorTest, SaysThatEventsNoLongerCome) {
  for (int step = 0; step < 5; ++step) Write(1000 + step, step, 0.5F);
  EXPECT_EQ(Examine(1010), "");
  EXPECT_THAT(Examine(1000 + 600), HasSubstr("silent: no training event for"));
}

TEST_F(DoctorTest, ATrainingThatWritesNoEventsIsNotSilent) {
  EXPECT_EQ(Examine(5000, /*expects_events=*/false), "");
  EXPECT_THAT(Examine(5000, /*expects_events=*/true),
              HasSubstr("silent: no training event since the start"));
}

TEST_F(DoctorTest, SaysThatTheCpuIsIdleFromWhenItBecameSo) {
  for (int i = 0; i <= 10; ++i) {
    run_.cpu_seconds += 10;
    EXPECT_EQ(Examine(1000 + 10 * i, false), "");
  }
  for (int i = 1; i < 30; ++i) EXPECT_EQ(Examine(1100 + 10 * i, false), "") << i;
  EXPECT_THAT(Examine(1400, false), HasSubstr("idle: the CPU has been idle for 5 min"));
  run_.cpu_seconds += 10;
  EXPECT_EQ(Examine(1410, false), "");
}

TEST_F(DoctorTest, ForgetsRunsThatHaveEnded) {
  Examine(1000, false);
  Examine(1200, false);
  doctor_.Keep({});
  EXPECT_EQ(Examine(1600, false), "") << "how long it was idle before is not known any more";
}

}  // namespace
}  // namespace takt::operate
