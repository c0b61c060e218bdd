// Any bytes behind a client's preface, in any pieces, with a peer that reads as it likes: what the
// session says is a sequence of frames that a peer may get, and what it holds is bounded.
#include <array>
#include <chrono>
#include <cstdint>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/fuzz_for_test.h"
#include "net/http2_answer_for_test.h"
#include "net/http2_frames_for_test.h"
#include "net/http2_session.h"

namespace {

using namespace takt::net;
using takt::Require;

struct Request : TestRequest {
  bool open = false;
  bool heard_all = false;
};

// Answers as a request's first byte says: at once, when all of it came, later, never, by a reset.
class Owner final : public Http2Owner {
 public:
  Http2Stream& OnRequest() override {
    requests.push_back(new Request);
    requests.back()->open = true;
    return *requests.back();
  }
  ~Owner() override {
    for (Request* request : requests) delete request;
  }
  void OnHeader(Http2Stream& stream, const HeaderField& field) override {
    Require(static_cast<Request&>(stream).open, "a field of an open stream");
    if (field.kind == HeaderKind::kPath) {
      static_cast<Request&>(stream).answer.assign(field.value.size() * field.value.size(), 'a');
    }
  }
  bool KeepHead(Http2Stream& stream, std::size_t slot) override {
    kept[slot] = static_cast<Request&>(stream).answer;
    return kept[slot].size() % 3 != 0;
  }
  void OnSameHead(Http2Stream& stream, std::size_t slot) override {
    static_cast<Request&>(stream).answer = kept[slot];
  }
  void OnHeaders(Http2Stream& stream) override {
    Require(static_cast<Request&>(stream).open, "the head of an open stream");
  }
  void OnData(Http2Stream& stream, std::string_view data) override {
    auto& request = static_cast<Request&>(stream);
    Require(request.open && !request.heard_all && !data.empty(), "data of an open stream");
    if (data[0] == 'r') return session->Reset(stream, Http2Error::kInternal);
    if (data[0] == 'a' && !request.headers_sent) Answer(request);
  }
  void OnEnd(Http2Stream& stream) override {
    auto& request = static_cast<Request&>(stream);
    Require(request.open && !request.heard_all, "the end of an open stream, once");
    request.heard_all = true;
    if (request.answer.size() % 7 != 1 && !request.headers_sent) Answer(request);
  }
  void OnClosed(Http2Stream& stream) override {
    auto& request = static_cast<Request&>(stream);
    Require(std::exchange(request.open, false), "a stream is closed once");
  }
  void OnWritable(Http2Stream& stream) override {
    Require(static_cast<Request&>(stream).open, "an open stream may write");
    Answer(static_cast<Request&>(stream));
  }
  void Answer(Request& request) { SendAnswer(*session, request); }

  Http2Session* session = nullptr;
  std::vector<Request*> requests;
  std::array<std::string, kHttp2KeptHeads> kept;
};

// What a client checks of what it gets.
class Judge {
 public:
  void Hear(std::string_view output) {
    in_.append(output);
    while (auto frame = frames::TakeFrame(in_)) {
      Require(!ended_, "nothing comes behind a goodbye with an error");
      const std::string& payload = frame->payload;
      switch (frame->type) {
        case frames::kHeaders:
          Require((frame->flags & frames::kEndHeaders) != 0, "a short header block is whole");
          Require(inflater_.Inflate(payload).find("malformed") == std::string::npos,
                  "header blocks inflate");
          [[fallthrough]];
        case frames::kData:
          Require(frame->stream % 2 == 1 && !over_.contains(frame->stream),
                  "answers are of open streams");
          if ((frame->flags & frames::kEndStream) != 0) over_.insert(frame->stream);
          break;
        case frames::kReset:
          over_.insert(frame->stream);
          Require(payload.size() == 4, "a reset has its code");
          break;
        case frames::kGoaway:
          ended_ = frames::Code(std::string_view(payload).substr(4)) != 0;
          break;
        case frames::kSettings:
          Require(payload.size() % 6 == 0, "settings are by six bytes");
          break;
        case frames::kPing:
          Require(payload.size() == 8, "a ping has eight bytes");
          break;
        case frames::kWindow:
          Require(payload.size() == 4 && frames::Code(payload) != 0, "a window grows");
          break;
        default:
          Require(false, "no other frames come");
      }
    }
  }

 private:
  std::string in_;
  frames::Inflater inflater_;
  std::set<std::uint32_t> over_;
  bool ended_ = false;
};

}  // namespace

// The first byte: pieces of how many bytes, and how much of the output the peer reads after each.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::size_t piece = std::size_t{1} << (data[0] % 16);
  const std::size_t reads = data[0] / 16 == 0 ? SIZE_MAX : std::size_t{1} << (data[0] / 16);
  const std::string all = std::string(frames::kPreface) +
                          frames::Frame(frames::kSettings, 0, 0, "") +
                          std::string(reinterpret_cast<const char*>(data + 1), size - 1);
  Owner owner;
  Http2OutputPool pool;
  Judge judge;
  {
    Http2Session session(
        {.max_concurrent_streams = 20, .max_header_bytes = 4096, .max_idle_frames_per_second = 100},
        owner, pool, kTestFields);
    owner.session = &session;
    Http2Session::Clock::time_point now{std::chrono::hours(1)};
    const auto read = [&](std::size_t most) {
      session.Fill();
      const std::string_view output = session.Output().substr(0, most);
      judge.Hear(output);
      if (!output.empty()) session.Sent(output.size());
    };
    bool open = true;
    for (std::size_t at = 0; open && at < all.size(); at += piece) {
      const std::string bytes = all.substr(at, piece);  // exactly so long, for the sanitizers
      open = session.Receive(bytes, now);
      Require(open || session.finished(), "a session that has ended says so");
      read(reads);
      now += std::chrono::milliseconds(data[0]);
      if (at / piece == 1000) session.StartDrain();
      std::size_t streams = 0;
      session.ForEachStream([&](Http2Stream& stream) {
        Require(static_cast<Request&>(stream).open, "streams of the table are open");
        ++streams;
      });
      Require(streams == session.stream_count() && streams <= 20, "streams are counted");
      Require(session.Output().size() < 2 * kHttp2OutputBytes, "what waits is bounded");
    }
    while (!session.Output().empty()) read(SIZE_MAX);
  }
  return 0;
}
