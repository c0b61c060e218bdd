// The manager over a storage and an engine that do as they are told.
#include "serving/lifecycle/manager.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <set>
#include <thread>

#include "serving/batching/batching.h"
#include "serving/engine/fake_engine.h"

namespace takt::serving {
namespace {

using std::chrono::milliseconds;
using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Key;
using testing::Pair;

class FakeStorage final : public ModelStorage {
 public:
  absl::StatusOr<std::map<std::int64_t, std::string>> ListVersions(
      const std::string& base_path) override {
    const std::lock_guard lock(mutex_);
    ++listings_[base_path];
    if (!broken_.ok()) return broken_;
    if (!bases_.contains(base_path)) return absl::NotFoundError(StrCat(base_path, " is not there"));
    std::map<std::int64_t, std::string> out;
    for (const auto& [version, text] : bases_[base_path]) {
      out[version] = StrCat(base_path, "/", version);
    }
    return out;
  }
  absl::StatusOr<VersionFingerprint> Fingerprint(const std::string& path) override {
    const std::lock_guard lock(mutex_);
    VersionFingerprint fingerprint;
    fingerprint.text = TextOf(path);
    return fingerprint;
  }
  absl::Status CheckComplete(const std::string& path) override {
    const std::lock_guard lock(mutex_);
    return TextOf(path) == "half" ? absl::FailedPreconditionError("a shard is missing")
                                  : absl::OkStatus();
  }
  absl::StatusOr<std::string> Localize(const std::string& path) override { return path; }

  // `text` stands for what the files hold: "half" is incomplete, "bad" does not load.
  void Put(const std::string& base, std::int64_t version, const std::string& text = "good") {
    const std::lock_guard lock(mutex_);
    bases_[base][version] = text;
  }
  void Remove(const std::string& base, std::int64_t version) {
    const std::lock_guard lock(mutex_);
    bases_[base].erase(version);
  }
  void Break(absl::Status status) {
    const std::lock_guard lock(mutex_);
    broken_ = std::move(status);
  }
  std::string Text(const std::string& path) {
    const std::lock_guard lock(mutex_);
    return TextOf(path);
  }
  int listings(const std::string& base) {
    const std::lock_guard lock(mutex_);
    return listings_[base];
  }

 private:
  std::string TextOf(const std::string& path) {
    const std::size_t slash = path.rfind('/');
    return bases_[path.substr(0, slash)][std::stoll(path.substr(slash + 1))];
  }
  std::mutex mutex_;
  std::map<std::string, std::map<std::int64_t, std::string>> bases_;
  std::map<std::string, int> listings_;
  absl::Status broken_;
};

class ManagerTest : public testing::Test {
 protected:
  ManagerTest() {
    options_.poll = milliseconds(10);
    options_.retry_interval = milliseconds(20);
    options_.load_nice = 0;
  }
  ~ManagerTest() override {
    release_.set_value();
    if (manager_ != nullptr) manager_->Stop();
  }
  void Start() {
    manager_ = std::make_unique<ModelManager>(
        options_, storage_,
        [this](const ModelConfig& model, std::int64_t version, const std::string& path) {
          return Load(model, version, path);
        },
        directory_);
  }
  absl::StatusOr<std::shared_ptr<Servable>> Load(const ModelConfig& model, std::int64_t version,
                                                 const std::string& path) {
    {
      const std::lock_guard lock(mutex_);
      ++loads_[path];
    }
    if (storage_.Text(path) == "slow") released_.wait();
    if (storage_.Text(path) == "bad") return absl::DataLossError("a checksum does not fit");
    Servable::Options options;
    options.name = model.name;
    options.version = version;
    return Servable::Create(std::make_unique<FakeSession>(FakeModel{}), options, nullptr);
  }
  int loads(const std::string& path) {
    const std::lock_guard lock(mutex_);
    return loads_[path];
  }
  ModelConfig Config(const std::string& name, VersionPolicy policy = {}) {
    ModelConfig config;
    config.name = name;
    config.base_path = "/" + name;
    config.policy = std::move(policy);
    return config;
  }
  absl::Status Set(const std::vector<ModelConfig>& models,
                   milliseconds timeout = milliseconds(10000)) {
    return manager_->SetModels(models, timeout);
  }
  std::set<std::int64_t> Serving(const std::string& model) {
    std::set<std::int64_t> out;
    const auto snapshot = directory_.Get();
    if (const auto it = snapshot->models.find(model); it != snapshot->models.end()) {
      for (const auto& [version, servable] : it->second.versions) out.insert(version);
    }
    return out;
  }
  template <typename Condition>
  bool Eventually(const Condition& condition) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (!condition()) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      std::this_thread::yield();
    }
    return true;
  }
  VersionState StateOf(const std::string& model, std::int64_t version) {
    const auto versions = manager_->Status(model);
    if (versions.ok()) {
      for (const VersionStatus& v : *versions) {
        if (v.version == version) return v.state;
      }
    }
    return VersionState{};
  }

