#include "net/http2_session.h"

#include <algorithm>
#include <initializer_list>
#include <utility>

#include "net/http2_frames.h"

namespace takt::net {

using namespace http2;

namespace {

constexpr std::uint32_t kLargestStreamId = 0x7fffffff;
// A stream's turn to write.
constexpr std::size_t kTurnBytes = 64 << 10;
constexpr std::size_t kMaxRememberedResets = 2048;
constexpr std::size_t kFirstBuckets = 16;
// A connection that has become quiet does not keep more.
constexpr std::size_t kKeptBuckets = 512;
constexpr std::size_t kMaxSpareOutputBytes = 8 << 20;
constexpr std::size_t kMinSpareOutputBytes = 64;

void AppendU32(std::uint32_t value, std::string& out) {
  const char bytes[] = {static_cast<char>(value >> 24), static_cast<char>(value >> 16),
                        static_cast<char>(value >> 8), static_cast<char>(value)};
  out.append(bytes, sizeof bytes);
}
std::string U32(std::uint32_t value) {
  std::string text;
  AppendU32(value, text);
  return text;
}
void WriteFrameHeader(std::size_t size, std::uint8_t type, std::uint8_t flags, std::uint32_t stream,
                      char* out) {
  out[0] = static_cast<char>(size >> 16);
  out[1] = static_cast<char>(size >> 8);
  out[2] = static_cast<char>(size);
  out[3] = static_cast<char>(type);
  out[4] = static_cast<char>(flags);
  out[5] = static_cast<char>(stream >> 24);
  out[6] = static_cast<char>(stream >> 16);
  out[7] = static_cast<char>(stream >> 8);
  out[8] = static_cast<char>(stream);
}

}  // namespace

void Http2OutputPool::Take(std::string& output) {
  if (spare_.empty()) return;
  output.swap(spare_.back());
  spare_.pop_back();
  spare_bytes_ -= output.capacity();
}

void Http2OutputPool::Give(std::string& output) {
  if (output.capacity() >= kMinSpareOutputBytes &&
      spare_bytes_ + output.capacity() <= kMaxSpareOutputBytes) {
    spare_bytes_ += output.capacity();
    output.clear();
    spare_.push_back(std::move(output));
  }
  std::string().swap(output);
}

Http2Session::Http2Session(const Http2SessionOptions& options, Http2Owner& owner,
                           Http2OutputPool& pool, std::span<const HpackEncoder::Field> fixed)
    : options_(options), owner_(owner), pool_(pool), encoder_(fixed) {
  std::string settings;
  for (const auto& [setting, value] : std::initializer_list<std::pair<Setting, std::uint32_t>>{
           {kMaxConcurrentStreams, options_.max_concurrent_streams},
           {kInitialWindowSize, kHttp2StreamWindowBytes},
           {kMaxFrameSize, kHttp2FrameBytes},
           {kMaxHeaderListSize, static_cast<std::uint32_t>(options_.max_header_bytes)},
           {kNoRfc7540Priorities, 1}}) {
    settings.push_back(0);
    settings.push_back(static_cast<char>(setting));
    AppendU32(value, settings);
  }
  SendControl(kSettings, 0, 0, settings);
  SendWindowUpdate(0, kHttp2ConnectionWindowBytes - 65535);
}

Http2Session::~Http2Session() { pool_.Give(output_); }

// ---- Streams
// -------------------------------------------------------------------------------------

Http2Stream* Http2Session::Find(std::uint32_t id) {
  // One request's frames mostly come in a row.
  if (last_found_ != nullptr && last_found_->id_ == id) return last_found_;
  if (buckets_.empty()) return nullptr;
  Http2Stream* stream = buckets_[id / 2 & (buckets_.size() - 1)];
  while (stream != nullptr && stream->id_ != id) stream = stream->next_of_bucket_;
  if (stream != nullptr) last_found_ = stream;
  return stream;
}

void Http2Session::Insert(Http2Stream& stream) {
  if (stream_count_ >= buckets_.size()) {
    std::vector<Http2Stream*> old(std::max(kFirstBuckets, 2 * buckets_.size()), nullptr);
    old.swap(buckets_);
    for (Http2Stream* moved : old) {
      while (moved != nullptr) {
        Http2Stream*& bucket = buckets_[moved->id_ / 2 & (buckets_.size() - 1)];
        Http2Stream* const next = std::exchange(moved->next_of_bucket_, bucket);
        bucket = moved;
        moved = next;
      }
    }
  }
  Http2Stream*& bucket = buckets_[stream.id_ / 2 & (buckets_.size() - 1)];
  stream.next_of_bucket_ = bucket;
  bucket = last_found_ = &stream;
  ++stream_count_;
}

void Http2Session::Close(Http2Stream& stream) {
  Http2Stream** link = &buckets_[stream.id_ / 2 & (buckets_.size() - 1)];
  while (*link != &stream) link = &(*link)->next_of_bucket_;
  *link = stream.next_of_bucket_;
  if (--stream_count_ == 0 && buckets_.size() > kKeptBuckets) {
    std::vector<Http2Stream*>().swap(buckets_);
  }
  if (last_found_ == &stream) last_found_ = nullptr;
  if (body_stream_ == &stream) body_stream_ = nullptr;
  Unlist(stream);
  owner_.OnClosed(stream);
}

bool Http2Session::WasReset(std::uint32_t id) const {
  return std::find(resets_.begin(), resets_.end(), id) != resets_.end();
}

void Http2Session::SendReset(std::uint32_t id, Http2Error error) {
  if (resets_.size() < kMaxRememberedResets) {
    resets_.push_back(id);
  } else {
    resets_[next_reset_++ % kMaxRememberedResets] = id;
  }
  SendControl(kReset, 0, id, U32(static_cast<std::uint32_t>(error)));
}

void Http2Session::Reset(Http2Stream& stream, Http2Error error) {
  SendReset(stream.id_, error);
  Close(stream);
  CountIdleFrame();
}

// ---- Sending
// -------------------------------------------------------------------------------------

std::string& Http2Session::Out() {
  if (output_.capacity() < kMinSpareOutputBytes) pool_.Take(output_);
  return output_;
}

void Http2Session::Sent(std::size_t bytes) {
  sent_ += bytes;
  if (sent_ < output_.size()) {
    if (sent_ < kHttp2OutputBytes) return;
    output_.erase(0, sent_);  // a peer that reads slowly may never have read it all
    sent_ = 0;
    return;
  }
  output_.clear();
  sent_ = 0;
  control_frames_ = 0;
  pool_.Give(output_);
}

void Http2Session::AppendFrameHeader(std::size_t size, std::uint8_t type, std::uint8_t flags,
                                     std::uint32_t stream) {
  char header[kFrameHeaderBytes];
  WriteFrameHeader(size, type, flags, stream, header);
  Out().append(header, sizeof header);
}

void Http2Session::SendControl(std::uint8_t type, std::uint8_t flags, std::uint32_t stream,
                               std::string_view payload) {
  if (dead_) return;
  if (++control_frames_ > kMaxHttp2QueuedControlFrames) {
    dead_ = true;  // it would not read our goodbye either
    return;
  }
  AppendFrameHeader(payload.size(), type, flags, stream);
  output_.append(payload);
}

void Http2Session::SendWindowUpdate(std::uint32_t stream, std::uint32_t more) {
  SendControl(kWindowUpdate, 0, stream, U32(more));
}

void Http2Session::SendGoaway(std::uint32_t last, Http2Error error) {
  SendControl(kGoaway, 0, 0, U32(last) + U32(static_cast<std::uint32_t>(error)));
}

void Http2Session::Fail(Http2Error error) {
  SendGoaway(last_accepted_, error);
  dead_ = true;
}

void Http2Session::StartDrain() {
  if (std::exchange(draining_, true)) return;
  SendGoaway(kLargestStreamId, Http2Error::kNone);
  SendControl(kPing, 0, 0, std::string_view("\0\0\0\0\0\0\0\0", 8));
}

void Http2Session::BeginHeaders() {
  block_at_ = Out().size();
  output_.append(kFrameHeaderBytes, '\0');
  encoder_.Begin(output_);
}

void Http2Session::EndHeaders(Http2Stream& stream, bool end) {
  const std::uint8_t end_flag = end ? kFlagEndStream : 0;
  const std::size_t size = output_.size() - block_at_ - kFrameHeaderBytes;
  if (size <= peer_frame_bytes_) {
    WriteFrameHeader(size, kHeaders, kFlagEndHeaders | end_flag, stream.id_,
                     output_.data() + block_at_);
  } else {
    const std::string block = output_.substr(block_at_ + kFrameHeaderBytes);
    output_.resize(block_at_);
    for (std::size_t at = 0; at < size; at += peer_frame_bytes_) {
      const std::string_view piece = std::string_view(block).substr(at, peer_frame_bytes_);
      const bool last = at + piece.size() == size;
      AppendFrameHeader(piece.size(), at == 0 ? kHeaders : kContinuation,
                        (at == 0 ? end_flag : 0) | (last ? kFlagEndHeaders : 0), stream.id_);
      output_.append(piece);
    }
  }
  if (!end) return;
  stream.ended_ = true;
  if (stream.peer_ended_) Close(stream);
}

std::size_t Http2Session::SendData(Http2Stream& stream, std::string_view data) {
  const std::int64_t window = std::min(send_window_, stream.send_window_);
  const std::size_t allowed = std::min(
      {data.size(), kTurnBytes, static_cast<std::size_t>(std::max<std::int64_t>(window, 0))});
  for (std::size_t at = 0; at < allowed;) {
    const std::size_t n = std::min<std::size_t>(allowed - at, peer_frame_bytes_);
    AppendFrameHeader(n, kData, 0, stream.id_);
    output_.append(data.data() + at, n);
    at += n;
  }
  send_window_ -= static_cast<std::int64_t>(allowed);
  stream.send_window_ -= static_cast<std::int64_t>(allowed);
  return allowed;
}

void Http2Session::Wait(Http2Stream& stream, bool for_data) {
  using Waits = Http2Stream::Waits;
  if (stream.waits_ == Waits::kForTurn) return;
  Unlist(stream);
  if (for_data && stream.send_window_ <= 0) {
    stream.waits_ = Waits::kForWindow;
  } else if (for_data && send_window_ <= 0) {
    ToList(for_connection_, stream, Waits::kForConnection);
  } else {
    ToList(turn_, stream, Waits::kForTurn);
  }
}

void Http2Session::WindowGrew(Http2Stream& stream) {
  if (stream.waits_ == Http2Stream::Waits::kForWindow && stream.send_window_ > 0) {
    Wait(stream, true);
  }
}

void Http2Session::Fill() {
  while (!dead_ && turn_.first != nullptr && HasRoom()) {
    Http2Stream& stream = *turn_.first;
    Unlist(stream);
    owner_.OnWritable(stream);
  }
}

void Http2Session::ToList(List& list, Http2Stream& stream, Http2Stream::Waits waits) {
  stream.waits_ = waits;
  stream.previous_waiting_ = list.last;
  stream.next_waiting_ = nullptr;
  (list.last != nullptr ? list.last->next_waiting_ : list.first) = &stream;
  list.last = &stream;
}

void Http2Session::Unlist(Http2Stream& stream) {
  using Waits = Http2Stream::Waits;
  const Waits waits = std::exchange(stream.waits_, Waits::kNot);
  if (waits != Waits::kForTurn && waits != Waits::kForConnection) return;
  List& list = waits == Waits::kForTurn ? turn_ : for_connection_;
  (stream.previous_waiting_ != nullptr ? stream.previous_waiting_->next_waiting_ : list.first) =
      stream.next_waiting_;
  (stream.next_waiting_ != nullptr ? stream.next_waiting_->previous_waiting_ : list.last) =
      stream.previous_waiting_;
}

}  // namespace takt::net
