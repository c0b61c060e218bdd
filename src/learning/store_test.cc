#include "learning/store.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <fstream>

#include "base/fs.h"
#include "base/tfrecord.h"
#include "tensorflow/core/util/event.pb.h"

namespace takt::learning {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Pair;

// Builds event files with TensorFlow's own messages.
class EventFile {
 public:
  tensorflow::Event& Add(std::int64_t step, double wall) {
    Flush();
    event_.emplace();
    event_->set_step(step);
    event_->set_wall_time(wall);
    return *event_;
  }
  tensorflow::Summary::Value& AddValue(std::int64_t step, double wall, const std::string& tag) {
    auto* value = Add(step, wall).mutable_summary()->add_value();
    value->set_tag(tag);
    return *value;
  }
  void Scalar(std::int64_t step, double wall, const std::string& tag, float number) {
    AddValue(step, wall, tag).set_simple_value(number);
  }
  const std::string& bytes() {
    Flush();
    return bytes_;
  }

 private:
  void Flush() {
    if (event_) AppendTfRecord(event_->SerializeAsString(), bytes_);
    event_.reset();
  }
  std::optional<tensorflow::Event> event_;
  std::string bytes_;
};

class LearningStoreTest : public testing::Test {
 protected:
  LearningStoreTest() { Reopen(); }
  void Reopen() {
    store_.reset();
    auto store = LearningStore::Open(dir_.path() + "/learning.db");
    EXPECT_TRUE(store.ok()) << store.status();
    store_ = std::move(*store);
  }
  void Write(const std::string& name, std::string_view bytes, bool append = false) {
    const std::string path = source_.directory + "/" + name;
    ASSERT_TRUE(MakeDirs(path.substr(0, path.rfind('/'))).ok());
    std::ofstream(path, append ? std::ios::app | std::ios::binary : std::ios::binary) << bytes;
  }
  ScanReport Scan() {
    auto report = store_->Scan(source_);
    EXPECT_TRUE(report.ok()) << report.status();
    return report.value_or(ScanReport{});
  }
  std::vector<Point> Curve(const std::string& writer, const std::string& tag, Window window = {}) {
    auto curve = store_->Curve("mnist", "trainer", writer, tag, window);
    EXPECT_TRUE(curve.ok()) << curve.status();
    return curve.value_or(std::vector<Point>{});
  }
  std::vector<double> Values(const std::string& writer, const std::string& tag,
                             Window window = {}) {
    std::vector<double> values;
    for (const Point& p : Curve(writer, tag, window)) values.push_back(p.value);
    return values;
  }
  std::vector<Item> Items(const std::string& tag) {
    auto items = store_->Items("mnist", "trainer", "", tag, {});
    EXPECT_TRUE(items.ok()) << items.status();
    return items.value_or(std::vector<Item>{});
  }