  ManagerOptions options_;
  FakeStorage storage_;
  ServableDirectory directory_;
  std::promise<void> release_;
  std::shared_future<void> released_ = release_.get_future().share();
  std::mutex mutex_;
  std::map<std::string, int> loads_;
  std::unique_ptr<ModelManager> manager_;
};

TEST_F(ManagerTest, SetModelsReturnsWhenWhatIsThereServes) {
  storage_.Put("/a", 1);
  storage_.Put("/a", 2);
  Start();
  EXPECT_EQ(Set({Config("a")}), absl::OkStatus());
  EXPECT_THAT(Serving("a"), ElementsAre(2));
  EXPECT_EQ(loads("/a/1"), 0);
  EXPECT_TRUE(manager_->NotReady().empty());
}

TEST_F(ManagerTest, AVersionIsUnloadedOnlyWhenItsLastRequestHasEnded) {
  storage_.Put("/a", 1);
  Start();
  ASSERT_TRUE(Set({Config("a")}).ok());
  std::shared_ptr<Servable> in_use = *directory_.Get()->Find("a", std::nullopt, "");
  std::weak_ptr<Servable> watched = in_use;
  storage_.Put("/a", 2);
  ASSERT_TRUE(Eventually([&] { return Serving("a") == std::set<std::int64_t>{2}; }));
  EXPECT_EQ(StateOf("a", 1), VersionState::kUnloading);
  const int seen = storage_.listings("/a");
  ASSERT_TRUE(Eventually([&] { return storage_.listings("/a") > seen + 3; }));
  EXPECT_EQ(StateOf("a", 1), VersionState::kUnloading);
  in_use.reset();
  ASSERT_TRUE(Eventually([&] { return StateOf("a", 1) == VersionState::kEnd; }));
  EXPECT_TRUE(watched.expired());
}

TEST_F(ManagerTest, OneModelDoesNotHoldUpAnother) {
  storage_.Put("/bad", 1, "bad");
  storage_.Put("/good", 1);
  Start();
  const absl::Status status = Set({Config("missing"), Config("bad"), Config("good")});
  EXPECT_EQ(status.code(), absl::StatusCode::kUnknown);
  EXPECT_THAT(std::string(ToStd(status.message())), HasSubstr("{bad, missing}"));
  EXPECT_THAT(Serving("good"), ElementsAre(1));
  const auto not_ready = manager_->NotReady();
  EXPECT_THAT(not_ready, Contains(Pair("bad", HasSubstr("checksum"))));
  EXPECT_THAT(not_ready, Contains(Pair("missing", HasSubstr("is not there"))));
  EXPECT_EQ(not_ready.size(), 2);
  storage_.Put("/missing", 1);
  EXPECT_TRUE(Eventually([&] { return Serving("missing").contains(1); }));
}

TEST_F(ManagerTest, StorageThatFailsOrIsEmptyUnloadsNothing) {
  storage_.Put("/a", 1);
  Start();
  ASSERT_TRUE(Set({Config("a")}).ok());
  const auto unharmed = [&] {
    const int seen = storage_.listings("/a");
    EXPECT_TRUE(Eventually([&] { return storage_.listings("/a") > seen + 3; }));
    EXPECT_THAT(Serving("a"), ElementsAre(1));
    EXPECT_EQ(StateOf("a", 1), VersionState::kAvailable);
  };
  storage_.Break(absl::UnavailableError("stale file handle"));
  unharmed();
  storage_.Break(absl::OkStatus());
  storage_.Remove("/a", 1);
  unharmed();
  storage_.Put("/a", 2);
  EXPECT_TRUE(Eventually([&] { return Serving("a") == std::set<std::int64_t>{2}; }));
}

TEST_F(ManagerTest, AFailedVersionIsRetriedAsOftenAsAllowedAndWhenItsFilesChange) {
  options_.max_load_retries = 2;
  storage_.Put("/a", 1);
  storage_.Put("/a", 2, "bad");
  Start();
  ASSERT_TRUE(Set({Config("a")}).ok() || !Serving("a").empty() ||
              Eventually([&] { return Serving("a").contains(1); }));
  ASSERT_TRUE(Eventually([&] { return loads("/a/2") == 3; }));
  const int seen = storage_.listings("/a");
  ASSERT_TRUE(Eventually([&] { return storage_.listings("/a") > seen + 10; }));
  EXPECT_EQ(loads("/a/2"), 3);
  EXPECT_THAT(Serving("a"), ElementsAre(1));
  storage_.Put("/a", 2, "mended");
  EXPECT_TRUE(Eventually([&] { return Serving("a") == std::set<std::int64_t>{2}; }));
}

