// What every runtime must do, whatever it runs instances with. A runtime's own test includes this,
// writes a harness, and instantiates the suite:
//
//   INSTANTIATE_TEST_SUITE_P(Fake, RuntimeConformance, testing::Values(...));
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "runtime/runtime.h"

namespace takt::runtime {

// What an instance does in these tests.
struct Program {
  std::vector<std::string> lines = {};   // prints them
  std::optional<int> exit_code = {};     // then exits so; nullopt = runs until it is stopped
  bool ignores_stop = false;             // only SIGKILL ends it
  std::optional<int> exit_on_stop = {};  // exits so on SIGTERM; nullopt = SIGTERM ends it
};

class ConformanceHarness {
 public:
  virtual ~ConformanceHarness() = default;
  virtual Runtime& runtime() = 0;
  // A service of app "app" whose instances do that.
  virtual ServiceSpec Spec(const std::string& service, const Program& program) = 0;
  // Lets things happen until the condition holds; false when it does not within a deadline.
  virtual bool Eventually(const std::function<bool()>& condition) = 0;
  // Lets pending things happen, for tests of what must not happen.
  virtual void Settle() = 0;
  // A port that is free now.
  virtual std::uint16_t FreePort() = 0;
};

struct RuntimeUnderTest {
  std::string name;
  std::function<std::unique_ptr<ConformanceHarness>()> make;
};

class RuntimeConformance : public testing::TestWithParam<RuntimeUnderTest> {
 protected:
  RuntimeConformance() : harness_(GetParam().make()) {}

  Runtime& runtime() { return harness_->runtime(); }
  ServiceSpec Spec(const std::string& service, const Program& program = {}) {
    return harness_->Spec(service, program);
  }
  std::optional<ServiceStatus> Status(const std::string& service) {
    const auto all = runtime().Observe();
    EXPECT_TRUE(all.ok()) << all.status();
    for (const ServiceStatus& s : *all) {
      if (s.app == "app" && s.service == service) return s;
    }
    return std::nullopt;
  }
  std::vector<InstanceStatus> In(const std::string& service, InstanceState state) {
    std::vector<InstanceStatus> result;
    if (const auto status = Status(service)) {
      for (const InstanceStatus& i : status->instances) {
        if (i.state == state) result.push_back(i);
      }
    }
    return result;
  }
  bool EventuallyIn(const std::string& service, InstanceState state, std::size_t count) {
    return harness_->Eventually([&] { return In(service, state).size() == count; });
  }
  std::vector<std::string> Lines(const std::string& instance, std::uint64_t cursor = 0,
                                 std::size_t max_lines = 1000) {
    const auto lines = runtime().ReadLog(instance, cursor, max_lines);
    EXPECT_TRUE(lines.ok()) << lines.status();
    std::vector<std::string> texts;
    for (const LogLine& line : *lines) texts.push_back(line.text);
    return texts;
  }
  // The only instance of the service, once it is in that state.
  InstanceStatus Only(const std::string& service, InstanceState state) {
    EXPECT_TRUE(EventuallyIn(service, state, 1)) << service;
    const auto found = In(service, state);
    return found.empty() ? InstanceStatus() : found.front();
  }
  std::string Describe(const std::string& service) {
    std::string text;
    if (const auto status = Status(service)) {
      for (const InstanceStatus& i : status->instances) {
        text +=
            i.id + " state " + std::to_string(static_cast<int>(i.state)) + " " + i.reason + "\n";
      }
    }
    return text;
  }

