// Unary gRPC calls over HTTP/2.
#include <nghttp2/nghttp2.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <memory>
#include <vector>

#include "load/connection.h"

namespace takt::load {
namespace {

// RFC 9113, section 6.
enum FrameType : std::uint8_t {
  kData = 0,
  kHeaders = 1,
  kReset = 3,
  kSettings = 4,
  kPing = 6,
  kGoaway = 7,
  kWindowUpdate = 8,
};
constexpr std::uint8_t kEndStream = 1;
constexpr std::uint8_t kAck = 1;
constexpr std::uint8_t kEndHeaders = 4;
constexpr std::uint8_t kPadded = 8;
constexpr std::size_t kFrameHeaderBytes = 9;
constexpr std::size_t kGrpcPrefixBytes = 5;
constexpr std::uint32_t kLargestWindow = 0x7fffffff;
constexpr std::size_t kMaxAnswerFrameBytes = 16 << 20;

void AppendFrameHeader(std::size_t length, std::uint8_t type, std::uint8_t flags,
                       std::uint32_t stream, std::string& out) {
  const char header[kFrameHeaderBytes] = {
      static_cast<char>(length >> 16), static_cast<char>(length >> 8),
      static_cast<char>(length),       static_cast<char>(type),
      static_cast<char>(flags),        static_cast<char>(stream >> 24),
      static_cast<char>(stream >> 16), static_cast<char>(stream >> 8),
      static_cast<char>(stream)};
  out.append(header, sizeof header);
}
void AppendU32(std::uint32_t value, std::string& out) {
  for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<char>(value >> shift));
}
std::uint32_t ReadU32(const unsigned char* p) {
  return std::uint32_t{p[0]} << 24 | std::uint32_t{p[1]} << 16 | std::uint32_t{p[2]} << 8 | p[3];
}

struct Stream {
  std::uint32_t id = 0;
  Clock::time_point due;
  bool counted = false;
  std::string_view message;  // not sent yet, of it
  std::string_view prefix;   // gRPC's, not sent yet
  char prefix_bytes[kGrpcPrefixBytes];
  std::int64_t window = 0;
  int grpc_status = -1;
  std::string text;
  std::string answer;  // with gRPC's prefix
};

class GrpcConnection final : public Connection {
 public:
  GrpcConnection(int fd, const LoadOptions& options, OnAnswer on_answer)
      : Connection(fd, std::move(on_answer)), options_(options) {}
  ~GrpcConnection() override {
    if (deflater_ != nullptr) nghttp2_hd_deflate_del(deflater_);
    if (inflater_ != nullptr) nghttp2_hd_inflate_del(inflater_);
  }

  bool Open();
  void Ask(Clock::time_point due, bool counted, std::string_view message) override;
  std::size_t active() const override { return active_; }
  std::size_t allowed() const override { return allowed_; }
  Clock::time_point oldest() const override {
    Clock::time_point oldest = Clock::time_point::max();
    for (const auto& stream : streams_) {
      if (stream != nullptr) oldest = std::min(oldest, stream->due);
    }
    return oldest;
  }

 private:
  void SendBody(Stream& stream);
  void SendBodies() {
    for (auto& stream : streams_) {
      if (stream != nullptr) SendBody(*stream);
    }
  }
  Stream* Find(std::uint32_t id) {
    if (streams_.empty() || id < first_id_) return nullptr;
    const std::size_t at = (id - first_id_) / 2;
    return at < streams_.size() ? streams_[at].get() : nullptr;
  }
  absl::Status OnFrame(std::uint8_t type, std::uint8_t flags, std::uint32_t stream_id,
                       const unsigned char* payload, std::size_t size);
  absl::Status OnHeaders(Stream* stream, const unsigned char* block, std::size_t size);
  void Done(Stream* stream, int status);
  std::string_view HeaderBlock();

  absl::StatusOr<std::size_t> OnBytes(std::string_view bytes) override;