// A warm-up without end, at the start: the others are served, and its label waits for it.
TEST_F(ManagerTest, ALoadWithoutEndIsNotWaitedForOnceAnotherModelServes) {
  constexpr std::chrono::hours kNever{1};
  storage_.Put("/a", 1);
  storage_.Put("/slow", 1, "slow");
  storage_.Put("/slow", 2, "slow");
  Start();
  ModelConfig slow = Config("slow");
  slow.labels["stable"] = 2;
  auto alone = std::async(std::launch::async,
                          [&] { return manager_->SetModels({slow}, kNever, milliseconds(1)); });
  ASSERT_TRUE(Eventually([&] { return storage_.listings("/slow") > 10 && loads("/slow/2") == 1; }));
  EXPECT_EQ(alone.wait_for(milliseconds(0)), std::future_status::timeout);
  release_.set_value();
  EXPECT_TRUE(alone.get().ok());

  release_ = std::promise<void>();
  released_ = release_.get_future().share();
  storage_.Put("/slower", 1, "slow");
  ModelConfig slower = Config("slower");
  slower.labels["stable"] = 1;
  ASSERT_EQ(manager_->SetModels({Config("a"), slower}, kNever, milliseconds(50)),
            absl::UnknownError("Some models did not become available: {slower}"));
  EXPECT_THAT(Serving("a"), ElementsAre(1));
  release_.set_value();
  ASSERT_TRUE(Eventually([&] { return !Serving("slower").empty(); }));
  EXPECT_EQ(directory_.Get()->models.at("slower").labels.at("stable"), 1);
  release_ = std::promise<void>();
}

TEST_F(ManagerTest, AnIncompleteVersionShowsAsStartWithWhatIsMissing) {
  storage_.Put("/a", 1);
  storage_.Put("/a", 2, "half");
  Start();
  ASSERT_TRUE(Set({Config("a")}).ok());
  const auto versions = manager_->Status("a").value();
  ASSERT_EQ(versions.size(), 2);
  EXPECT_EQ(versions[0].version, 2);
  EXPECT_EQ(versions[0].state, VersionState::kStart);
  EXPECT_THAT(std::string(ToStd(versions[0].status.message())), HasSubstr("a shard is missing"));
  EXPECT_EQ(loads("/a/2"), 0);
}

TEST_F(ManagerTest, ASlowLoadDoesNotHoldUpAnotherModel) {
  storage_.Put("/slow", 1, "slow");
  storage_.Put("/a", 1);
  Start();
  const absl::Status status = Set({Config("slow"), Config("a")}, milliseconds(300));
  EXPECT_THAT(std::string(ToStd(status.message())), HasSubstr("{slow}"));
  EXPECT_THAT(Serving("a"), ElementsAre(1));
  EXPECT_EQ(StateOf("slow", 1), VersionState::kLoading);
}

TEST_F(ManagerTest, ARemovedModelIsUnloadedAndForgotten) {
  storage_.Put("/a", 1);
  storage_.Put("/b", 1);
  Start();
  ASSERT_TRUE(Set({Config("a"), Config("b")}).ok());
  ASSERT_TRUE(Set({Config("b")}).ok());
  EXPECT_TRUE(Serving("a").empty());
  EXPECT_TRUE(Eventually(
      [&] { return manager_->Status("a").status().code() == absl::StatusCode::kNotFound; }));
  EXPECT_EQ(manager_->Status("a").status().message(), "Could not find any versions of model a");
  ASSERT_TRUE(Set({Config("a"), Config("b")}).ok());
  EXPECT_THAT(Serving("a"), ElementsAre(1));
}

TEST_F(ManagerTest, AModelTwiceIsRefusedAndChangesNothing) {
  storage_.Put("/a", 1);
  Start();
  ASSERT_TRUE(Set({Config("a")}).ok());
  EXPECT_EQ(Set({Config("b"), Config("b")}).message(),
            "Illegal to list model b multiple times in config list");
  EXPECT_EQ(manager_->Models().size(), 1);
  EXPECT_THAT(Serving("a"), ElementsAre(1));
}

TEST_F(ManagerTest, OnlyTheLastEndedVersionsAreRemembered) {
  storage_.Put("/a", 1);
  Start();
  ASSERT_TRUE(Set({Config("a")}).ok());
  const auto last = static_cast<std::int64_t>(kMaxEndedVersions) + 5;
  for (std::int64_t version = 2; version <= last; ++version) {
    storage_.Put("/a", version);
    storage_.Remove("/a", version - 2);
    ASSERT_TRUE(Eventually([&] {
      return Serving("a") == std::set<std::int64_t>{version} &&
             StateOf("a", version - 1) == VersionState::kEnd;
    })) << version;
  }
  EXPECT_EQ(manager_->Status("a").value().size(), kMaxEndedVersions + 1);
}

}  // namespace
}  // namespace takt::serving
