#include "runtime/embedded/images.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/fs.h"

namespace takt::runtime {
namespace {

using testing::HasSubstr;

TEST(ImageMatchesTest, NamesAreMatchedAsPeopleMeanThem) {
  struct Case {
    const char *pattern, *name;
    bool matches;
  };
  const Case cases[] = {
      {"takt/host", "takt/host", true},
      {"takt/host", "Takt/Host:1.2", true},
      {"takt/host", "takt/hosts", false},
      {"denverdino/tensorflow-serving",
       "registry-vpc.cn-hangzhou.aliyuncs.com/denverdino/tensorFlow-serving", true},
      {"denverdino/tensorflow-serving", "localhost:5000/denverdino/tensorflow-serving:x", true},
      {"denverdino/tensorflow-serving", "someone/denverdino/tensorflow-serving", false},
      {"tensorflow/serving", "tensorflow/serving@sha256:abc", true},
      {"python:3.11", "python:3.11", true},
      {"python:3.11", "python:2.7", false},
      {"python:3.11", "python", false},
      {"python:latest", "python", true},
      {"python:latest", "docker.io/library/python", true},
      {"python:3.11-*", "python:3.11-slim", true},
      {"team/*", "team/anything", true},
      {"team/*", "team/any/thing", false},
      {"registry.local/*", "registry.local/x", true},
  };
  for (const Case& c : cases) {
    EXPECT_EQ(ImageMatches(c.pattern, c.name), c.matches) << c.pattern << " " << c.name;
  }
}

TEST(ParseImagesTest, ErrorsNameFileEntryExpectedAndGot) {
  const std::pair<const char*, const char*> cases[] = {
      {"{", "f.json is not JSON"},
      {"[]", "f.json: expected {\"images\": [...]} and nothing else"},
      {R"({"images": [1]})", "f.json: images[0]: expected an object, got 1"},
      {R"({"images": [{"names": ["a"], "comand": []}]})",
       "f.json: images[0]: unknown key \"comand\", did you mean \"command\"?"},
      {R"({"images": [{"root": "host"}]})", "f.json: images[0]: expected \"names\", got none"},
      {R"({"images": [{"names": ["a"]}, {"names": "b"}]})",
       "f.json: images[1].names: expected a list of texts, got \"b\""},
      {R"({"images": [{"names": ["a"], "environment": {"A": 1}}]})",
       "f.json: images[0].environment.A: expected a text, got 1"},
      {R"({"images": [{"names": ["a"], "programs": {"/x": 1}}]})",
       "f.json: images[0].programs./x: expected a path or {\"file\", \"role\"}, got 1"},
      {R"({"images": [{"names": ["a"], "working_dir": "x"}]})",
       "f.json: images[0]: expected an absolute path, got \"x\""},
  };
  for (const auto& [text, message] : cases) {
    const auto images = ParseImages(text, "f.json", "/p");
    EXPECT_EQ(images.status().code(), absl::StatusCode::kFailedPrecondition) << text;
    EXPECT_EQ(std::string(images.status().message()), message);
  }
}

class CatalogueTest : public testing::Test {
 protected:
  CatalogueTest() : prefix_(JoinPath(dir_.path(), "prefix")), data_(JoinPath(dir_.path(), "data")) {
    EXPECT_TRUE(MakeDirs(prefix_ + "/share/takt").ok());
    EXPECT_TRUE(MakeDirs(prefix_ + "/bin").ok());
    EXPECT_TRUE(MakeDirs(data_).ok());
    Write(prefix_ + "/bin/server", "program");
    Write(prefix_ + "/share/takt/images.json",
          R"({"images": [{"names": ["takt/host"]},
              {"names": ["a/server"], "role": "serving",
               "programs": {"/Opt/Server": "bin/server", "server": "bin/server"}}]})");
  }
  void Write(const std::string& path, const std::string& text) {
    ASSERT_TRUE(WriteFileAtomic(path, text).ok());
  }

  TempDir dir_;
  std::string prefix_, data_;
};

TEST_F(CatalogueTest, PathsStartAtThePrefixAndProgramsAreFoundWithoutRegardToCase) {
  ImageCatalogue catalogue(prefix_, data_);
  const auto image = catalogue.Find("registry.example.com/A/Server:3");
  ASSERT_TRUE(image.ok()) << image.status();
  EXPECT_EQ(image->role, "serving");
  ASSERT_NE(FindProgram(*image, "/opt/sERVER"), nullptr);
  EXPECT_EQ(FindProgram(*image, "/opt/server")->file, prefix_ + "/bin/server");
  EXPECT_NE(FindProgram(*image, "server"), nullptr);
  EXPECT_EQ(FindProgram(*image, "Server"), nullptr) << "a bare name is a name";
  EXPECT_EQ(FindProgram(*image, "/opt/server2"), nullptr);
}

