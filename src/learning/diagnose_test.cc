#include "learning/diagnose.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace takt::learning {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

RunSnapshot Healthy() {
  RunSnapshot run{
      .now = 1000, .started = 0, .loss_tag = "train/loss", .last_event = 999, .usual_interval = 1};
  for (int i = 0; i < 1000; ++i) run.loss.push_back({i, i * 1.0, 1.0 / (1 + i)});
  return run;
}

std::vector<std::string> Messages(const RunSnapshot& run) {
  std::vector<std::string> messages;
  for (const Finding& f : Diagnose(run, {})) messages.push_back(f.message);
  return messages;
}

TEST(Diagnose, SaysNothingOfAHealthyRun) { EXPECT_THAT(Messages(Healthy()), IsEmpty()); }

TEST(Diagnose, NamesTheStepFromWhichTheLossIsNotFinite) {
  RunSnapshot run = Healthy();
  for (int i = 990; i < 1000; ++i) run.loss[i].value = std::nan("");
  EXPECT_THAT(Messages(run), ElementsAre("train/loss is NaN since step 990"));
  for (Point& p : run.loss) p.value = HUGE_VAL;
  EXPECT_THAT(Messages(run), ElementsAre("train/loss is infinite since step 0"));
}

TEST(Diagnose, ALossThatRecoveredIsHealthy) {
  RunSnapshot run = Healthy();
  run.loss[500].value = std::nan("");
  EXPECT_THAT(Messages(run), IsEmpty());
}

TEST(Diagnose, SilenceIsMeasuredByWhatIsUsual) {
  RunSnapshot run = Healthy();
  run.now = 999 + 130;
  EXPECT_THAT(Messages(run), ElementsAre("no training event for 2 min (usual: every 1 s)"));
  run.usual_interval = 60;
  EXPECT_THAT(Messages(run), IsEmpty());
}

TEST(Diagnose, ARunThatNeverWroteAnythingIsSilent) {
  EXPECT_THAT(Messages({.now = 600, .started = 0}),
              ElementsAre("no training event since the start 10 min ago"));
}

TEST(Diagnose, AFlatLossIsShownButAlertsNobody) {
  RunSnapshot run = Healthy();
  for (int i = 900; i < 1000; ++i) run.loss[i].value = 2.3026;
  const auto findings = Diagnose(run, {});
  ASSERT_EQ(findings.size(), 1u);
  EXPECT_EQ(findings[0].message, "train/loss has stayed at 2.303 over the last 100 points");
  EXPECT_FALSE(findings[0].alert);
}

TEST(Diagnose, AnIdleCpuIsNamed) {
  RunSnapshot run = Healthy();
  run.idle_cpu_since = 600;
  EXPECT_THAT(Messages(run), ElementsAre("the CPU has been idle for 7 min while training"));
}

TEST(GuessLoss, PrefersTheTrainingLoss) {
  EXPECT_EQ(GuessLoss({"validation/loss", "train/accuracy", "train/loss"}), "train/loss");
  EXPECT_EQ(GuessLoss({"eval/val_loss", "epoch_loss"}), "epoch_loss");
  EXPECT_EQ(GuessLoss({"accuracy", "lr"}), "");
}

TEST(BetterOf, GoesByTheName) {
  for (const char* low : {"loss", "train/Loss", "cross_entropy_1", "val_mae", "eval/top5_error",
                          "accuracy_loss", "rmse"}) {
    EXPECT_EQ(BetterOf(low), Better::kLower) << low;
  }
  for (const char* high : {"accuracy", "epoch_acc", "val/AUC", "f1", "mean_reward"}) {
    EXPECT_EQ(BetterOf(high), Better::kHigher) << high;
  }
  for (const char* neither : {"", "learning_rate", "accumulated_steps", "epoch", "bitmap/size"}) {
    EXPECT_EQ(BetterOf(neither), Better::kUnknown) << neither;
  }
}

}  // namespace
}  // namespace takt::learning