  std::unique_ptr<ConformanceHarness> harness_;
};

TEST_P(RuntimeConformance, DeployedServiceRunsWithItsIdentityAndTimes) {
  ServiceSpec spec = Spec("web");
  spec.revision = 7;
  ASSERT_EQ(runtime().Deploy(spec), absl::OkStatus());
  const InstanceStatus i = Only("web", InstanceState::kRunning);
  EXPECT_EQ(i.app, "app");
  EXPECT_EQ(i.service, "web");
  EXPECT_EQ(i.revision, 7);
  EXPECT_EQ(i.replica, 0);
  EXPECT_EQ(i.restarts, 0);
  EXPECT_EQ(i.reason, "");
  EXPECT_GT(i.pid, 0);
  EXPECT_EQ(i.id.find('/'), std::string::npos);
  EXPECT_GE(i.started, i.created);
  EXPECT_FALSE(i.exit_code || i.signal);
  EXPECT_EQ(Status("web")->desired_replicas, 1);
}

TEST_P(RuntimeConformance, DeployingTheSameAgainRestartsNothing) {
  const ServiceSpec spec = Spec("web");
  ASSERT_EQ(runtime().Deploy(spec), absl::OkStatus());
  const std::string id = Only("web", InstanceState::kRunning).id;
  ASSERT_EQ(runtime().Deploy(spec), absl::OkStatus());
  ServiceSpec newer = spec;
  newer.revision = 2;
  newer.labels["owner"] = "someone";
  newer.restart = RestartPolicy::kOnFailure;
  ASSERT_EQ(runtime().Deploy(newer), absl::OkStatus());
  harness_->Settle();
  EXPECT_EQ(Only("web", InstanceState::kRunning).id, id);
  EXPECT_EQ(Status("web")->revision, 2);
  EXPECT_EQ(Status("web")->instances.size(), 1u);
}

TEST_P(RuntimeConformance, DeployingSomethingElseReplacesTheInstanceAndKeepsItsRecord) {
  ServiceSpec spec = Spec("web", {.exit_on_stop = 0});
  ASSERT_EQ(runtime().Deploy(spec), absl::OkStatus());
  const std::string id = Only("web", InstanceState::kRunning).id;
  spec.environment["VERSION"] = "2";
  spec.revision = 2;
  ASSERT_EQ(runtime().Deploy(spec), absl::OkStatus());
  ASSERT_TRUE(EventuallyIn("web", InstanceState::kExited, 1)) << Describe("web");
  EXPECT_EQ(In("web", InstanceState::kExited)[0].id, id);
  const InstanceStatus now = Only("web", InstanceState::kRunning);
  EXPECT_NE(now.id, id);
  EXPECT_EQ(now.revision, 2);
  EXPECT_EQ(now.restarts, 0) << "a replacement is no restart";
}

TEST_P(RuntimeConformance, ReplicasGrowAndShrinkWithoutTouchingTheOthers) {
  ServiceSpec spec = Spec("web");
  spec.replicas = 3;
  ASSERT_EQ(runtime().Deploy(spec), absl::OkStatus());
  ASSERT_TRUE(EventuallyIn("web", InstanceState::kRunning, 3)) << Describe("web");
  std::vector<int> replicas;
  std::string first;
  for (const InstanceStatus& i : In("web", InstanceState::kRunning)) {
    replicas.push_back(i.replica);
    if (i.replica == 0) first = i.id;
  }
  EXPECT_THAT(replicas, testing::UnorderedElementsAre(0, 1, 2));
  spec.replicas = 1;
  ASSERT_EQ(runtime().Deploy(spec), absl::OkStatus());
  ASSERT_TRUE(EventuallyIn("web", InstanceState::kExited, 2)) << Describe("web");
  EXPECT_EQ(Only("web", InstanceState::kRunning).id, first);
  spec.replicas = 2;
  ASSERT_EQ(runtime().Deploy(spec), absl::OkStatus());
  ASSERT_TRUE(EventuallyIn("web", InstanceState::kRunning, 2)) << Describe("web");
}

TEST_P(RuntimeConformance, NoReplicasIsAServiceThatRunsNothing) {
  ServiceSpec spec = Spec("web");
  spec.replicas = 0;
  ASSERT_EQ(runtime().Deploy(spec), absl::OkStatus());
  harness_->Settle();
  ASSERT_TRUE(Status("web").has_value());
  EXPECT_TRUE(Status("web")->instances.empty());
}

TEST_P(RuntimeConformance, AnEndedInstanceKeepsExitCodeReasonTimesAndLog) {
  ASSERT_EQ(runtime().Deploy(Spec("job", {.lines = {"one", "two"}, .exit_code = 3})),
            absl::OkStatus());
  const InstanceStatus i = Only("job", InstanceState::kExited);
  EXPECT_EQ(i.exit_code, 3);
  EXPECT_FALSE(i.signal);
  EXPECT_FALSE(i.oom_killed);
  EXPECT_EQ(i.reason, "failed with exit code 3");
  EXPECT_GE(i.finished, i.started);
  EXPECT_THAT(Lines(i.id), testing::ElementsAre("one", "two"));
}

TEST_P(RuntimeConformance, WhatEndedWellIsNotStartedAgainByTheSameDeploy) {
  const ServiceSpec spec = Spec("job", {.exit_code = 0});
  ASSERT_EQ(runtime().Deploy(spec), absl::OkStatus());
  EXPECT_EQ(Only("job", InstanceState::kExited).reason, "finished with exit code 0");
  ASSERT_EQ(runtime().Deploy(spec), absl::OkStatus());
  harness_->Settle();
  EXPECT_EQ(Status("job")->instances.size(), 1u);
}

TEST_P(RuntimeConformance, StopEndsTheInstanceAndKeepsItsRecordAndLog) {
  ASSERT_EQ(runtime().Deploy(Spec("web", {.lines = {"hello"}})), absl::OkStatus());
  const std::string id = Only("web", InstanceState::kRunning).id;
  ASSERT_TRUE(harness_->Eventually([&] { return Lines(id).size() == 1; }));
  ASSERT_EQ(runtime().Stop("app", "web"), absl::OkStatus());
  const InstanceStatus i = Only("web", InstanceState::kExited);
  EXPECT_EQ(i.id, id);
  EXPECT_EQ(i.signal, 15);
  EXPECT_EQ(i.reason, "ended by SIGTERM");
  EXPECT_TRUE(Status("web")->stopped);
  EXPECT_THAT(Lines(id), testing::ElementsAre("hello"));
  EXPECT_EQ(runtime().Stop("app", "web"), absl::OkStatus()) << "stopping twice is no error";
}

TEST_P(RuntimeConformance, AStoppedServiceStaysStoppedWhateverItsRestartPolicy) {
  ServiceSpec spec = Spec("web", {.lines = {"listens to the signal"}, .exit_on_stop = 1});
  spec.restart = RestartPolicy::kAlways;
  ASSERT_EQ(runtime().Deploy(spec), absl::OkStatus());
  const std::string id = Only("web", InstanceState::kRunning).id;
  ASSERT_TRUE(harness_->Eventually([&] { return Lines(id).size() == 1; }));
  ASSERT_EQ(runtime().Stop("app", "web"), absl::OkStatus());
  EXPECT_EQ(Only("web", InstanceState::kExited).exit_code, 1);
  harness_->Settle();
  EXPECT_EQ(Status("web")->instances.size(), 1u);
}

TEST_P(RuntimeConformance, DeployStartsWhatWasStopped) {
  const ServiceSpec spec = Spec("web");
  ASSERT_EQ(runtime().Deploy(spec), absl::OkStatus());
  const std::string id = Only("web", InstanceState::kRunning).id;
  ASSERT_EQ(runtime().Stop("app", "web"), absl::OkStatus());
  ASSERT_TRUE(EventuallyIn("web", InstanceState::kExited, 1));
  ASSERT_EQ(runtime().Deploy(spec), absl::OkStatus());
  EXPECT_NE(Only("web", InstanceState::kRunning).id, id);
  EXPECT_FALSE(Status("web")->stopped);
}

TEST_P(RuntimeConformance, AnInstanceThatIgnoresTheStopSignalIsKilledAfterItsGrace) {
  ServiceSpec spec = Spec("web", {.lines = {"deaf"}, .ignores_stop = true});
  spec.stop_grace = std::chrono::milliseconds(200);
  ASSERT_EQ(runtime().Deploy(spec), absl::OkStatus());
  const std::string id = Only("web", InstanceState::kRunning).id;
  ASSERT_TRUE(harness_->Eventually([&] { return Lines(id).size() == 1; }));
  ASSERT_EQ(runtime().Stop("app", "web"), absl::OkStatus());
  EXPECT_EQ(Only("web", InstanceState::kExited).signal, 9);
}

TEST_P(RuntimeConformance, RemoveForgetsServiceAndLog) {
  ASSERT_EQ(runtime().Deploy(Spec("web", {.lines = {"hello"}})), absl::OkStatus());
  const std::string id = Only("web", InstanceState::kRunning).id;
  ASSERT_EQ(runtime().Remove("app", "web"), absl::OkStatus());
  ASSERT_TRUE(harness_->Eventually([&] { return !Status("web"); })) << Describe("web");
  EXPECT_EQ(runtime().ReadLog(id, 0, 10).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(runtime().Remove("app", "web"), absl::OkStatus()) << "removing nothing is no error";
}

TEST_P(RuntimeConformance, RemoveAndDeployAtOnceRunsTheNewOne) {
  ServiceSpec spec = Spec("web");
  ASSERT_EQ(runtime().Deploy(spec), absl::OkStatus());
  const std::string id = Only("web", InstanceState::kRunning).id;
  ASSERT_EQ(runtime().Remove("app", "web"), absl::OkStatus());
  ASSERT_EQ(runtime().Deploy(spec), absl::OkStatus());
  ASSERT_TRUE(harness_->Eventually([&] {
    const auto running = In("web", InstanceState::kRunning);
    return running.size() == 1 && running[0].id != id;
  })) << Describe("web");
}

TEST_P(RuntimeConformance, OnFailureRestartsFailuresUpToItsLimit) {
  ServiceSpec spec = Spec("job", {.exit_code = 4});
  spec.restart = RestartPolicy::kOnFailure;
  spec.restart_max_attempts = 2;
  ASSERT_EQ(runtime().Deploy(spec), absl::OkStatus());
  ASSERT_TRUE(EventuallyIn("job", InstanceState::kExited, 3)) << Describe("job");
  harness_->Settle();
  const auto ended = In("job", InstanceState::kExited);
  ASSERT_EQ(ended.size(), 3u);
  for (int n = 0; n < 3; ++n) {
    EXPECT_EQ(ended[n].restarts, n) << "oldest first";
    EXPECT_EQ(ended[n].exit_code, 4);
  }
  EXPECT_EQ(ended[0].reason, "failed with exit code 4");
  EXPECT_EQ(ended[2].reason, "failed with exit code 4; gave up after 2 restarts");
}

TEST_P(RuntimeConformance, OnFailureLeavesWhatSucceeded) {
  ServiceSpec spec = Spec("job", {.exit_code = 0});
  spec.restart = RestartPolicy::kOnFailure;
  ASSERT_EQ(runtime().Deploy(spec), absl::OkStatus());
  ASSERT_TRUE(EventuallyIn("job", InstanceState::kExited, 1));
  harness_->Settle();
  EXPECT_EQ(Status("job")->instances.size(), 1u);
}

TEST_P(RuntimeConformance, AlwaysRestartsSuccessesTooAndBacksOff) {
  ServiceSpec spec = Spec("job", {.exit_code = 0});
  spec.restart = RestartPolicy::kAlways;
  ASSERT_EQ(runtime().Deploy(spec), absl::OkStatus());
  ASSERT_TRUE(harness_->Eventually([&] {
    const auto waiting = In("job", InstanceState::kBackingOff);
    return !waiting.empty() && waiting[0].restarts >= 1;
  })) << Describe("job");
  const auto waiting = In("job", InstanceState::kBackingOff);
  if (!waiting.empty()) {
    EXPECT_THAT(waiting[0].reason, testing::HasSubstr("finished with exit code 0; restarts in 0."));
  }
  ASSERT_EQ(runtime().Stop("app", "job"), absl::OkStatus());
  ASSERT_TRUE(harness_->Eventually([&] {
    return In("job", InstanceState::kExited).size() == Status("job")->instances.size();
  })) << "Stop ends the back-off too";
}

TEST_P(RuntimeConformance, TheNewestEndedInstancesStay) {
  ServiceSpec spec = Spec("job", {.lines = {"x"}, .exit_code = 0});
  for (std::size_t n = 0; n < kMaxEndedInstances + 3; ++n) {
    spec.environment["RUN"] = std::to_string(n);
    spec.revision = static_cast<int>(n);
    ASSERT_EQ(runtime().Deploy(spec), absl::OkStatus());
    ASSERT_TRUE(harness_->Eventually([&] {
      const auto ended = In("job", InstanceState::kExited);
      return !ended.empty() && ended.back().revision == static_cast<int>(n);
    })) << Describe("job");
  }
  // The oldest goes with the look that follows an end, not with the end.
  ASSERT_TRUE(harness_->Eventually([&] {
    return In("job", InstanceState::kExited).size() == kMaxEndedInstances;
  })) << Describe("job");
  const auto ended = In("job", InstanceState::kExited);
  EXPECT_EQ(ended.front().revision, 3);
  for (const InstanceStatus& i : ended) EXPECT_THAT(Lines(i.id), testing::ElementsAre("x"));
}

TEST_P(RuntimeConformance, LogsAreReadInPiecesByCursor) {
  Program program;
  for (int n = 0; n < 25; ++n) program.lines.push_back("line " + std::to_string(n));
  program.exit_code = 0;
  ASSERT_EQ(runtime().Deploy(Spec("job", program)), absl::OkStatus());
  const InstanceStatus i = Only("job", InstanceState::kExited);
  std::vector<std::string> texts;
  std::uint64_t cursor = 0;
  while (true) {
    const auto lines = runtime().ReadLog(i.id, cursor, 10);
    ASSERT_TRUE(lines.ok());
    ASSERT_LE(lines->size(), 10u);
    if (lines->empty()) break;
    for (const LogLine& line : *lines) {
      texts.push_back(line.text);
      EXPECT_EQ(line.instance, i.id);
      EXPECT_FALSE(line.is_stderr);
      EXPECT_GT(line.cursor, cursor);
      cursor = line.cursor;
    }
  }
  EXPECT_EQ(texts, program.lines);
  const auto tail = runtime().TailCursor(i.id, 3);
  ASSERT_TRUE(tail.ok());
  EXPECT_THAT(Lines(i.id, *tail), testing::ElementsAre("line 22", "line 23", "line 24"));
  EXPECT_EQ(*runtime().TailCursor(i.id, 1000), *runtime().TailCursor(i.id, 25));
  EXPECT_THAT(Lines(i.id, *runtime().TailCursor(i.id, 0)), testing::IsEmpty());
  EXPECT_THAT(Lines(i.id, cursor + 1'000'000), testing::IsEmpty()) << "a cursor beyond the end";
}

TEST_P(RuntimeConformance, UnknownThingsAreNotFound) {
  EXPECT_EQ(runtime().Stop("app", "nothing").code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(runtime().ReadLog("nothing", 0, 1).status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(runtime().TailCursor("../x", 1).status().code(), absl::StatusCode::kNotFound);
  ServiceSpec spec = Spec("web");
  spec.image = "no/such-image:1";
  spec.image_digest.clear();
  const absl::Status status = runtime().Deploy(spec);
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("no/such-image:1"));
  EXPECT_FALSE(Status("web")) << "a refused Deploy leaves nothing";
  EXPECT_EQ(runtime().ResolveImage("no/such-image:1").status().code(), absl::StatusCode::kNotFound);
}

TEST_P(RuntimeConformance, ImagesHaveANameAndADigest) {
  const auto image = runtime().ResolveImage(Spec("web").image);
  ASSERT_TRUE(image.ok()) << image.status();
  EXPECT_EQ(image->name, Spec("web").image);
  EXPECT_FALSE(image->digest.empty());
  EXPECT_EQ(runtime().ResolveImage(Spec("web").image)->digest, image->digest);
}

TEST_P(RuntimeConformance, NamesThatAreNoPathSegmentAreRefused) {
  for (const std::string& name :
       {std::string("../x"), std::string(""), std::string("a/b"), std::string("a\nb"),
        std::string("a\0b", 3), std::string(200, 'a'), std::string("-x"), std::string("..")}) {
    ServiceSpec spec = Spec("web");
    spec.service = name;
    EXPECT_EQ(runtime().Deploy(spec).code(), absl::StatusCode::kInvalidArgument) << name;
    spec = Spec("web");
    spec.app = name;
    EXPECT_EQ(runtime().Deploy(spec).code(), absl::StatusCode::kInvalidArgument) << name;
  }
  EXPECT_TRUE(runtime().Observe()->empty());
}

TEST_P(RuntimeConformance, ReplicasHaveALimit) {
  ServiceSpec spec = Spec("web");
  spec.replicas = kMaxReplicas + 1;
  EXPECT_EQ(runtime().Deploy(spec).code(), absl::StatusCode::kInvalidArgument);
  spec.replicas = -1;
  EXPECT_EQ(runtime().Check(spec).code(), absl::StatusCode::kInvalidArgument);
}

TEST_P(RuntimeConformance, APortThatIsTakenIsRefusedWithItsOwner) {
  const std::uint16_t port = harness_->FreePort();
  ServiceSpec spec = Spec("web");
  spec.app = "serving";
  spec.ports = {{"", port, port}};
  ASSERT_EQ(runtime().Deploy(spec), absl::OkStatus());
  ServiceSpec other = Spec("other");
  other.ports = {{"", port, 80}};
  for (const absl::Status& status : {runtime().Check(other), runtime().Deploy(other)}) {
    EXPECT_EQ(status.code(), absl::StatusCode::kAlreadyExists);
    EXPECT_THAT(std::string(status.message()),
                testing::HasSubstr("port " + std::to_string(port) + " is taken by app serving"));
  }
  EXPECT_FALSE(Status("other"));
  EXPECT_EQ(runtime().Deploy(spec), absl::OkStatus()) << "a service does not clash with itself";
  ASSERT_EQ(runtime().Stop("serving", "web"), absl::OkStatus());
  ASSERT_TRUE(harness_->Eventually([&] { return runtime().Check(other).ok(); }))
      << "a stopped service gives its port back: " << runtime().Check(other);
}

TEST_P(RuntimeConformance, TheListenerHearsChangesAndLogs) {
  auto changes = std::make_shared<std::atomic<int>>(0);
  auto logs = std::make_shared<std::atomic<int>>(0);
  runtime().SetListener([changes] { ++*changes; });
  runtime().SetLogListener([logs](const std::string& instance) {
    if (!instance.empty()) ++*logs;
  });
  ASSERT_EQ(runtime().Deploy(Spec("job", {.lines = {"x"}, .exit_code = 0})), absl::OkStatus());
  ASSERT_TRUE(EventuallyIn("job", InstanceState::kExited, 1));
  EXPECT_TRUE(harness_->Eventually([&] { return *changes >= 3 && *logs >= 1; }))
      << *changes << " changes, " << *logs << " logs";
  runtime().SetListener(nullptr);
  runtime().SetLogListener(nullptr);
}

TEST_P(RuntimeConformance, CapabilitiesNameTheRuntime) {
  const Capabilities capabilities = runtime().capabilities();
  EXPECT_FALSE(capabilities.name.empty());
  for (const std::string& warning : capabilities.warnings) EXPECT_FALSE(warning.empty());
}

}  // namespace takt::runtime
