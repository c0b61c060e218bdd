#include "storage/volumes.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "base/fs.h"

namespace takt::storage {
namespace {

using ::testing::HasSubstr;

class Volumes : public ::testing::Test {
 protected:
  Volumes() { Reopen(); }
  void Reopen() {
    auto store = VolumeStore::Open(data());
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = std::move(*store);
  }
  std::string data() const { return JoinPath(dir_.path(), "data"); }
  std::string Record(const std::string& name) const {
    return JoinPath(data(), "volumes/.records/" + name + ".json");
  }
  std::vector<std::string> Names() {
    std::vector<std::string> names;
    for (const Volume& volume : store_->List()) names.push_back(volume.name);
    return names;
  }

  TempDir dir_;
  std::unique_ptr<VolumeStore> store_;
};

TEST_F(Volumes, AreDirectoriesOfTheDaemonAndOutliveIt) {
  auto volume = store_->Create("mnist_model", "", {});
  ASSERT_TRUE(volume.ok()) << volume.status();
  EXPECT_EQ(volume->driver, "local");
  EXPECT_EQ(volume->host_path, JoinPath(data(), "volumes/mnist_model"));
  EXPECT_TRUE(IsDirectory(volume->host_path));
  EXPECT_FALSE(volume->created_at.empty());
  Reopen();
  EXPECT_EQ(store_->Get("mnist_model")->created_at, volume->created_at);
  EXPECT_TRUE(store_->Ready("mnist_model").ok());
}

TEST_F(Volumes, AreRemovedWithTheirContentButADeviceStays) {
  std::string device = JoinPath(dir_.path(), "nas");
  ASSERT_TRUE(MakeDirs(device).ok());
  ASSERT_TRUE(WriteFileAtomic(JoinPath(device, "f"), "x").ok());
  ASSERT_TRUE(store_->Create("nas", "local", {{"device", device}}).ok());
  ASSERT_TRUE(store_->Create("own", "local", {}).ok());
  ASSERT_TRUE(WriteFileAtomic(JoinPath(*store_->Resolve("own", "a/b"), "f"), "x").ok());
  EXPECT_TRUE(store_->Remove("nas").ok());
  EXPECT_TRUE(store_->Remove("own").ok());
  EXPECT_EQ(Names(), std::vector<std::string>{});
  EXPECT_TRUE(Exists(JoinPath(device, "f")));
  EXPECT_FALSE(Exists(JoinPath(data(), "volumes/own")));
  EXPECT_EQ(store_->Remove("own").code(), absl::StatusCode::kNotFound);
}

TEST_F(Volumes, RefuseWhatTheyCannotBeAndLeaveNothingBehind) {
  std::string file = JoinPath(dir_.path(), "file");
  ASSERT_TRUE(WriteFileAtomic(file, "x").ok());
  ASSERT_TRUE(store_->Create("taken", "local", {}).ok());
  struct Case {
    std::string name, driver;
    std::map<std::string, std::string> options;
    absl::StatusCode code;
    std::string says;
  };
  const Case kCases[] = {
      {"../x", "local", {}, absl::StatusCode::kInvalidArgument, "\"../x\""},
      {"", "local", {}, absl::StatusCode::kInvalidArgument, "expected a name"},
      {".records", "local", {}, absl::StatusCode::kInvalidArgument, "expected a name"},
      {std::string(64, 'a'), "local", {}, absl::StatusCode::kInvalidArgument, "1 to 63"},
      {"taken", "local", {}, absl::StatusCode::kAlreadyExists, "exists already"},
      {"v", "nfs", {}, absl::StatusCode::kUnimplemented, "the embedded runtime has no driver"},
      {"v", "s3", {}, absl::StatusCode::kUnimplemented, "the embedded runtime has no driver"},
      {"v", "glusterfs", {}, absl::StatusCode::kUnimplemented, "only \"local\""},
      {"v", "local", {{"devise", "/"}}, absl::StatusCode::kInvalidArgument, "got devise"},
      {"v", "local", {{"device", "a"}}, absl::StatusCode::kInvalidArgument, "absolute"},
      {"v", "local", {{"device", file}}, absl::StatusCode::kInvalidArgument, "directory"},
      {"v", "local", {{"device", "/"}}, absl::StatusCode::kInvalidArgument, "data directory"},
      {"v", "local", {{"device", dir_.path() + "/no"}}, absl::StatusCode::kNotFound, "not there"},
  };
  for (const Case& c : kCases) {
    absl::Status status = store_->Create(c.name, c.driver, c.options).status();
    EXPECT_EQ(status.code(), c.code) << c.name << " " << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(c.says));
  }
  EXPECT_EQ(Names(), std::vector<std::string>{"taken"});
  EXPECT_EQ(ListDir(JoinPath(data(), "volumes")).value(),
            (std::vector<std::string>{".records", "taken"}));
}

TEST_F(Volumes, ResolveStaysInside) {
  auto volume = store_->Create("v", "local", {});
  std::string outside = JoinPath(dir_.path(), "outside");
  ASSERT_TRUE(MakeDirs(outside).ok());
  std::string root = volume->host_path;
  ASSERT_EQ(::symlink(outside.c_str(), JoinPath(root, "out").c_str()), 0);
  ASSERT_EQ(::symlink("../..", JoinPath(root, "up").c_str()), 0);
  ASSERT_EQ(::symlink("nowhere", JoinPath(root, "dangling").c_str()), 0);
  ASSERT_EQ(::symlink("real", JoinPath(root, "inside").c_str()), 0);
  ASSERT_TRUE(MakeDirs(JoinPath(root, "real")).ok());
  ASSERT_TRUE(WriteFileAtomic(JoinPath(root, "file"), "x").ok());

  EXPECT_EQ(store_->Resolve("v", "").value(), root);
  EXPECT_EQ(store_->Resolve("v", "a//b/./c").value(), JoinPath(root, "a/b/c"));
  EXPECT_TRUE(IsDirectory(JoinPath(root, "a/b/c")));
  EXPECT_EQ(store_->Resolve("v", "inside/x").value(), JoinPath(root, "real/x"));
  for (const std::string& bad :
       {std::string("../x"), std::string("a/../../x"), std::string("a/.."), std::string("/etc"),
        std::string("out"), std::string("out/new"), std::string("up"), std::string("dangling"),
        std::string("dangling/x"), std::string("file"), std::string("file/x"),
        std::string("a\0b", 3), std::string(kMaxSubdirectoryBytes + 1, 'a')}) {
    EXPECT_EQ(store_->Resolve("v", bad).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
  EXPECT_EQ(ListDir(outside).value(), std::vector<std::string>{}) << "nothing was made outside";
  EXPECT_EQ(store_->Resolve("w", "").status().code(), absl::StatusCode::kNotFound);
}

TEST_F(Volumes, SayWhyTheyAreNotReady) {
  std::string device = JoinPath(dir_.path(), "nas");
  ASSERT_TRUE(MakeDirs(device).ok());
  ASSERT_TRUE(store_->Create("nas", "local", {{"device", device}}).ok());
  EXPECT_TRUE(store_->Ready("nas").ok());
  ASSERT_TRUE(RemoveAll(device).ok());
  EXPECT_EQ(store_->Ready("nas"), absl::UnavailableError(device + " is not mounted"));
  EXPECT_EQ(store_->Resolve("nas", "x").status(),
            absl::UnavailableError(device + " is not mounted"));
  EXPECT_FALSE(Exists(device)) << "a missing device is never made";
  ASSERT_TRUE(MakeDirs(device).ok());
  EXPECT_TRUE(store_->Ready("nas").ok()) << "it came back";
  EXPECT_EQ(store_->Ready("no").code(), absl::StatusCode::kNotFound);
}

TEST_F(Volumes, ADeviceThatWasAMountPointIsMissedWhenItIsOnlyADirectory) {
  ASSERT_TRUE(store_->Create("proc", "local", {{"device", "/proc"}}).ok());
  EXPECT_TRUE(store_->Ready("proc").ok());
  // The same record, of a directory where nothing is mounted now.
  std::string device = JoinPath(dir_.path(), "nas");
  ASSERT_TRUE(MakeDirs(device).ok());
  std::string text = ReadFile(Record("proc"), 10'000).value();
  text.replace(text.find("/proc"), 5, device);
  ASSERT_TRUE(WriteFileAtomic(Record("proc"), text).ok());
  Reopen();
  EXPECT_EQ(store_->Ready("proc"), absl::UnavailableError(device + " is not mounted"));
}

TEST_F(Volumes, ACorruptRecordHarmsOnlyItsVolumeAndIsKept) {
  ASSERT_TRUE(store_->Create("good", "local", {}).ok());
  for (const char* text : {"", "{", "[]", "{\"name\": \"other\", \"driver\": \"local\"}",
                           "{\"name\": \"bad\", \"driver\": \"local\", \"options\": {\"a\": 1}}"}) {
    ASSERT_TRUE(WriteFileAtomic(Record("bad"), text).ok());
    Reopen();
    EXPECT_EQ(Names(), std::vector<std::string>{"good"});
    for (const absl::Status& status :
         {store_->Get("bad").status(), store_->Ready("bad"), store_->Resolve("bad", "").status(),
          store_->Create("bad", "local", {}).status(), store_->Remove("bad")}) {
      EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << text;
      EXPECT_THAT(std::string(status.message()), HasSubstr(Record("bad")));
    }
    EXPECT_EQ(ReadFile(Record("bad"), 1000).value(), text);
  }
}

TEST_F(Volumes, WhatADeathInMidWriteLeftIsIgnoredAndSweptLater) {
  ASSERT_TRUE(store_->Create("v", "local", {}).ok());
  std::string leftover = Record("w") + ".tmp-abcdefgh";
  ASSERT_TRUE(WriteFileAtomic(leftover, "{\"na").ok());
  ASSERT_TRUE(MakeDirs(JoinPath(data(), "volumes/.trash/x-12345678")).ok());
  Reopen();
  EXPECT_EQ(Names(), std::vector<std::string>{"v"});
  EXPECT_TRUE(Exists(leftover)) << "opening alone touches nothing: another daemon may write";
  ASSERT_TRUE(store_->Create("w", "local", {}).ok());
  EXPECT_FALSE(Exists(leftover));
  EXPECT_FALSE(Exists(JoinPath(data(), "volumes/.trash")));
}

TEST_F(Volumes, KilledAtAnyMomentAVolumeIsThereWholeOrNotAtAll) {
  for (int round = 0; round < 20; ++round) {
    int ready[2];
    ASSERT_EQ(::pipe(ready), 0);
    pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      auto store = VolumeStore::Open(data());
      for (int i = 0;; ++i) {
        std::string name = "k" + std::to_string(i % 7);
        (void)(*store)->Create(name, "local", {});
        (void)(*store)->Remove(name);
        if (i == round * 3) (void)!::write(ready[1], "x", 1);
      }
    }
    char byte;
    ASSERT_EQ(::read(ready[0], &byte, 1), 1);
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    ::close(ready[0]);
    ::close(ready[1]);
    Reopen();
    for (const Volume& volume : store_->List()) {
      EXPECT_TRUE(store_->Resolve(volume.name, "").ok()) << volume.name;
      EXPECT_TRUE(store_->Remove(volume.name).ok());
    }
    for (int i = 0; i < 7; ++i) {
      EXPECT_EQ(store_->Get("k" + std::to_string(i)).status().code(), absl::StatusCode::kNotFound);
    }
  }
}

TEST_F(Volumes, AFullDiskIsAnErrorWithoutATrace) {
  pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    // No file may grow: every write fails as on a full disk.
    ::signal(SIGXFSZ, SIG_IGN);
    struct rlimit limit {
      0, 0
    };
    ::setrlimit(RLIMIT_FSIZE, &limit);
    ::_exit(store_->Create("v", "local", {}).ok() ? 1 : 0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  EXPECT_EQ(ListDir(JoinPath(data(), "volumes")).value(), std::vector<std::string>{".records"});
  EXPECT_EQ(ListDir(JoinPath(data(), "volumes/.records")).value(), std::vector<std::string>{});
}

TEST_F(Volumes, HaveALimit) {
  for (std::size_t i = 0; i < kMaxVolumes; ++i) {
    std::string name = "v" + std::to_string(i);
    ASSERT_TRUE(WriteFileAtomic(Record(name), "{\"name\": \"" + name +
                                                  "\", \"driver\": \"local\", \"options\": {}}")
                    .ok());
  }
  Reopen();
  EXPECT_EQ(Names().size(), kMaxVolumes);
  EXPECT_EQ(store_->Create("one_more", "local", {}).status().code(),
            absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace takt::storage
