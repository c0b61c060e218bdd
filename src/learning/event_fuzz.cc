// Event files: any bytes as a file, as records with good checksums, and as one record, where
// protobuf judges what it says.
#include <google/protobuf/stubs/logging.h>

#include <bit>
#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

#include "base/fuzz_for_test.h"
#include "base/tfrecord.h"
#include "learning/events.h"
#include "tensorflow/core/util/event.pb.h"

namespace takt::learning {
namespace {

constexpr std::uint64_t kMaxRecordBytes = 4096;

// Reads on as the learning store does. However a file was made, a reader comes to its end.
void ReadFile(std::string_view file) {
  const std::size_t most = file.size() / (kTfRecordHeaderBytes + kTfRecordFooterBytes) + 1;
  for (std::size_t records = 0; !file.empty(); ++records) {
    Require(records <= most, "every record takes bytes");
    const TfRecordResult record = ReadTfRecord(file, kMaxRecordBytes);
    if (record.state == TfRecordState::kIncomplete || record.size == 0) {
      Require(record.state == TfRecordState::kIncomplete || record.state == TfRecordState::kCorrupt,
              "a record without a size cannot be skipped");
      return;
    }
    if (record.state == TfRecordState::kRecord) {
      Require(record.data.size() <= kMaxRecordBytes && record.size <= file.size(),
              "a record lies within its file and the limit");
      static_cast<void>(DecodeEvent(record.data));
    }
    if (record.size > file.size()) return;
    file.remove_prefix(record.size);
  }
}

// `bytes` are a length of eight bytes and data, again and again: the header's checksum is made to
// fit, so that the length is believed.
std::string WithHeaders(std::string_view bytes) {
  std::string file;
  while (bytes.size() >= 8) {
    std::uint64_t length = 0;
    std::memcpy(&length, bytes.data(), 8);
    const std::uint32_t crc = Crc32c(bytes.substr(0, 8));
    const std::uint32_t masked = ((crc >> 15) | (crc << 17)) + 0xa282ead8U;
    file.append(bytes.substr(0, 8)).append(reinterpret_cast<const char*>(&masked), sizeof masked);
    bytes.remove_prefix(8);
    const std::string_view data = bytes.substr(0, length);
    file.append(data);
    bytes.remove_prefix(data.size());
  }
  return file;
}

void CompareWithProtobuf(std::string_view record) {
  const auto event = DecodeEvent(record);
  tensorflow::Event proto;
  if (!proto.ParseFromArray(record.data(), static_cast<int>(record.size()))) return;
  // A group is no field of an event, and refused.
  if (!event.ok()) return;
  const auto same = [](double a, double b) {
    return std::bit_cast<std::uint64_t>(a) == std::bit_cast<std::uint64_t>(b);
  };
  Require(same(event->wall_time, proto.wall_time()), "the time is as protobuf has it");
  Require(event->step == proto.step(), "the step is as protobuf has it");
  // A summary that comes in pieces, or other contents of the event, are told apart by protobuf
  // only.
  const auto& values = proto.summary().value();
  if (!proto.has_summary() || values.size() != static_cast<int>(event->values.size())) return;
  for (int i = 0; i < values.size(); ++i) {
    Require(event->values[static_cast<std::size_t>(i)].tag == values[i].tag(),
            "a tag is as protobuf has it");
  }
}

}  // namespace
}  // namespace takt::learning

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace takt;
  [[maybe_unused]] static auto* const log = google::protobuf::SetLogHandler(nullptr);
  if (size == 0) return 0;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (takt::Choice(data[0], 3)) {
    case 0:
      learning::ReadFile(bytes);
      break;
    case 1:
      learning::ReadFile(learning::WithHeaders(bytes));
      break;
    default: {
      learning::CompareWithProtobuf(bytes);
      std::string file;
      AppendTfRecord(bytes, file);
      const TfRecordResult record = ReadTfRecord(file, bytes.size());
      Require(record.state == TfRecordState::kRecord && record.data == bytes &&
                  record.size == file.size(),
              "what is written can be read");
      break;
    }
  }
  return 0;
}
