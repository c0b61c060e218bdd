// The server's side of one HTTP/2 connection (RFC 9113): bytes in, bytes out, no sockets, and no
// knowledge of what is asked. Frames, streams, flow control, header blocks, the errors that each
// violation has, and the limits that keep a peer from doing harm.
//
// Threads: one at a time; the owner is called inside the session's own calls.
#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "net/hpack.h"

namespace takt::net {

enum class Http2Error : std::uint32_t {
  kNone = 0,
  kProtocol = 1,
  kInternal = 2,
  kFlowControl = 3,
  kStreamClosed = 5,
  kFrameSize = 6,
  kRefusedStream = 7,
  kCompression = 9,
  kEnhanceYourCalm = 11,
};

// So many heads of a connection are remembered.
inline constexpr std::size_t kHttp2KeptHeads = 2;
// What we offer the peer.
inline constexpr std::int32_t kHttp2StreamWindowBytes = 4 << 20;
inline constexpr std::int32_t kHttp2ConnectionWindowBytes = 32 << 20;
inline constexpr std::uint32_t kHttp2FrameBytes = 1 << 20;  // FRAME_SIZE_ERROR
// Settings in one frame: ENHANCE_YOUR_CALM.
inline constexpr std::size_t kMaxHttp2Settings = 64;
// Acknowledgements, resets and the like that wait for a peer which does not read: the connection
// ends.
inline constexpr int kMaxHttp2QueuedControlFrames = 10000;
// Answers wait when so much is written and not taken by the socket.
inline constexpr std::size_t kHttp2OutputBytes = 256 << 10;

// One request and its answer. The owner derives its own from it and keeps the memory.
class Http2Stream {
 public:
  std::uint32_t stream_id() const { return id_; }

 protected:
  Http2Stream() = default;
  ~Http2Stream() = default;

 private:
  friend class Http2Session;
  enum class Waits : std::uint8_t {
    kNot,
    kForTurn,        // in the list of those that may write
    kForConnection,  // in the list of those that need the connection's window
    kForWindow,      // of its own
  };

  std::uint32_t id_ = 0;
  Waits waits_ = Waits::kNot;
  bool peer_ended_ = false;  // END_STREAM came
  bool ended_ = false;       // we have sent it
  std::int32_t receive_window_ = 0;
  std::int64_t send_window_ = 0;
  std::int64_t content_length_ = -1;  // of the header; -1 = none
  std::int64_t received_bytes_ = 0;
  Http2Stream* next_of_bucket_ = nullptr;
  Http2Stream* previous_waiting_ = nullptr;
  Http2Stream* next_waiting_ = nullptr;
};

// Who answers. A stream may be answered within any of these calls, but for OnClosed.
class Http2Owner {
 public:
  virtual ~Http2Owner() = default;
  // A request begins: an object for it. It is the session's until OnClosed.
  virtual Http2Stream& OnRequest() = 0;
  // A field of its head that is neither malformed nor about the connection. The text is valid for
  // this call only.
  virtual void OnHeader(Http2Stream& stream, const HeaderField& field) = 0;
  // The head may come again, byte by byte: whether it can be remembered as number `slot`, before
  // OnHeaders. Then OnSameHead instead of its fields.
  virtual bool KeepHead(Http2Stream& stream, std::size_t slot) = 0;
  virtual void OnSameHead(Http2Stream& stream, std::size_t slot) = 0;
  virtual void OnHeaders(Http2Stream& stream) = 0;  // the head was that
  virtual void OnData(Http2Stream& stream, std::string_view data) = 0;
  virtual void OnEnd(Http2Stream& stream) = 0;  // of the request
  // Answered and ended, or reset by either side, or found malformed (then perhaps before
  // OnHeaders).
  virtual void OnClosed(Http2Stream& stream) = 0;
  // After Wait.
  virtual void OnWritable(Http2Stream& stream) = 0;
};

// Memory of output that was sent, for the sessions of one thread: an idle connection holds none.
class Http2OutputPool {
 public:
  void Take(std::string& output);
  void Give(std::string& output);