TEST_F(CatalogueTest, AnUnknownImageSaysHowToAddIt) {
  ImageCatalogue catalogue(prefix_, data_);
  const absl::Status status = catalogue.Find("nobody/knows:1").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  const std::string message(status.message());
  EXPECT_THAT(message, HasSubstr("\"nobody/knows:1\""));
  EXPECT_THAT(message, HasSubstr(data_ + "/images.json"));
  EXPECT_THAT(message, HasSubstr("the docker runtime pulls images"));
  // The example in the message is one that works.
  const std::size_t from = message.find("{\"images\""), to = message.find("]}", from);
  Write(data_ + "/images.json", message.substr(from, to + 2 - from));
  EXPECT_TRUE(catalogue.Find("nobody/knows:1").ok()) << message.substr(from, to + 2 - from);
}

TEST_F(CatalogueTest, TheUsersEntriesComeFirstAndAreReadAgainWhenTheyChange) {
  ImageCatalogue catalogue(prefix_, data_);
  EXPECT_EQ(catalogue.List()->size(), 2u);
  Write(data_ + "/images.json", R"({"images": [{"names": ["a/*"], "role": "client"}]})");
  EXPECT_EQ(catalogue.Find("a/server")->role, "client");
  EXPECT_EQ(catalogue.List()->size(), 3u);
  Write(data_ + "/images.json", R"({"images": [{"names": ["a/*"], "rolle": "client"}]})");
  EXPECT_THAT(std::string(catalogue.Find("takt/host").status().message()),
              HasSubstr("images.json: images[0]: unknown key \"rolle\", did you mean \"role\"?"));
  ASSERT_TRUE(RemoveAll(data_ + "/images.json").ok());
  EXPECT_EQ(catalogue.Find("a/server")->role, "serving");
  Write(data_ + "/images.json", std::string(kMaxCatalogueBytes + 1, ' '));
  EXPECT_EQ(catalogue.List().status().code(), absl::StatusCode::kResourceExhausted);
}

TEST_F(CatalogueTest, WhatIsMissingOnDiskIsNamed) {
  ImageCatalogue catalogue(prefix_, data_);
  ASSERT_TRUE(RemoveAll(prefix_ + "/bin/server").ok());
  const absl::Status status = catalogue.Find("a/server").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(status.message()), HasSubstr("needs " + prefix_ + "/bin/server"));
  Write(data_ + "/images.json", R"({"images": [{"names": ["b"], "root": "/no/such/root"}]})");
  EXPECT_EQ(catalogue.Find("b").status().code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(CatalogueTest, TheDigestCoversEntryAndPrograms) {
  ImageCatalogue catalogue(prefix_, data_);
  const auto digest = [&](const std::string& name) {
    const auto image = catalogue.Find(name);
    EXPECT_TRUE(image.ok()) << image.status();
    return catalogue.Digest(*image).value();
  };
  const std::string first = digest("a/server");
  EXPECT_EQ(first.size(), std::string("sha256:").size() + 64);
  EXPECT_EQ(digest("a/server"), first);
  EXPECT_NE(digest("takt/host"), first);
  Write(prefix_ + "/bin/server", "another program");
  const std::string second = digest("a/server");
  EXPECT_NE(second, first);
  Write(data_ + "/images.json", R"({"images": [{"names": ["a/server"]}]})");
  EXPECT_NE(digest("a/server"), second);
}

TEST(ShippedImagesTest, TheShippedCatalogueIsGood) {
  const auto text = ReadFile(TAKT_BINARY_DIR "/share/takt/images.json", kMaxCatalogueBytes);
  ASSERT_TRUE(text.ok()) << text.status();
  const auto images = ParseImages(*text, "images.json", "/prefix");
  ASSERT_TRUE(images.ok()) << images.status();
  const auto first = [&](const std::string& name) -> const Image* {
    for (const Image& image : *images) {
      for (const std::string& pattern : image.names) {
        if (ImageMatches(pattern, name)) return &image;
      }
    }
    return nullptr;
  };
  for (const char* name :
       {"takt/host", "takt/mnist-train", "takt/mnist-client", "takt/serving", "tensorflow/serving",
        "tensorflow/serving:2.14.0", "python:3", "python:3.11-slim",
        "registry-vpc.cn-hangzhou.aliyuncs.com/denverdino/tensorFlow-serving",
        "registry-vpc.cn-hangzhou.aliyuncs.com/cheyang/mnist-export"}) {
    EXPECT_NE(first(name), nullptr) << name;
  }
  EXPECT_EQ(first("python:2.7"), nullptr);
  EXPECT_EQ(first("ubuntu"), nullptr);
  const Image* serving = first("x.com/denverdino/tensorFlow-serving");
  const ImageProgram* server = FindProgram(
      *serving, "/serving/bazel-bin/tensorFlow_serving/model_servers/tensorFlow_model_server");
  ASSERT_NE(server, nullptr);
  EXPECT_EQ(server->file, "/prefix/bin/tensorflow_model_server");
  EXPECT_EQ(server->role, "serving");
  const ImageProgram* client =
      FindProgram(*serving, "/serving/bazel-bin/tensorFlow_serving/example/mnist_client");
  ASSERT_NE(client, nullptr);
  EXPECT_EQ(client->role, "client");
}

}  // namespace
}  // namespace takt::runtime