  const LoadOptions& options_;
  nghttp2_hd_deflater* deflater_ = nullptr;
  nghttp2_hd_inflater* inflater_ = nullptr;
  std::uint32_t next_id_ = 1;
  // By id, from first_id_ on; null = answered already, never at the front.
  std::deque<std::unique_ptr<Stream>> streams_;
  std::uint32_t first_id_ = 1;
  std::size_t active_ = 0;
  std::vector<std::unique_ptr<Stream>> spare_;
  std::string block_;    // the request's headers
  int blocks_made_ = 0;  // from the third on, all is in the table and the block stays the same
  std::int64_t window_ = 65535;
  std::int64_t initial_window_ = 65535;
  std::size_t frame_bytes_ = 16384;
  std::size_t allowed_ = 0;     // by the server's settings; none before they came
  std::uint64_t received_ = 0;  // since the last WINDOW_UPDATE
};

bool GrpcConnection::Open() {
  if (nghttp2_hd_deflate_new(&deflater_, 4096) != 0 || nghttp2_hd_inflate_new(&inflater_) != 0) {
    return false;
  }
  out_ = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
  AppendFrameHeader(12, kSettings, 0, 0, out_);
  out_.append("\0\2", 2);  // ENABLE_PUSH
  AppendU32(0, out_);
  out_.append("\0\4", 2);  // INITIAL_WINDOW_SIZE
  AppendU32(kLargestWindow, out_);
  AppendFrameHeader(4, kWindowUpdate, 0, 0, out_);
  AppendU32(kLargestWindow - 65535, out_);
  return true;
}

std::string_view GrpcConnection::HeaderBlock() {
  if (blocks_made_ >= 3) return block_;
  std::vector<nghttp2_nv> headers;
  auto add = [&](std::string_view name, std::string_view value) {
    nghttp2_nv nv;
    nv.name = reinterpret_cast<std::uint8_t*>(const_cast<char*>(name.data()));
    nv.value = reinterpret_cast<std::uint8_t*>(const_cast<char*>(value.data()));
    nv.namelen = name.size();
    nv.valuelen = value.size();
    nv.flags = NGHTTP2_NV_FLAG_NONE;
    headers.push_back(nv);
  };
  add(":scheme", "http");
  add(":method", "POST");
  // A path is no authority; "localhost" is what gRPC says in its place.
  add(":authority", options_.target.starts_with("unix:") ? std::string_view("localhost")
                                                         : std::string_view(options_.target));
  add(":path", options_.method);
  add("te", "trailers");
  add("content-type", "application/grpc");
  add("user-agent", "takt-load");
  for (const auto& [name, value] : options_.metadata) add(name, value);
  block_.resize(nghttp2_hd_deflate_bound(deflater_, headers.data(), headers.size()));
  const ssize_t n = nghttp2_hd_deflate_hd(deflater_, reinterpret_cast<std::uint8_t*>(block_.data()),
                                          block_.size(), headers.data(), headers.size());
  block_.resize(n < 0 ? 0 : static_cast<std::size_t>(n));
  ++blocks_made_;
  return block_;
}

void GrpcConnection::Ask(Clock::time_point due, bool counted, std::string_view message) {
  std::unique_ptr<Stream> stream;
  if (spare_.empty()) {
    stream = std::make_unique<Stream>();
  } else {
    stream = std::move(spare_.back());
    spare_.pop_back();
  }
  stream->id = next_id_;
  next_id_ += 2;
  stream->due = due;
  stream->counted = counted;
  stream->message = message;
  stream->window = initial_window_;
  stream->grpc_status = -1;
  stream->text.clear();
  stream->answer.clear();
  const std::size_t n = message.size();
  const char prefix[kGrpcPrefixBytes] = {0, static_cast<char>(n >> 24), static_cast<char>(n >> 16),
                                         static_cast<char>(n >> 8), static_cast<char>(n)};
  std::memcpy(stream->prefix_bytes, prefix, sizeof prefix);
  stream->prefix = {stream->prefix_bytes, sizeof prefix};
  const std::string_view block = HeaderBlock();
  AppendFrameHeader(block.size(), kHeaders, kEndHeaders, stream->id, out_);
  out_.append(block);
  SendBody(*stream);
  if (streams_.empty()) first_id_ = stream->id;
  streams_.push_back(std::move(stream));
  ++active_;
}

void GrpcConnection::SendBody(Stream& stream) {
  while (!stream.prefix.empty() || !stream.message.empty()) {
    const std::size_t left = stream.prefix.size() + stream.message.size();
    const auto room =
        static_cast<std::size_t>(std::max<std::int64_t>(std::min(window_, stream.window), 0));
    const std::size_t n = std::min({left, room, frame_bytes_});
    if (n == 0 || (n < kGrpcPrefixBytes && n < left)) return;  // until the window opens
    AppendFrameHeader(n, kData, n == left ? kEndStream : 0, stream.id, out_);
    out_.append(stream.prefix);
    const std::size_t of_message = n - stream.prefix.size();
    stream.prefix = {};
    out_.append(stream.message.substr(0, of_message));
    stream.message.remove_prefix(of_message);
    window_ -= static_cast<std::int64_t>(n);
    stream.window -= static_cast<std::int64_t>(n);
  }
}

absl::StatusOr<std::size_t> GrpcConnection::OnBytes(std::string_view bytes) {
  std::size_t done = 0;
  while (bytes.size() - done >= kFrameHeaderBytes) {
    const auto* header = reinterpret_cast<const unsigned char*>(bytes.data() + done);
    const std::size_t size = std::size_t{header[0]} << 16 | std::size_t{header[1]} << 8 | header[2];
    if (size > kMaxAnswerFrameBytes) return absl::InternalError("the server speaks no HTTP/2");
    if (bytes.size() - done < kFrameHeaderBytes + size) break;
    TAKT_RETURN_IF_ERROR(OnFrame(header[3], header[4], ReadU32(header + 5) & 0x7fffffff,
                                 header + kFrameHeaderBytes, size));
    done += kFrameHeaderBytes + size;
  }
  return done;
}

absl::Status GrpcConnection::OnFrame(std::uint8_t type, std::uint8_t flags, std::uint32_t stream_id,
                                     const unsigned char* payload, std::size_t size) {
  switch (type) {
    case kData: {
      received_ += size;
      if (received_ > kLargestWindow / 2) {
        AppendFrameHeader(4, kWindowUpdate, 0, 0, out_);
        AppendU32(static_cast<std::uint32_t>(received_), out_);
        received_ = 0;
      }
      Stream* stream = Find(stream_id);
      if (stream == nullptr) return absl::OkStatus();
      stream->answer.append(reinterpret_cast<const char*>(payload), size);
      if ((flags & kEndStream) != 0) Done(stream, stream->grpc_status);
      return absl::OkStatus();
    }
    case kHeaders: {
      if ((flags & kEndHeaders) == 0 || (flags & kPadded) != 0) {
        return absl::UnimplementedError("answers with continued or padded headers");
      }
      Stream* stream = Find(stream_id);
      TAKT_RETURN_IF_ERROR(OnHeaders(stream, payload, size));
      if (stream != nullptr && (flags & kEndStream) != 0) Done(stream, stream->grpc_status);
      return absl::OkStatus();
    }
    case kReset:
      if (Stream* stream = Find(stream_id); stream != nullptr) {
        stream->text = StrCat("reset ", size >= 4 ? ReadU32(payload) : 0);
        Done(stream, static_cast<int>(absl::StatusCode::kUnavailable));
      }
      return absl::OkStatus();
    case kSettings: {
      if ((flags & kAck) != 0) return absl::OkStatus();
      if (allowed_ == 0) allowed_ = kLargestWindow;
      for (std::size_t i = 0; i + 6 <= size; i += 6) {
        const int id = payload[i] << 8 | payload[i + 1];
        const std::uint32_t value = ReadU32(payload + i + 2);
        if (id == 3) allowed_ = value;
        if (id == 4) {
          for (auto& stream : streams_) {
            if (stream != nullptr) stream->window += value - initial_window_;
          }
          initial_window_ = value;
        }
        if (id == 5) frame_bytes_ = value;
      }
      AppendFrameHeader(0, kSettings, kAck, 0, out_);
      SendBodies();
      return absl::OkStatus();
    }
    case kPing:
      if ((flags & kAck) != 0 || size != 8) return absl::OkStatus();
      AppendFrameHeader(8, kPing, kAck, 0, out_);
      out_.append(reinterpret_cast<const char*>(payload), 8);
      return absl::OkStatus();
    case kGoaway:
      return absl::UnavailableError("the server goes away");
    case kWindowUpdate: {
      if (size != 4) return absl::OkStatus();
      const std::uint32_t more = ReadU32(payload) & kLargestWindow;
      if (stream_id == 0) {
        window_ += more;
        SendBodies();
      } else if (Stream* stream = Find(stream_id); stream != nullptr) {
        stream->window += more;
        SendBody(*stream);
      }
      return absl::OkStatus();
    }
    default:
      return absl::OkStatus();
  }
}

absl::Status GrpcConnection::OnHeaders(Stream* stream, const unsigned char* block,
                                       std::size_t size) {
  std::string text;
  while (true) {
    nghttp2_nv nv;
    int flags = 0;
    const ssize_t used = nghttp2_hd_inflate_hd2(inflater_, &nv, &flags, block, size, 1);
    if (used < 0) return absl::InternalError("the server's headers do not inflate");
    block += used;
    size -= static_cast<std::size_t>(used);
    if ((flags & NGHTTP2_HD_INFLATE_EMIT) != 0 && stream != nullptr) {
      const std::string_view name(reinterpret_cast<char*>(nv.name), nv.namelen);
      const std::string_view value(reinterpret_cast<char*>(nv.value), nv.valuelen);
      if (name == "grpc-status") stream->grpc_status = std::atoi(std::string(value).c_str());
      if (name == "grpc-message") stream->text = value;
      if (name == ":status" && value != "200") stream->text = StrCat("HTTP ", value);
    }
    if ((flags & NGHTTP2_HD_INFLATE_FINAL) != 0) {
      nghttp2_hd_inflate_end_headers(inflater_);
      return absl::OkStatus();
    }
    if (used == 0 && (flags & NGHTTP2_HD_INFLATE_EMIT) == 0) return absl::OkStatus();
  }
}

void GrpcConnection::Done(Stream* stream, int status) {
  stream->answer.erase(0, kGrpcPrefixBytes);
  on_answer_({stream->due, stream->counted,
              status < 0 ? static_cast<int>(absl::StatusCode::kUnknown) : status, stream->text,
              &stream->answer});
  spare_.push_back(std::move(streams_[(stream->id - first_id_) / 2]));
  --active_;
  while (!streams_.empty() && streams_.front() == nullptr) {
    streams_.pop_front();
    first_id_ += 2;
  }
}

}  // namespace

std::unique_ptr<Connection> MakeGrpcConnection(int fd, const LoadOptions& options,
                                               OnAnswer on_answer) {
  auto connection = std::make_unique<GrpcConnection>(fd, options, std::move(on_answer));
  if (!connection->Open()) return nullptr;
  return connection;
}

}  // namespace takt::load