 private:
  std::vector<std::string> spare_;
  std::size_t spare_bytes_ = 0;
};

struct Http2SessionOptions {
  std::uint32_t max_concurrent_streams = 0;  // REFUSED_STREAM
  // Of names and values of one head, each with 32 (section 6.5.2): the stream is reset with
  // ENHANCE_YOUR_CALM. Beyond twice as much in a block the connection ends with that.
  std::size_t max_header_bytes = 0;
  // Frames that make work and carry none (resets of either side, pings, settings, priorities,
  // continuations, empty data): ENHANCE_YOUR_CALM.
  int max_idle_frames_per_second = 0;
};

class Http2Session {
 public:
  using Clock = std::chrono::steady_clock;

  // The settings are the first output. `fixed`: see HpackEncoder. All of them outlive the session.
  Http2Session(const Http2SessionOptions& options, Http2Owner& owner, Http2OutputPool& pool,
               std::span<const HpackEncoder::Field> fixed);
  ~Http2Session();
  Http2Session(const Http2Session&) = delete;
  Http2Session& operator=(const Http2Session&) = delete;

  // Bytes of the peer, that came at `now`. Data is handed on where it lies in `bytes`. False: the
  // connection has come to its end; what Output has should still be sent.
  bool Receive(std::string_view bytes, Clock::time_point now);

  // What is to be sent, and that its first `bytes` were.
  std::string_view Output() const { return std::string_view(output_).substr(sent_); }
  void Sent(std::size_t bytes);
  // Whether an answer may be written now. Where not: Wait.
  bool HasRoom() const { return output_.size() - sent_ < kHttp2OutputBytes; }
  // Lets streams that wait write, in turn, as long as there is room.
  void Fill();

  // A header block of the answer: BeginHeaders, fields to `fields()` and `block()`, EndHeaders.
  // With `end`, the answer ends there; if the request had ended, the stream is closed then, and
  // OnClosed was called.
  void BeginHeaders();
  HpackEncoder& fields() { return encoder_; }
  std::string& block() { return output_; }
  void EndHeaders(Http2Stream& stream, bool end);
  // Writes what the peer's windows and this stream's turn allow, and says how much that was.
  std::size_t SendData(Http2Stream& stream, std::string_view data);
  // OnWritable shall come when it is this stream's turn, `for_data` when there is also a window.
  // One that waits already does so once.
  void Wait(Http2Stream& stream, bool for_data);
  // The stream ends here and is closed: its peer broke a rule.
  void Reset(Http2Stream& stream, Http2Error error);

  // Tells the peer to ask for nothing new; what it has asked until it knows is served.
  void StartDrain();
  // Nothing more can come: close when the output is sent.
  bool finished() const { return dead_ || ((goaway_sent_ || goaway_seen_) && stream_count_ == 0); }

  std::size_t stream_count() const { return stream_count_; }
  // `work` may let go of its stream, when the session is not used any more.
  template <typename F>
  void ForEachStream(F&& work) {
    for (Http2Stream* stream : buckets_) {
      while (stream != nullptr) work(*std::exchange(stream, stream->next_of_bucket_));
    }
  }

 private:
  struct Frame {
    std::uint32_t size;
    std::uint8_t type;
    std::uint8_t flags;
    std::uint32_t stream;
    const unsigned char* payload;
  };
  struct List {
    Http2Stream* first = nullptr;
    Http2Stream* last = nullptr;
  };

  static Frame HeaderOf(const char* bytes);
  // How many bytes of a frame must be there before it is handled. 0: the frame ends the connection.
  std::size_t Needed(const char* header);
  void OnFrame(const Frame& frame);
  void OnDataFrame(const Frame& frame);
  void OnHeadersFrame(const Frame& frame);
  void OnContinuation(const Frame& frame);
  void OnResetFrame(const Frame& frame);
  void OnSettings(const Frame& frame);
  void OnPing(const Frame& frame);
  void OnGoaway(const Frame& frame);
  void OnWindowUpdate(const Frame& frame);
  void OnPriority(std::uint32_t stream_id, const unsigned char* payload);
  const char* TakeBody(const char* at, const char* end);
  void OnBlock(std::uint32_t stream_id, std::string_view block, bool end);
  bool ReadRequestHead(Http2Stream& stream, std::string_view block);
  bool DecodeRequestHead(Http2Stream& stream, std::string_view block);
  bool ReadTrailers(std::string_view block);
  void SkipBlock(std::string_view block);
  void EndRequest(Http2Stream& stream);