  TempDir dir_;
  Source source_{"mnist", "trainer", dir_.path() + "/events"};
  std::unique_ptr<LearningStore> store_;
};

constexpr char kName[] = "train/events.out.tfevents.1.host";

TEST_F(LearningStoreTest, ReadsScalarsOfBothKindsAndWhoWroteThem) {
  EventFile file;
  file.Scalar(1, 100, "old", 0.5f);
  auto& value = file.AddValue(2, 101, "new");
  value.mutable_metadata()->mutable_plugin_data()->set_plugin_name("scalars");
  value.mutable_tensor()->set_dtype(tensorflow::DT_FLOAT);
  value.mutable_tensor()->add_float_val(0.25f);
  auto& content = file.AddValue(3, 102, "content");
  content.mutable_metadata()->mutable_plugin_data()->set_plugin_name("scalars");
  content.mutable_tensor()->set_dtype(tensorflow::DT_DOUBLE);
  const double number = 1e-9;
  content.mutable_tensor()->set_tensor_content(&number, sizeof(number));
  auto& integer = file.AddValue(4, 103, "integer");
  integer.mutable_tensor()->set_dtype(tensorflow::DT_INT64);
  integer.mutable_tensor()->add_int64_val(-7);
  Write(kName, file.bytes());
  EXPECT_EQ(Scan().new_values, 4u);
  EXPECT_THAT(Values("train", "old"), ElementsAre(0.5));
  EXPECT_THAT(Values("train", "new"), ElementsAre(0.25));
  EXPECT_THAT(Values("train", "content"), ElementsAre(1e-9));
  EXPECT_THAT(Values("train", "integer"), ElementsAre(-7));
  EXPECT_EQ(Curve("train", "new")[0].step, 2);
  EXPECT_EQ(Curve("train", "new")[0].wall_time, 101);
}

TEST_F(LearningStoreTest, ReadsHistogramsImagesTextsAndHyperparameters) {
  EventFile file;
  auto* old = file.AddValue(1, 100, "old").mutable_histo();
  old->set_min(-1);
  old->add_bucket_limit(0);
  old->add_bucket(3);
  old->add_bucket_limit(2);
  old->add_bucket(4);
  auto& histogram = file.AddValue(1, 100, "new");
  histogram.mutable_metadata()->mutable_plugin_data()->set_plugin_name("histograms");
  histogram.mutable_tensor()->set_dtype(tensorflow::DT_DOUBLE);
  for (const double v : {-1.0, 0.0, 3.0}) histogram.mutable_tensor()->add_double_val(v);
  file.AddValue(1, 100, "picture").mutable_image()->set_encoded_image_string("PNG");
  auto& text = file.AddValue(1, 100, "note");
  text.mutable_metadata()->mutable_plugin_data()->set_plugin_name("text");
  text.mutable_tensor()->set_dtype(tensorflow::DT_STRING);
  text.mutable_tensor()->add_string_val("hello");
  auto& hparams = file.AddValue(0, 100, "_hparams_/session_start_info");
  auto* plugin = hparams.mutable_metadata()->mutable_plugin_data();
  plugin->set_plugin_name("hparams");
  // HParamsPluginData{session_start_info{hparams{"lr": 0.01}}}
  plugin->set_content(std::string("\x1a\x11\x0a\x0f\x0a\x02lr\x12\x09\x11", 11) +
                      std::string("\x7b\x14\xae\x47\xe1\x7a\x84\x3f", 8));
  hparams.mutable_tensor()->set_dtype(tensorflow::DT_FLOAT);
  Write("events.out.tfevents.1.host", file.bytes());
  Scan();
  const auto buckets = [](const Item& item) {
    std::vector<HistogramBucket> list(item.data.size() / sizeof(HistogramBucket));
    memcpy(list.data(), item.data.data(), item.data.size());
    return list;
  };
  EXPECT_THAT(buckets(Items("old").at(0)),
              ElementsAre(HistogramBucket{-1, 0, 3}, HistogramBucket{0, 2, 4}));
  EXPECT_THAT(buckets(Items("new").at(0)), ElementsAre(HistogramBucket{-1, 0, 3}));
  EXPECT_EQ(Items("picture").at(0).data, "PNG");
  EXPECT_EQ(Items("note").at(0).data, "hello");
  EXPECT_THAT(*store_->Hyperparameters("mnist", {}), ElementsAre(Pair("lr", "0.01")));
}

TEST_F(LearningStoreTest, FollowsAFileAsItGrowsByteByByte) {
  EventFile file;
  for (int i = 0; i < 5; ++i) file.Scalar(i, 100 + i, "loss", static_cast<float>(i));
  std::size_t values = 0;
  for (const char c : file.bytes()) {
    Write(kName, {&c, 1}, true);
    values += Scan().new_values;
  }
  EXPECT_EQ(values, 5u);
  EXPECT_THAT(Values("train", "loss"), ElementsAre(0, 1, 2, 3, 4));
}

TEST_F(LearningStoreTest, GoesOnWhereItWasAfterARestartAndReadsNothingTwice) {
  EventFile file;
  for (int i = 0; i < 2000; ++i) file.Scalar(i, 100 + i, "loss", static_cast<float>(i));
  Write(kName, std::string_view(file.bytes()).substr(0, file.bytes().size() / 2));
  const std::size_t before = Scan().new_values;
  Reopen();
  EXPECT_EQ(Scan().new_values, 0u);
  Write(kName, std::string_view(file.bytes()).substr(file.bytes().size() / 2), true);
  EXPECT_EQ(before + Scan().new_values, 2000u);
  const auto values = Values("train", "loss");
  ASSERT_EQ(values.size(), 2000u);
  for (int i = 0; i < 2000; ++i) ASSERT_EQ(values[i], i);
}

TEST_F(LearningStoreTest, TellsRunsApartByTheirTime) {
  EventFile first, second;
  first.Scalar(1, 100, "loss", 1);
  second.Scalar(1, 200, "loss", 2);
  Write("events.out.tfevents.1.a", first.bytes());
  Write("events.out.tfevents.2.a", second.bytes());
  Scan();
  EXPECT_THAT(Values("", "loss", {0, 150}), ElementsAre(1));
  EXPECT_THAT(Values("", "loss", {150, 1e18}), ElementsAre(2));
}

TEST_F(LearningStoreTest, ARecordWithABadChecksumIsCountedAndPassedBy) {
  EventFile file;
  file.Scalar(1, 100, "loss", 1);
  const std::size_t one = file.bytes().size();
  file.Scalar(2, 101, "loss", 2);
  file.Scalar(3, 102, "loss", 3);
  std::string bytes = file.bytes();
  bytes[one + 20] = static_cast<char>(bytes[one + 20] ^ 1);
  Write(kName, bytes);
  Scan();
  EXPECT_THAT(Values("train", "loss"), ElementsAre(1, 3));
  EXPECT_EQ(store_->Stats("mnist", {})->corrupt_records, 1);
}

TEST_F(LearningStoreTest, SaysWhatIsNoEventFileOnce) {
  Write("events.out.tfevents.fake", "this is a text file and no event file at all");
  EXPECT_THAT(Scan().problems, ElementsAre("events.out.tfevents.fake: not an event file"));
  EXPECT_THAT(Scan().problems, IsEmpty());
}

TEST_F(LearningStoreTest, SaysWhereAFileIsDamaged) {
  EventFile file;
  file.Scalar(1, 100, "loss", 1);
  const std::size_t one = file.bytes().size();
  Write(kName, file.bytes() + std::string(64, 'x'));
  EXPECT_THAT(Scan().problems, ElementsAre(HasSubstr("damaged at byte " + std::to_string(one))));
  EXPECT_THAT(Values("train", "loss"), ElementsAre(1));
}

TEST_F(LearningStoreTest, CountsPluginsThatItDoesNotKnow) {
  EventFile file;
  auto& value = file.AddValue(1, 100, "mesh");
  value.mutable_metadata()->mutable_plugin_data()->set_plugin_name("mesh");
  value.mutable_tensor()->set_dtype(tensorflow::DT_FLOAT);
  file.Scalar(1, 100, "loss", 1);
  Write(kName, file.bytes());
  Scan();
  EXPECT_THAT(store_->Stats("mnist", {})->unknown_plugins, ElementsAre(Pair("mesh", 1)));
  EXPECT_THAT(Values("train", "loss"), ElementsAre(1));
}

TEST_F(LearningStoreTest, AFileBegunAnewKeepsWhatWasRead) {
  EventFile first, second;
  for (int i = 0; i < 10; ++i) first.Scalar(i, 100 + i, "loss", 1);
  second.Scalar(5, 200, "loss", 2);
  Write(kName, first.bytes());
  Scan();
  Write(kName, second.bytes());
  Scan();
  EXPECT_THAT(Values("train", "loss"), ElementsAre(1, 1, 1, 1, 1, 2));
}

TEST_F(LearningStoreTest, ValuesThatAreNotFiniteAreKeptAndLeftOutOfTheRange) {
  EventFile file;
  file.Scalar(1, 100, "loss", 3);
  file.Scalar(2, 101, "loss", NAN);
  file.Scalar(3, 102, "loss", INFINITY);
  Write(kName, file.bytes());
  Scan();
  const auto values = Values("train", "loss");
  ASSERT_EQ(values.size(), 3u);
  EXPECT_TRUE(std::isnan(values[1]));
  EXPECT_TRUE(std::isinf(values[2]));
  const auto list = store_->List("mnist", {});
  ASSERT_EQ(list->size(), 1u);
  EXPECT_EQ((*list)[0].min, 3);
  EXPECT_EQ((*list)[0].max, 3);
  EXPECT_EQ((*list)[0].writer, "train");
  EXPECT_EQ((*list)[0].count, 3);
}

TEST_F(LearningStoreTest, KeepsTheNewestItemsOfASeries) {
  EventFile file;
  const int total = static_cast<int>(kMaxItemsPerSeries) + 50;
  for (int i = 0; i < total; ++i) {
    file.AddValue(i, 100 + i, "picture").mutable_image()->set_encoded_image_string("PNG");
  }
  Write("events.out.tfevents.1.host", file.bytes());
  Scan();
  const auto items = Items("picture");
  ASSERT_EQ(items.size(), kMaxItemsPerSeries);
  EXPECT_EQ(items.back().step, total - 1);
}

TEST_F(LearningStoreTest, TagsBeyondTheLimitAreCounted) {
  EventFile file;
  auto& event = file.Add(1, 100);
  for (std::size_t i = 0; i < kMaxSeriesPerSource + 3; ++i) {
    auto* value = event.mutable_summary()->add_value();
    value->set_tag("tag" + std::to_string(i));
    value->set_simple_value(1);
  }
  Write(kName, file.bytes());
  EXPECT_EQ(Scan().new_values, kMaxSeriesPerSource);
  EXPECT_EQ(store_->Stats("mnist", {})->skipped_values, 3);
}

TEST_F(LearningStoreTest, AnItemLargerThanABlockIsReadAndOneOverTheLimitCounted) {
  EventFile file;
  file.AddValue(1, 100, "large")
      .mutable_image()
      ->set_encoded_image_string(std::string(3 << 20, 'p'));
  file.AddValue(2, 101, "huge")
      .mutable_image()
      ->set_encoded_image_string(std::string(kMaxItemBytes + 1, 'p'));
  file.Scalar(3, 102, "loss", 1);
  Write("events.out.tfevents.1.host", file.bytes());
  Scan();
  EXPECT_EQ(Items("large").at(0).data.size(), std::size_t{3 << 20});
  EXPECT_THAT(Items("huge"), IsEmpty());
  EXPECT_THAT(Values("", "loss"), ElementsAre(1));
  EXPECT_EQ(store_->Stats("mnist", {})->skipped_values, 1);
}

TEST_F(LearningStoreTest, ADirectoryThatIsNotThereIsNotFound) {
  EXPECT_EQ(store_->Scan({"a", "b", dir_.path() + "/none"}).status().code(),
            absl::StatusCode::kNotFound);
}

TEST_F(LearningStoreTest, DoesNotFollowLinksOutOfTheVolume) {
  EventFile file;
  file.Scalar(1, 100, "loss", 1);
  ASSERT_TRUE(MakeDirs(dir_.path() + "/secret").ok());
  ASSERT_TRUE(MakeDirs(source_.directory).ok());
  std::ofstream(dir_.path() + "/secret/events.out.tfevents.1.x", std::ios::binary) << file.bytes();
  ASSERT_EQ(symlink((dir_.path() + "/secret").c_str(), (source_.directory + "/link").c_str()), 0);
  EXPECT_EQ(Scan().files, 0u);
}

TEST_F(LearningStoreTest, ARemovedAppLeavesNothing) {
  EventFile file;
  file.Scalar(1, 100, "loss", 1);
  Write(kName, file.bytes());
  Scan();
  ASSERT_TRUE(store_->RemoveApp("mnist").ok());
  EXPECT_THAT(*store_->List("mnist", {}), IsEmpty());
}

TEST(DecodeEvent, RefusesWhatIsNoEvent) {
  for (const std::string_view bytes : {"\x2a\x05"
                                       "abc",
                                       "\xff", "\x2a\x02\x0a\x7f"}) {
    EXPECT_FALSE(DecodeEvent(bytes).ok());
  }
}

}  // namespace
}  // namespace takt::learning
