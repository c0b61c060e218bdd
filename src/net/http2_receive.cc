// What a session makes of what it receives; see http2_session.cc for the rest of it.
#include <algorithm>
#include <utility>

#include "net/grpc_wire.h"
#include "net/http2_frames.h"
#include "net/http2_session.h"

namespace takt::net {

using namespace http2;

namespace {

constexpr std::string_view kPreface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
constexpr std::size_t kKeptPartialBytes = 4096;
constexpr std::size_t kMaxKeptHeadBytes = 1024;

// What a frame says of a stream or a window, without the reserved bit.
std::uint32_t Read31(const unsigned char* bytes) { return ReadBigEndian32(bytes) & 0x7fffffff; }

// Nothing when it is no number that a message can have.
std::int64_t ParseContentLength(std::string_view text) {
  if (text.empty() || text.size() > 18) return -1;
  std::int64_t number = 0;
  for (char c : text) {
    if (c < '0' || c > '9') return -1;
    number = number * 10 + (c - '0');
  }
  return number;
}

}  // namespace

Http2Session::Frame Http2Session::HeaderOf(const char* bytes) {
  const auto* h = reinterpret_cast<const unsigned char*>(bytes);
  return {std::uint32_t{h[0]} << 16 | std::uint32_t{h[1]} << 8 | h[2], h[3], h[4], Read31(h + 5),
          h + kFrameHeaderBytes};
}

bool Http2Session::Receive(std::string_view bytes, Clock::time_point now) {
  now_ = now;
  const char* at = bytes.data();
  const char* const end = at + bytes.size();
  if (preface_seen_ < kPreface.size()) {
    const std::size_t n = std::min(bytes.size(), kPreface.size() - preface_seen_);
    if (bytes.substr(0, n) != kPreface.substr(preface_seen_, n)) Fail(Http2Error::kProtocol);
    preface_seen_ += n;
    at += n;
  }
  while (at != end && !dead_) {
    if (body_left_ > 0 || padding_left_ > 0) {
      at = TakeBody(at, end);
      continue;
    }
    const auto have = static_cast<std::size_t>(end - at);
    if (partial_.empty()) {
      const std::size_t needed = have < kFrameHeaderBytes ? kFrameHeaderBytes : Needed(at);
      if (dead_) break;
      if (have < needed) {
        partial_.assign(at, have);
        break;
      }
      OnFrame(HeaderOf(at));
      at += needed;
      continue;
    }
    std::size_t needed = kFrameHeaderBytes;
    if (partial_.size() >= kFrameHeaderBytes) needed = Needed(partial_.data());
    if (dead_) break;
    const std::size_t n = std::min(have, needed - partial_.size());
    partial_.append(at, n);
    at += n;
    if (partial_.size() < kFrameHeaderBytes) break;
    needed = Needed(partial_.data());
    if (dead_ || partial_.size() < needed) continue;
    OnFrame(HeaderOf(partial_.data()));
    partial_.clear();
    if (partial_.capacity() > kKeptPartialBytes) std::string().swap(partial_);
  }
  return !dead_;
}

std::size_t Http2Session::Needed(const char* header) {
  const Frame frame = HeaderOf(header);
  const auto fail = [this](Http2Error error) -> std::size_t {
    Fail(error);
    return 0;
  };
  if (frame.size > kHttp2FrameBytes) return fail(Http2Error::kFrameSize);
  if (!settings_seen_ && (frame.type != kSettings || (frame.flags & kFlagAck) != 0)) {
    return fail(Http2Error::kProtocol);
  }
  if (block_stream_ != 0 && (frame.type != kContinuation || frame.stream != block_stream_)) {
    return fail(Http2Error::kProtocol);
  }
  const auto exactly = [&](std::uint32_t size) {
    return frame.size == size ? kFrameHeaderBytes + size : fail(Http2Error::kFrameSize);
  };
  switch (frame.type) {
    case kData:
      if ((frame.flags & kFlagPadded) == 0) return kFrameHeaderBytes;
      return frame.size > 0 ? kFrameHeaderBytes + 1 : fail(Http2Error::kFrameSize);
    case kHeaders:
    case kContinuation:
      if (block_.size() + frame.size > 2 * options_.max_header_bytes) {
        return fail(Http2Error::kEnhanceYourCalm);
      }
      return kFrameHeaderBytes + frame.size;
    case kSettings:
      if (frame.size % 6 != 0) return fail(Http2Error::kFrameSize);
      if (frame.size > 6 * kMaxHttp2Settings) return fail(Http2Error::kEnhanceYourCalm);
      return kFrameHeaderBytes + frame.size;
    case kPriority:
      return exactly(5);
    case kReset:
    case kWindowUpdate:
      return exactly(4);
    case kPing:
      return exactly(8);
    case kGoaway:
      return frame.size >= 8 ? kFrameHeaderBytes + 8 : fail(Http2Error::kFrameSize);
    case kPushPromise:
      return fail(Http2Error::kProtocol);
    default:
      return kFrameHeaderBytes;  // of a kind that we do not know
  }
}

void Http2Session::OnFrame(const Frame& frame) {
  switch (frame.type) {
    case kData:
      return OnDataFrame(frame);
    case kHeaders:
      return OnHeadersFrame(frame);
    case kPriority:
      CountIdleFrame();
      if (frame.stream == 0) return Fail(Http2Error::kProtocol);
      return OnPriority(frame.stream, frame.payload);
    case kReset:
      return OnResetFrame(frame);
    case kSettings:
      return OnSettings(frame);
    case kPing:
      return OnPing(frame);
    case kGoaway:
      return OnGoaway(frame);
    case kWindowUpdate:
      return OnWindowUpdate(frame);
    case kContinuation:
      return OnContinuation(frame);
    default:
      body_left_ = frame.size;  // to be thrown away
      body_stream_ = nullptr;
  }
}

void Http2Session::OnDataFrame(const Frame& frame) {
  if (frame.stream == 0) return Fail(Http2Error::kProtocol);
  std::uint32_t size = frame.size;
  std::uint32_t padding = 0;
  if ((frame.flags & kFlagPadded) != 0) {
    padding = frame.payload[0];
    if (padding >= size) return Fail(Http2Error::kProtocol);
    size -= 1 + padding;
  }
  receive_window_ -= static_cast<std::int32_t>(frame.size);
  if (receive_window_ < 0) return Fail(Http2Error::kFlowControl);
  if (receive_window_ < kHttp2ConnectionWindowBytes / 2) {
    SendWindowUpdate(0, kHttp2ConnectionWindowBytes - receive_window_);
    receive_window_ = kHttp2ConnectionWindowBytes;
  }
  const bool end = (frame.flags & kFlagEndStream) != 0;
  body_left_ = size;
  padding_left_ = padding;
  body_ends_stream_ = end;
  body_stream_ = nullptr;
  Http2Stream* stream = Find(frame.stream);
  if (size == 0 && (!end || stream == nullptr)) CountIdleFrame();
  if (stream == nullptr) {
    if (IsIdle(frame.stream)) return Fail(Http2Error::kProtocol);
    if (!WasReset(frame.stream)) {
      SendReset(frame.stream, Http2Error::kStreamClosed);
      CountIdleFrame();
    }
  } else if (stream->peer_ended_) {
    Reset(*stream, Http2Error::kStreamClosed);
  } else {
    stream->receive_window_ -= static_cast<std::int32_t>(frame.size);
    stream->received_bytes_ += size;
    if (stream->receive_window_ < 0) {
      Reset(*stream, Http2Error::kFlowControl);
    } else if (stream->content_length_ >= 0 && stream->received_bytes_ > stream->content_length_) {
      Reset(*stream, Http2Error::kProtocol);
    } else {
      body_stream_ = stream;
      if (!end && stream->receive_window_ < kHttp2StreamWindowBytes / 2) {
        SendWindowUpdate(frame.stream, kHttp2StreamWindowBytes - stream->receive_window_);
        stream->receive_window_ = kHttp2StreamWindowBytes;
      }
    }
  }
  if (size == 0 && padding == 0 && body_stream_ != nullptr && end) {
    EndRequest(*std::exchange(body_stream_, nullptr));
  }
}

const char* Http2Session::TakeBody(const char* at, const char* end) {
  const std::size_t n = std::min<std::size_t>(body_left_, end - at);
  body_left_ -= static_cast<std::uint32_t>(n);
  if (n > 0 && body_stream_ != nullptr) owner_.OnData(*body_stream_, {at, n});
  at += n;
  const std::size_t padding = std::min<std::size_t>(padding_left_, end - at);
  padding_left_ -= static_cast<std::uint32_t>(padding);
  if (body_left_ == 0 && padding_left_ == 0 && body_stream_ != nullptr) {
    Http2Stream& stream = *std::exchange(body_stream_, nullptr);
    if (body_ends_stream_) EndRequest(stream);
  }
  return at + padding;
}

void Http2Session::EndRequest(Http2Stream& stream) {
  if (stream.content_length_ >= 0 && stream.received_bytes_ != stream.content_length_) {
    return Reset(stream, Http2Error::kProtocol);
  }
  stream.peer_ended_ = true;
  if (stream.ended_) return Close(stream);
  owner_.OnEnd(stream);
}

void Http2Session::OnHeadersFrame(const Frame& frame) {
  if (frame.stream % 2 == 0) return Fail(Http2Error::kProtocol);
  std::string_view block(reinterpret_cast<const char*>(frame.payload), frame.size);
  if ((frame.flags & kFlagPadded) != 0) {
    if (block.empty()) return Fail(Http2Error::kFrameSize);
    const std::size_t padding = frame.payload[0];
    if (padding >= block.size()) return Fail(Http2Error::kProtocol);
    block = block.substr(1, block.size() - 1 - padding);
  }
  if ((frame.flags & kFlagPriority) != 0) {
    if (block.size() < 5) return Fail(Http2Error::kFrameSize);
    OnPriority(frame.stream, reinterpret_cast<const unsigned char*>(block.data()));
    if (dead_) return;
    block.remove_prefix(5);
  }
  const bool end = (frame.flags & kFlagEndStream) != 0;
  if ((frame.flags & kFlagEndHeaders) != 0) return OnBlock(frame.stream, block, end);
  block_.assign(block);
  block_stream_ = frame.stream;
  block_ends_stream_ = end;
}

void Http2Session::OnContinuation(const Frame& frame) {
  if (block_stream_ == 0) return Fail(Http2Error::kProtocol);
  CountIdleFrame();
  block_.append(reinterpret_cast<const char*>(frame.payload), frame.size);
  if ((frame.flags & kFlagEndHeaders) == 0 || dead_) return;
  OnBlock(std::exchange(block_stream_, 0), block_, block_ends_stream_);
  std::string().swap(block_);
}

// A priority says nothing to us, but for what no client may say (RFC 7540, section 5.3.1).
void Http2Session::OnPriority(std::uint32_t stream_id, const unsigned char* payload) {
  if (Read31(payload) == stream_id) Fail(Http2Error::kProtocol);
}

void Http2Session::OnBlock(std::uint32_t id, std::string_view block, bool end) {
  if (Http2Stream* stream = IsIdle(id) ? nullptr : Find(id); stream != nullptr) {
    const bool well_formed = ReadTrailers(block);
    if (dead_) return;
    if (stream->peer_ended_) return Reset(*stream, Http2Error::kStreamClosed);
    if (!well_formed || !end) return Reset(*stream, Http2Error::kProtocol);
    return EndRequest(*stream);
  }
  if (!IsIdle(id)) {
    if (WasReset(id)) {
      CountIdleFrame();
      return SkipBlock(block);
    }
    const bool skipped = id >= skipped_from_ && id <= skipped_to_;
    return Fail(skipped ? Http2Error::kProtocol : Http2Error::kStreamClosed);
  }
  if (id > last_id_ + 2) {
    skipped_from_ = last_id_ + 1;
    skipped_to_ = id - 1;
  }
  last_id_ = id;
  if (goaway_sent_ || stream_count_ >= options_.max_concurrent_streams) {
    // Behind our goodbye a request is not seen, and its peer knows.
    SkipBlock(block);
    return SendReset(id, Http2Error::kRefusedStream);
  }
  Http2Stream& stream = owner_.OnRequest();
  stream.id_ = id;
  stream.waits_ = Http2Stream::Waits::kNot;
  stream.peer_ended_ = stream.ended_ = false;
  stream.receive_window_ = kHttp2StreamWindowBytes;
  stream.send_window_ = peer_stream_window_;
  stream.content_length_ = -1;
  stream.received_bytes_ = 0;
  last_accepted_ = id;
  Insert(stream);
  if (!ReadRequestHead(stream, block)) return;
  owner_.OnHeaders(stream);
  if (end) EndRequest(stream);
}

bool Http2Session::ReadRequestHead(Http2Stream& stream, std::string_view block) {
  const std::uint64_t version = decoder_.table_version();
  for (std::size_t slot = 0; slot < kept_heads_.size(); ++slot) {
    const KeptHead& kept = kept_heads_[slot];
    if (kept.table_version != version || kept.block.empty() || kept.block != block) continue;
    stream.content_length_ = kept.content_length;
    owner_.OnSameHead(stream, slot);
    return true;
  }
  if (!DecodeRequestHead(stream, block)) return false;
  // What changes the table says something else the next time.
  if (decoder_.table_version() != version || block.size() > kMaxKeptHeadBytes) return true;
  const std::size_t slot = next_kept_head_;
  kept_heads_[slot].block.clear();
  if (!owner_.KeepHead(stream, slot)) return true;
  kept_heads_[slot].block.assign(block);
  kept_heads_[slot].table_version = version;
  kept_heads_[slot].content_length = stream.content_length_;
  next_kept_head_ = (slot + 1) % kept_heads_.size();
  return true;
}

bool Http2Session::DecodeRequestHead(Http2Stream& stream, std::string_view block) {
  const auto bit = [](HeaderKind kind) { return 1U << static_cast<unsigned>(kind); };
  const unsigned pseudo = bit(HeaderKind::kMethod) | bit(HeaderKind::kScheme) |
                          bit(HeaderKind::kPath) | bit(HeaderKind::kAuthority);
  unsigned seen = 0;
  bool regular = false;
  bool malformed = false;
  bool connect = false;
  std::size_t bytes = 0;
  HeaderField field;
  HpackDecoder::Step step;
  decoder_.Begin(block);
  while ((step = decoder_.Next(&field)) == HpackDecoder::Step::kField) {
    bytes += field.name.size() + field.value.size() + 32;
    if (malformed || bytes > options_.max_header_bytes) continue;
    const unsigned this_bit = bit(field.kind);
    if ((this_bit & pseudo) != 0) {
      malformed = regular || (seen & this_bit) != 0 ||
                  (field.value.empty() && field.kind != HeaderKind::kAuthority);
      connect = connect || (field.kind == HeaderKind::kMethod && field.value == "CONNECT");
    } else {
      regular = true;
      if (field.kind == HeaderKind::kContentLength) {
        const std::int64_t length = ParseContentLength(field.value);
        malformed = length < 0 || (stream.content_length_ >= 0 && stream.content_length_ != length);
        stream.content_length_ = length;
      } else if (field.kind == HeaderKind::kMalformed) {
        malformed = true;
      }
    }
    seen |= this_bit;
    if (!malformed) owner_.OnHeader(stream, field);
  }
  if (step == HpackDecoder::Step::kError) {
    Fail(Http2Error::kCompression);
    return false;
  }
  if (bytes > options_.max_header_bytes) {
    Reset(stream, Http2Error::kEnhanceYourCalm);
    return false;
  }
  const unsigned wanted =
      connect ? bit(HeaderKind::kMethod) | bit(HeaderKind::kAuthority)
              : bit(HeaderKind::kMethod) | bit(HeaderKind::kScheme) | bit(HeaderKind::kPath);
  const unsigned optional = connect ? 0 : bit(HeaderKind::kAuthority);
  if (malformed || (seen & pseudo & ~optional) != wanted) {
    Reset(stream, Http2Error::kProtocol);
    return false;
  }
  return true;
}

bool Http2Session::ReadTrailers(std::string_view block) {
  bool well_formed = true;
  HeaderField field;
  HpackDecoder::Step step;
  decoder_.Begin(block);
  while ((step = decoder_.Next(&field)) == HpackDecoder::Step::kField) {
    well_formed =
        well_formed && field.kind != HeaderKind::kMalformed && !field.name.starts_with(':');
  }
  if (step == HpackDecoder::Step::kError) Fail(Http2Error::kCompression);
  return well_formed;
}

void Http2Session::SkipBlock(std::string_view block) { ReadTrailers(block); }

void Http2Session::OnResetFrame(const Frame& frame) {
  CountIdleFrame();
  if (frame.stream == 0) return Fail(Http2Error::kProtocol);
  if (Http2Stream* stream = Find(frame.stream); stream != nullptr) return Close(*stream);
  if (IsIdle(frame.stream)) Fail(Http2Error::kProtocol);
}

void Http2Session::OnSettings(const Frame& frame) {
  CountIdleFrame();
  if (frame.stream != 0) return Fail(Http2Error::kProtocol);
  if ((frame.flags & kFlagAck) != 0) {
    if (frame.size != 0) Fail(Http2Error::kFrameSize);
    return;
  }
  settings_seen_ = true;
  for (std::uint32_t i = 0; i < frame.size; i += 6) {
    const unsigned char* entry = frame.payload + i;
    const std::uint32_t value = ReadBigEndian32(entry + 2);
    switch (entry[0] << 8 | entry[1]) {
      case kHeaderTableSize:
        encoder_.SetTableLimit(value);
        break;
      case kEnablePush:
        if (value > 1) return Fail(Http2Error::kProtocol);
        break;
      case kInitialWindowSize: {
        if (value > kLargestWindow) return Fail(Http2Error::kFlowControl);
        const std::int64_t more = value - std::exchange(peer_stream_window_, value);
        bool overflow = false;
        ForEachStream([&](Http2Stream& stream) {
          stream.send_window_ += more;
          overflow = overflow || stream.send_window_ > kLargestWindow;
          WindowGrew(stream);
        });
        if (overflow) return Fail(Http2Error::kFlowControl);
        break;
      }
      case kMaxFrameSize:
        if (value < 16384 || value > 0xffffff) return Fail(Http2Error::kProtocol);
        peer_frame_bytes_ = value;
        break;
      default:
        break;
    }
  }
  SendControl(kSettings, kFlagAck, 0, "");
}

void Http2Session::OnPing(const Frame& frame) {
  CountIdleFrame();
  if (frame.stream != 0) return Fail(Http2Error::kProtocol);
  if ((frame.flags & kFlagAck) == 0) {
    return SendControl(kPing, kFlagAck, 0, {reinterpret_cast<const char*>(frame.payload), 8});
  }
  // Our own ping of a drain came back: no request can be on its way with a higher id.
  if (!draining_ || goaway_sent_) return;
  goaway_sent_ = true;
  SendGoaway(last_accepted_, Http2Error::kNone);
}

void Http2Session::OnGoaway(const Frame& frame) {
  if (frame.stream != 0) return Fail(Http2Error::kProtocol);
  goaway_seen_ = true;
  body_left_ = frame.size - 8;  // words for people
  body_stream_ = nullptr;
}

void Http2Session::OnWindowUpdate(const Frame& frame) {
  const std::uint32_t more = Read31(frame.payload);
  if (frame.stream == 0) {
    if (more == 0) return Fail(Http2Error::kProtocol);
    send_window_ += more;
    if (send_window_ > kLargestWindow) return Fail(Http2Error::kFlowControl);
    while (send_window_ > 0 && for_connection_.first != nullptr) {
      Http2Stream& stream = *for_connection_.first;
      Unlist(stream);
      Wait(stream, true);
    }
    return;
  }
  Http2Stream* stream = Find(frame.stream);
  if (stream == nullptr) {
    if (IsIdle(frame.stream)) Fail(Http2Error::kProtocol);
    return;
  }
  if (more == 0) return Reset(*stream, Http2Error::kProtocol);
  stream->send_window_ += more;
  if (stream->send_window_ > kLargestWindow) return Reset(*stream, Http2Error::kFlowControl);
  WindowGrew(*stream);
}

void Http2Session::CountIdleFrame() {
  if (now_ - idle_frames_since_ > std::chrono::seconds(1)) {
    idle_frames_since_ = now_;
    idle_frames_ = 0;
  }
  if (++idle_frames_ > options_.max_idle_frames_per_second) Fail(Http2Error::kEnhanceYourCalm);
}

}  // namespace takt::net