  Http2Stream* Find(std::uint32_t id);
  void Insert(Http2Stream& stream);
  void Close(Http2Stream& stream);
  bool IsIdle(std::uint32_t id) const { return id > last_id_ || id % 2 == 0; }
  bool WasReset(std::uint32_t id) const;
  void SendReset(std::uint32_t id, Http2Error error);
  void Fail(Http2Error error);
  void CountIdleFrame();

  void ToList(List& list, Http2Stream& stream, Http2Stream::Waits waits);
  void Unlist(Http2Stream& stream);
  void WindowGrew(Http2Stream& stream);

  std::string& Out();
  void AppendFrameHeader(std::size_t size, std::uint8_t type, std::uint8_t flags,
                         std::uint32_t stream);
  void SendControl(std::uint8_t type, std::uint8_t flags, std::uint32_t stream,
                   std::string_view payload);
  void SendWindowUpdate(std::uint32_t stream, std::uint32_t more);
  void SendGoaway(std::uint32_t last, Http2Error error);

  const Http2SessionOptions options_;
  Http2Owner& owner_;
  Http2OutputPool& pool_;

  // What is being received.
  Clock::time_point now_;
  std::size_t preface_seen_ = 0;
  bool settings_seen_ = false;
  std::string partial_;          // a frame of which more is needed
  std::uint32_t body_left_ = 0;  // of a frame that is handed on as it comes
  std::uint32_t padding_left_ = 0;
  Http2Stream* body_stream_ = nullptr;  // null: thrown away
  bool body_ends_stream_ = false;
  std::uint32_t block_stream_ = 0;  // whose header block has begun and not ended
  bool block_ends_stream_ = false;
  std::string block_;
  HpackDecoder decoder_;
  // Clients say the same head again and again; what it said is then known without decoding it.
  struct KeptHead {
    std::string block;  // "" = none
    std::uint64_t table_version = 0;
    std::int64_t content_length = -1;
  };
  std::array<KeptHead, kHttp2KeptHeads> kept_heads_;
  std::size_t next_kept_head_ = 0;

  // The streams.
  std::vector<Http2Stream*> buckets_;  // by id
  std::size_t stream_count_ = 0;
  Http2Stream* last_found_ = nullptr;
  std::uint32_t last_id_ = 0;        // the highest that the peer has used
  std::uint32_t last_accepted_ = 0;  // the highest that got an object
  std::uint32_t skipped_from_ = 0;   // ids that the peer passed over last
  std::uint32_t skipped_to_ = 0;
  // Streams that we closed before the peer did, the last ones: what still comes for them is its
  // right.
  std::vector<std::uint32_t> resets_;
  std::size_t next_reset_ = 0;

  // What is being sent.
  std::string output_;
  std::size_t sent_ = 0;
  std::size_t block_at_ = 0;  // of the header block that is being written
  HpackEncoder encoder_;
  List turn_;
  List for_connection_;
  int control_frames_ = 0;  // since the output was empty

  // Windows and settings.
  std::int32_t receive_window_ = kHttp2ConnectionWindowBytes;
  std::int64_t send_window_ = 65535;
  std::int64_t peer_stream_window_ = 65535;
  std::uint32_t peer_frame_bytes_ = 16384;

  bool dead_ = false;
  bool draining_ = false;
  bool goaway_sent_ = false;  // with the last id
  bool goaway_seen_ = false;
  std::uint32_t goaway_last_ = 0;
  int idle_frames_ = 0;
  Clock::time_point idle_frames_since_;
};

}  // namespace takt::net
