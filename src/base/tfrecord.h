// TFRecord, the container of TensorFlow's event files, warm-up requests and request logs.
// Source: tensorflow.org/tutorials/load_data/tfrecord, "TFRecords format details". A record is
//   uint64 length, uint32 masked CRC-32C of those 8 bytes, data, uint32 masked CRC-32C of the data
// all little-endian; masked = rotate right by 15, plus 0xa282ead8.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

namespace takt {

// CRC-32C (Castagnoli) of `data`.
std::uint32_t Crc32c(std::string_view data);

inline constexpr std::size_t kTfRecordHeaderBytes = 12;
inline constexpr std::size_t kTfRecordFooterBytes = 4;

enum class TfRecordState {
  kRecord,      // `data` is one whole record; `size` bytes were used
  kIncomplete,  // the bytes end inside a record: a torn tail, or more is to come
  kCorrupt,     // a checksum is wrong: the length where `size` is 0 (nothing after it can be
                // trusted; also a length that no file can have), else the data (`size` bytes may
                // be skipped)
  kTooLarge,    // the length is good and over the limit; `size` bytes may be skipped
};
struct TfRecordResult {
  TfRecordState state = TfRecordState::kIncomplete;
  std::string_view data;   // points into the bytes given
  std::uint64_t size = 0;  // of the whole record with header and footer
};
// The record at the start of `bytes`.
TfRecordResult ReadTfRecord(std::string_view bytes, std::uint64_t max_record_bytes);

void AppendTfRecord(std::string_view data, std::string& out);

}  // namespace takt
