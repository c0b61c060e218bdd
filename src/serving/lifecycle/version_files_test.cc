#include "serving/lifecycle/version_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "base/fs.h"
#include "base/tfrecord.h"
#include "tensorflow/core/protobuf/saved_model.pb.h"
#include "tensorflow/core/protobuf/tensor_bundle.pb.h"

namespace takt::serving {
namespace {

using testing::HasSubstr;

void Write(const std::string& path, std::string_view content) {
  ASSERT_TRUE(WriteFileAtomic(path, content).ok()) << path;
}

void AppendVarint(std::uint64_t value, std::string* out) {
  for (; value >= 0x80; value >>= 7) out->push_back(static_cast<char>(value | 0x80));
  out->push_back(static_cast<char>(value));
}

// One block of a sorted table: entries without shared prefixes, one restart, type 0, checksum.
std::string Block(const std::vector<std::pair<std::string, std::string>>& entries) {
  std::string block;
  for (const auto& [key, value] : entries) {
    AppendVarint(0, &block);
    AppendVarint(key.size(), &block);
    AppendVarint(value.size(), &block);
    block += key + value;
  }
  block += std::string(4, '\0') + std::string("\1\0\0\0", 4);
  block.push_back('\0');
  const std::uint32_t crc = Crc32c(block);
  const std::uint32_t masked = ((crc >> 15) | (crc << 17)) + 0xa282ead8u;
  block.append(reinterpret_cast<const char*>(&masked), 4);
  return block;
}

std::string Place(std::uint64_t offset, std::uint64_t size) {
  std::string place;
  AppendVarint(offset, &place);
  AppendVarint(size, &place);
  return place;
}

// The index of a bundle whose entries end at `ends`, one for each shard.
std::string Index(const std::vector<std::int64_t>& ends) {
  tensorflow::BundleHeaderProto header;
  header.set_num_shards(static_cast<int>(ends.size()));
  std::vector<std::pair<std::string, std::string>> entries = {{"", header.SerializeAsString()}};
  for (std::size_t i = 0; i < ends.size(); ++i) {
    tensorflow::BundleEntryProto entry;
    entry.set_shard_id(static_cast<int>(i));
    entry.set_offset(ends[i] / 2);
    entry.set_size(ends[i] - ends[i] / 2);
    entries.emplace_back("variable" + std::to_string(i), entry.SerializeAsString());
  }
  const std::string data = Block(entries);
  const std::string index = Block({{"z", Place(0, data.size() - 5)}});
  std::string footer = Place(0, 0) + Place(data.size(), index.size() - 5);
  footer.resize(40);
  const std::uint64_t magic = 0xdb4775248b80fb57u;
  footer.append(reinterpret_cast<const char*>(&magic), 8);
  return data + index + footer;
}

std::string Graph(bool with_variable) {
  tensorflow::SavedModel model;
  auto* node = model.add_meta_graphs()->mutable_graph_def()->add_node();
  node->set_name("n");
  node->set_op(with_variable ? "VarHandleOp" : "Placeholder");
  return model.SerializeAsString();
}

class VersionFilesTest : public testing::Test {
 protected:
  void SetUp() override {
    Write(At("saved_model.pb"), Graph(true));
    ASSERT_TRUE(MakeDirs(At("variables")).ok());
    Write(At("variables/variables.index"), Index({10, 7}));
    Write(At("variables/variables.data-00000-of-00002"), "0123456789");
    Write(At("variables/variables.data-00001-of-00002"), "0123456");
  }
  std::string At(const std::string& file) { return JoinPath(dir_.path(), file); }
  std::string Missing() {
    const absl::Status status = CheckVersionComplete(dir_.path());
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
    return std::string(ToStd(status.message()));
  }
  TempDir dir_;
};

TEST_F(VersionFilesTest, AWholeVersionIsComplete) {
  EXPECT_EQ(CheckVersionComplete(dir_.path()), absl::OkStatus());
}

TEST_F(VersionFilesTest, EachFileThatIsMissingOrShortIsNamed) {
  const struct {
    const char* file;
    std::string content;
    bool remove;
    const char* says;
  } cases[] = {
      {"saved_model.pb", "", true, "saved_model.pb: missing"},
      {"saved_model.pb", Graph(true).substr(0, 3), false, "not a whole graph"},
      {"saved_model.pb", "", false, "its 0 bytes are not a whole graph"},
      {"variables/variables.index", "", true, "variables.index: missing"},
      {"variables/variables.index", "", false, "shorter than its footer"},
      {"variables/variables.index", Index({10, 7}).substr(0, 60), false, "no table mark"},
      {"variables/variables.index", "x" + Index({10, 7}).substr(1), false, "checksum"},
      {"variables/variables.data-00001-of-00002", "", true, "missing, expected 7 bytes"},
      {"variables/variables.data-00001-of-00002", "012345", false, "expected 7 bytes, got 6"},
      {"variables/variables.data-00000-of-00002", "0123456789+", false,
       "expected 10 bytes, got 11"},
  };
  for (const auto& c : cases) {
    SetUp();
    if (c.remove) {
      ASSERT_TRUE(RemoveAll(At(c.file)).ok());
    } else {
      Write(At(c.file), c.content);
    }
    EXPECT_THAT(Missing(), HasSubstr(c.says)) << c.file;
    ASSERT_TRUE(RemoveAll(At(c.file)).ok());
  }
}

// A copy that has made the directory but not its files looks like a model without variables, were
// it not for the graph.
TEST_F(VersionFilesTest, AGraphWithVariablesNeedsThem) {
  ASSERT_TRUE(RemoveAll(At("variables")).ok());
  EXPECT_THAT(Missing(), HasSubstr("variables.index: missing"));
  ASSERT_TRUE(MakeDirs(At("variables")).ok());
  EXPECT_THAT(Missing(), HasSubstr("variables.index: missing"));
  Write(At("saved_model.pb"), Graph(false));
  EXPECT_EQ(CheckVersionComplete(dir_.path()), absl::OkStatus());
}

TEST_F(VersionFilesTest, AManifestDecidesWhereThereIsOne) {
  Write(At("manifest.json"), R"({"files": [{"path": "saved_model.pb", "bytes": 1}]})");
  EXPECT_THAT(Missing(), HasSubstr("expected 1 bytes"));
  Write(At("manifest.json"), R"({"files": [{"path": "variables/variables.data-00001-of-00002",
                                            "bytes": 7}]})");
  EXPECT_EQ(CheckVersionComplete(dir_.path()), absl::OkStatus());
  Write(At("manifest.json"), R"({"files": [{"path")");
  EXPECT_THAT(Missing(), HasSubstr("not a whole manifest"));
  Write(At("manifest.json"), R"({"files": [{"path": "saved_model.pb"}]})");
  EXPECT_THAT(Missing(), HasSubstr(R"(needs a "path" and its "bytes")"));
}

TEST_F(VersionFilesTest, TheFingerprintFollowsEveryChange) {
  const VersionFingerprint before = FingerprintVersion(dir_.path()).value();
  EXPECT_EQ(FingerprintVersion(dir_.path()).value(), before);
  Write(At("variables/variables.data-00001-of-00002"), "0123457");
  const VersionFingerprint rewritten = FingerprintVersion(dir_.path()).value();
  EXPECT_FALSE(rewritten == before);
  Write(At("assets"), "");
  EXPECT_FALSE(FingerprintVersion(dir_.path()).value() == rewritten);
  EXPECT_EQ(FingerprintVersion(At("nowhere")).status().code(), absl::StatusCode::kNotFound);
}

TEST_F(VersionFilesTest, TooManyFilesAreRefused) {
  for (std::size_t i = 0; i <= kMaxVersionFiles; ++i) {
    std::fclose(std::fopen(At("f" + std::to_string(i)).c_str(), "w"));
  }
  EXPECT_EQ(FingerprintVersion(dir_.path()).status().code(), absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace takt::serving
