// A session's bytes against RFC 9113: what it says to each thing that a peer may say, and may not.
#include "net/http2_session.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <functional>
#include <memory>
#include <optional>
#include <random>

#include "base/str.h"
#include "net/http2_answer_for_test.h"
#include "net/http2_frames_for_test.h"

namespace takt::net {
namespace {

using namespace frames;

constexpr Http2SessionOptions kOptions = {
    .max_concurrent_streams = 5, .max_header_bytes = 1000, .max_idle_frames_per_second = 200};

struct Request : TestRequest {
  std::string head;
  std::string body;
};

// Keeps what it is asked, and answers at the end of each request with `answer` when there is one.
class Owner : public Http2Owner {
 public:
  Http2Stream& OnRequest() override {
    open.push_back(std::make_unique<Request>());
    return *open.back();
  }
  void OnHeader(Http2Stream& stream, const HeaderField& field) override {
    static_cast<Request&>(stream).head.append(field.name).append(": ").append(field.value) += '\n';
  }
  bool KeepHead(Http2Stream& stream, std::size_t slot) override {
    kept[slot] = static_cast<Request&>(stream).head;
    return true;
  }
  void OnSameHead(Http2Stream& stream, std::size_t slot) override {
    static_cast<Request&>(stream).head = kept[slot];
    ++same_heads;
  }
  void OnHeaders(Http2Stream& stream) override { log += StrCat("head ", stream.stream_id(), "\n"); }
  void OnData(Http2Stream& stream, std::string_view data) override {
    static_cast<Request&>(stream).body.append(data);
  }
  void OnEnd(Http2Stream& stream) override {
    auto& request = static_cast<Request&>(stream);
    log += StrCat("end ", stream.stream_id(), " ", request.body.size(), "\n");
    last_head = request.head;
    if (!answer.has_value()) return;
    request.answer = *answer;
    Answer(request);
  }
  void OnClosed(Http2Stream& stream) override {
    log += StrCat("closed ", stream.stream_id(), "\n");
    std::erase_if(open, [&](const auto& owned) { return owned.get() == &stream; });
  }
  void OnWritable(Http2Stream& stream) override { Answer(static_cast<Request&>(stream)); }

  void Answer(Request& request) { SendAnswer(*session, request); }
  Request& Of(std::uint32_t id) {
    for (auto& request : open) {
      if (request->stream_id() == id) return *request;
    }
    ADD_FAILURE() << "no stream " << id;
    return *open.front();
  }

  Http2Session* session = nullptr;
  std::optional<std::string> answer = "";
  std::vector<std::unique_ptr<Request>> open;
  std::string log;
  std::string last_head;
  std::array<std::string, kHttp2KeptHeads> kept;
  int same_heads = 0;
};

// A connection, and its client in words.
class Talk {
 public:
  explicit Talk(const Http2SessionOptions& options = kOptions)
      : session(options, owner, pool, kTestFields) {
    owner.session = &session;
  }
  // Says hello and forgets what the server says to it.
  Talk& Hello() {
    Say(std::string(kPreface) + Frame(kSettings, 0, 0, ""));
    return *this;
  }
  // What the server says to `bytes`, a line a frame.
  std::string Say(std::string_view bytes) {
    open = session.Receive(bytes, now);
    return Hear();
  }
  std::string Hear() {
    while (true) {
      session.Fill();
      const std::string_view output = session.Output();
      if (output.empty()) break;
      bytes_sent += output.size();
      in_.append(output);
      session.Sent(output.size());
    }
    std::string said;
    while (auto frame = TakeFrame(in_)) said += Words(*frame) + "\n";
    EXPECT_EQ(in_, "") << "half a frame";
    return said;
  }
  std::string Words(const Seen& frame) {
    const std::string end = (frame.flags & kEndStream) != 0 ? " end" : "";
    switch (frame.type) {
      case kData:
        return StrCat("data ", frame.stream, " ", frame.payload.size(), end);
      case kHeaders:
      case kContinue: {
        block_ += frame.payload;
        std::string words =
            StrCat(frame.type == kHeaders ? "headers " : "continuation ", frame.stream, end);
        if ((frame.flags & kEndHeaders) == 0) return words + " ...";
        std::string fields = inflater.Inflate(std::exchange(block_, ""));
        std::replace(fields.begin(), fields.end(), '\n', ' ');
        return StrCat(words, " ", fields.substr(0, fields.size() - 1));
      }
      case kReset:
        return StrCat("reset ", frame.stream, " ", Code(frame.payload));
      case kSettings:
        return (frame.flags & kAck) != 0 ? "settings ack" : "settings";
      case kPing:
        return StrCat((frame.flags & kAck) != 0 ? "ping ack " : "ping ", frame.payload);
      case kGoaway:
        return StrCat("goaway ", Code(frame.payload), " ", Code(frame.payload.substr(4)));
      case kWindow:
        return StrCat("window ", frame.stream, " ", Code(frame.payload));
      default:
        return StrCat("frame ", frame.type);
    }
  }

  Owner owner;
  Http2OutputPool pool;
  Http2Session session;
  Inflater inflater;
  Http2Session::Clock::time_point now{std::chrono::hours(1)};
  bool open = true;
  std::size_t bytes_sent = 0;

 private:
  std::string in_;
  std::string block_;
};

std::string Post(std::uint32_t stream, std::string_view body = "", const std::string& more = "") {
  return Frame(kHeaders, kEndHeaders, stream, Block() + more) +
         Frame(kData, kEndStream, stream, body);
}
constexpr std::string_view kAnswered1 =
    "headers 1 :status: 200 x-answer: yes\nheaders 1 end x-end: now\n";

TEST(Http2Session, GreetsAndAnswers) {
  Talk talk;
  EXPECT_EQ(talk.Say(kPreface), "settings\nwindow 0 33488897\n");
  EXPECT_EQ(talk.Say(Frame(kSettings, 0, 0, "")), "settings ack\n");
  EXPECT_EQ(talk.Say(Frame(kSettings, kAck, 0, "")), "");
  talk.owner.answer = "hello";
  EXPECT_EQ(talk.Say(Post(1, "body")),
            "headers 1 :status: 200 x-answer: yes\ndata 1 5\nheaders 1 end x-end: now\n");
  EXPECT_EQ(talk.owner.log, "head 1\nend 1 4\nclosed 1\n");
  EXPECT_EQ(talk.owner.last_head,
            ":method: POST\n:scheme: http\n:path: /t.T/Echo\n:authority: x\n"
            "content-type: application/grpc\nte: trailers\n");
  EXPECT_EQ(talk.session.stream_count(), 0U);
}

TEST(Http2Session, UnderstandsTheSameInPiecesOfEverySize) {
  const std::string whole =
      std::string(kPreface) + Frame(kSettings, 0, 0, Setting(4, 70000)) +
      Frame(kHeaders, kPadded, 1, "\3" + Block().substr(0, 20) + std::string(3, '\0')) +
      Frame(kContinue, kEndHeaders, 1, Block().substr(20)) +
      Frame(kData, kPadded, 1, "\2one" + std::string(2, '\0')) + Frame(kPing, 0, 0, "12345678") +
      Frame(99, 0xff, 1, "of a kind that nobody knows") +
      Frame(kData, kPadded | kEndStream, 1, std::string("\1", 1) + '\0') +
      Frame(kGoaway, 0, 0, std::string(8, '\0') + "words");
  const std::string expected =
      StrCat("settings\nwindow 0 33488897\nsettings ack\nping ack 12345678\n", kAnswered1);
  for (std::size_t piece = 1; piece <= whole.size(); ++piece) {
    Talk talk;
    std::string said;
    for (std::size_t at = 0; at < whole.size(); at += piece) {
      said += talk.Say(std::string_view(whole).substr(at, piece));
    }
    ASSERT_EQ(said, expected) << piece;
    ASSERT_EQ(talk.owner.log, "head 1\nend 1 3\nclosed 1\n") << piece;
    ASSERT_TRUE(talk.session.finished()) << "the peer goes away";
  }
}

// What a peer may not say, and what it hears: "goaway LAST CODE" and the end, or "reset STREAM
// CODE" and the connection goes on.
TEST(Http2Session, EveryViolationHasItsError) {
  const std::string request = Frame(kHeaders, kEndHeaders, 1, Block());
  const std::string done = Post(1);
  const std::string reset1 = Frame(kReset, 0, 1, U32(8));
  struct Case {
    const char* what;
    std::string bytes;
    std::string said;
  };
  for (const Case& c : std::initializer_list<Case>{
           {"data on stream 0", Frame(kData, 0, 0, "x"), "goaway 0 1"},
           {"data on an idle stream", Frame(kData, 0, 1, "x"), "goaway 0 1"},
           {"data on a stream of ours", Frame(kData, 0, 2, "x"), "goaway 0 1"},
           {"data behind the end",
            request + Frame(kData, kEndStream, 1, "") + Frame(kData, 0, 1, "x"), "reset 1 5"},
           {"data behind the peer's own reset", request + reset1 + Frame(kData, 0, 1, "x"),
            "reset 1 5"},
           {"padding that fills the frame", request + Frame(kData, kPadded, 1, "\3ab"),
            "goaway 1 1"},
           {"padding without its length", request + Frame(kData, kPadded, 1, ""), "goaway 1 6"},
           {"a frame beyond the limit", std::string("\x10\0\1\0\0\0\0\0\1", 9), "goaway 0 6"},
           {"headers on stream 0", Frame(kHeaders, kEndHeaders, 0, Block()), "goaway 0 1"},
           {"headers on an even stream", Frame(kHeaders, kEndHeaders, 2, Block()), "goaway 0 1"},
           {"headers on a stream passed over",
            Frame(kHeaders, kEndHeaders, 5, Block()) + Frame(kHeaders, kEndHeaders, 3, Block()),
            "goaway 5 1"},
           {"headers on a closed stream", done + Frame(kHeaders, kEndHeaders, 1, Block()),
            StrCat(kAnswered1, "goaway 1 5")},
           {"headers behind the end",
            request + Frame(kData, kEndStream, 1, "") +
                Frame(kHeaders, kEndHeaders | kEndStream, 1, Block()),
            "reset 1 5"},
           {"headers with padding that fills them",
            Frame(kHeaders, kEndHeaders | kPadded, 1, "\2a"), "goaway 0 1"},
           {"headers that depend on themselves",
            Frame(kHeaders, kEndHeaders | 0x20, 1, U32(1) + "\1" + Block()), "goaway 0 1"},
           {"headers that do not decode", Frame(kHeaders, kEndHeaders, 1, "\xff\xff\xff\xff\xff"),
            "goaway 1 9"},
           {"trailers that do not end the stream",
            request + Frame(kHeaders, kEndHeaders, 1, Header("x", "y")), "reset 1 1"},
           {"trailers with a pseudo-header",
            request + Frame(kHeaders, kEndHeaders | kEndStream, 1, Header(":path", "/")),
            "reset 1 1"},
           {"trailers that do not decode",
            request + Frame(kHeaders, kEndHeaders | kEndStream, 1, "\x80"), "goaway 1 9"},
           {"another frame within a header block", Frame(kHeaders, 0, 1, Block()) + done,
            "goaway 0 1"},
           {"a continuation of nothing", Frame(kContinue, kEndHeaders, 1, ""), "goaway 0 1"},
           {"a continuation of another stream",
            Frame(kHeaders, 0, 1, Block()) + Frame(kContinue, kEndHeaders, 3, ""), "goaway 0 1"},
           {"a header block beyond twice the limit",
            Frame(kHeaders, 0, 1, std::string(1500, 'x')) +
                Frame(kContinue, 0, 1, std::string(501, 'x')),
            "goaway 0 11"},
           {"a head beyond the limit",
            Frame(kHeaders, kEndHeaders, 1, Block() + Header("x", std::string(700, 'x'))),
            "reset 1 11"},
           {"a priority of stream 0", Frame(kPriority, 0, 0, std::string(5, '\0')), "goaway 0 1"},
           {"a priority of another size", Frame(kPriority, 0, 1, "1234"), "goaway 0 6"},
           {"a priority over itself", Frame(kPriority, 0, 3, U32(3) + "\1"), "goaway 0 1"},
           {"a reset of stream 0", Frame(kReset, 0, 0, U32(8)), "goaway 0 1"},
           {"a reset of an idle stream", reset1, "goaway 0 1"},
           {"a reset of another size", request + Frame(kReset, 0, 1, "123"), "goaway 1 6"},
           {"settings of a stream", Frame(kSettings, 0, 1, ""), "goaway 0 1"},
           {"settings of another size", Frame(kSettings, 0, 0, "12345"), "goaway 0 6"},
           {"an acknowledgement with settings", Frame(kSettings, kAck, 0, Setting(1, 1)),
            "goaway 0 6"},
           {"push that is neither on nor off", Frame(kSettings, 0, 0, Setting(2, 2)), "goaway 0 1"},
           {"a window beyond the largest", Frame(kSettings, 0, 0, Setting(4, 0x80000000)),
            "goaway 0 3"},
           {"frames below the smallest", Frame(kSettings, 0, 0, Setting(5, 16383)), "goaway 0 1"},
           {"frames beyond the largest", Frame(kSettings, 0, 0, Setting(5, 1 << 24)), "goaway 0 1"},
           {"a promise", Frame(kPush, kEndHeaders, 1, U32(2)), "goaway 0 1"},
           {"a ping of a stream", Frame(kPing, 0, 1, "12345678"), "goaway 0 1"},
           {"a ping of another size", Frame(kPing, 0, 0, "1234567"), "goaway 0 6"},
           {"a goodbye of a stream", Frame(kGoaway, 0, 1, std::string(8, '\0')), "goaway 0 1"},
           {"a goodbye of another size", Frame(kGoaway, 0, 0, std::string(7, '\0')), "goaway 0 6"},
           {"a window update of nothing", Frame(kWindow, 0, 0, U32(0)), "goaway 0 1"},
           {"a window update of another size", Frame(kWindow, 0, 0, "123"), "goaway 0 6"},
           {"a window update of an idle stream", Frame(kWindow, 0, 1, U32(1)), "goaway 0 1"},
           {"a window update beyond the largest", Frame(kWindow, 0, 0, U32(0x7fffffff)),
            "goaway 0 3"},
           {"a stream's window update of nothing", request + Frame(kWindow, 0, 1, U32(0)),
            "reset 1 1"},
           {"a stream's window beyond the largest", request + Frame(kWindow, 0, 1, U32(0x7fffffff)),
            "reset 1 3"},
           {"a stream's window beyond the largest, by a setting",
            request + Frame(kWindow, 0, 1, U32(0x7fffffff - 65535)) +
                Frame(kSettings, 0, 0, Setting(4, 65536)),
            "goaway 1 3"},
       }) {
    Talk talk;
    talk.Hello();
    if (c.said.starts_with("reset") || c.said.starts_with("goaway")) talk.owner.answer.reset();
    const std::string said = talk.Say(c.bytes);
    EXPECT_EQ(said, c.said + "\n") << c.what;
    const bool over = c.said.find("goaway") != std::string::npos;
    EXPECT_EQ(talk.open, !over) << c.what;
    if (over) continue;
    EXPECT_EQ(talk.Say(Frame(kPing, 0, 0, "still it")), "ping ack still it\n") << c.what;
    EXPECT_EQ(talk.session.stream_count(), 0U) << c.what;
  }
}

TEST(Http2Session, BeginsWithThePrefaceAndSettings) {
  for (const std::string& bytes :
       {std::string("GET / HTTP/1.1\r\n\r\n"), std::string("PRI * HTTP/2.0\r\n\r\nSM\r\n\rx"),
        std::string(kPreface) + Frame(kPing, 0, 0, "12345678"),
        std::string(kPreface) + Frame(kSettings, kAck, 0, "")}) {
    Talk talk;
    EXPECT_EQ(talk.Say(bytes), "settings\nwindow 0 33488897\ngoaway 0 1\n") << bytes;
    EXPECT_FALSE(talk.open);
  }
}

// A request head that is malformed resets its stream, and the next one is served.
TEST(Http2Session, AHeadIsWhatTheRfcSays) {
  const std::string good =
      Header(":method", "GET") + Header(":scheme", "http") + Header(":path", "/");
  struct Case {
    const char* what;
    std::string block;
    bool well_formed = false;
  };
  for (const Case& c : std::initializer_list<Case>{
           {"three pseudo-headers", good, true},
           {"with an authority that is empty", good + Header(":authority", ""), true},
           {"no method", good.substr(Header(":method", "GET").size())},
           {"no scheme", Header(":method", "GET") + Header(":path", "/")},
           {"no path", Header(":method", "GET") + Header(":scheme", "http")},
           {"an empty path",
            Header(":method", "GET") + Header(":scheme", "http") + Header(":path", "")},
           {"a pseudo-header twice", good + Header(":path", "/")},
           {"a pseudo-header behind a field", good + Header("a", "b") + Header(":authority", "x")},
           {"an answer's pseudo-header", good + Header(":status", "200")},
           {"a pseudo-header of nobody", good + Header(":x", "y")},
           {"connect", Header(":method", "CONNECT") + Header(":authority", "x"), true},
           {"connect with a path", good + Header(":authority", "x") + Header(":method", "CONNECT")},
           {"connect to nobody", Header(":method", "CONNECT")},
           {"capital letters", good + Header("X-A", "b")},
           {"a connection header", good + Header("connection", "close")},
           {"te trailers", good + Header("te", "trailers"), true},
           {"te of another kind", good + Header("te", "gzip")},
           {"a length that is none", good + Header("content-length", "x")},
           {"a length of too many digits", good + Header("content-length", std::string(19, '1'))},
           {"two lengths", good + Header("content-length", "0") + Header("content-length", "1")},
           {"one length twice",
            good + Header("content-length", "0") + Header("content-length", "0"), true},
           {"a length that is not kept", good + Header("content-length", "1")},
       }) {
    Talk talk;
    talk.Hello();
    EXPECT_EQ(talk.Say(Frame(kHeaders, kEndHeaders | kEndStream, 1, c.block)),
              c.well_formed ? std::string(kAnswered1) : "reset 1 1\n")
        << c.what;
    EXPECT_EQ(talk.Say(Post(3)), "headers 3 :status: 200 x-answer: yes\nheaders 3 end x-end: now\n")
        << c.what;
  }
}

TEST(Http2Session, AHeadThatComesAgainSaysTheSameAsLongAsTheTableIsTheSame) {
  Talk talk;
  talk.Hello();
  const auto head = [&](std::uint32_t id, const std::string& block) {
    talk.Say(Frame(kHeaders, kEndHeaders | kEndStream, id, block));
    return talk.owner.last_head;
  };
  const auto indexed = [](std::string_view name, std::string_view value) {
    return '\x40' + Header(name, value).substr(1);
  };
  const std::string plain = Block();
  const std::string first = head(1, plain);
  EXPECT_EQ(head(3, plain), first);
  EXPECT_EQ(talk.owner.same_heads, 1);
  // A block that fills the table is new whenever it comes.
  EXPECT_EQ(head(5, plain + indexed("a", "1")), first + "a: 1\n");
  EXPECT_EQ(head(7, plain + indexed("a", "1")), first + "a: 1\n");
  EXPECT_EQ(talk.owner.same_heads, 1);
  // The same bytes mean something else when the table is another.
  const std::string newest = plain + "\xbe";
  EXPECT_EQ(head(9, newest), first + "a: 1\n");
  EXPECT_EQ(head(11, newest), first + "a: 1\n");
  EXPECT_EQ(talk.owner.same_heads, 2);
  EXPECT_EQ(head(13, plain + indexed("b", "2")), first + "b: 2\n");
  EXPECT_EQ(head(15, newest), first + "b: 2\n");
  EXPECT_EQ(talk.owner.same_heads, 2);
  EXPECT_EQ(talk.Say(Frame(kHeaders, kEndHeaders | kEndStream, 17, "\x20" + newest)),
            "goaway 17 9\n")
      << "emptied";
  Talk other;
  other.Hello();
  // A length is kept with its head.
  const std::string three = Block() + Header("content-length", "3");
  for (std::uint32_t id : {1, 3}) {
    EXPECT_EQ(
        other.Say(Frame(kHeaders, kEndHeaders, id, three) + Frame(kData, kEndStream, id, "four")),
        StrCat("reset ", id, " 1\n"));
  }
  EXPECT_EQ(other.owner.same_heads, 1);
  // What is malformed stays so.
  for (std::uint32_t id : {5, 7}) {
    EXPECT_EQ(other.Say(Frame(kHeaders, kEndHeaders, id, Header("x", "y"))),
              StrCat("reset ", id, " 1\n"));
  }
}

TEST(Http2Session, TheLengthIsThatOfTheBody) {
  for (const auto& [length, body, said] :
       std::initializer_list<std::tuple<const char*, const char*, std::string>>{
           {"3", "abc", std::string(kAnswered1)},
           {"0", "", std::string(kAnswered1)},
           {"4", "abc", "reset 1 1\n"},
           {"2", "abc", "reset 1 1\n"},
       }) {
    Talk talk;
    talk.Hello();
    EXPECT_EQ(talk.Say(Post(1, body, Header("content-length", length))), said) << length << body;
  }
}

TEST(Http2Session, TrailersEndARequest) {
  Talk talk;
  talk.Hello();
  EXPECT_EQ(talk.Say(Frame(kHeaders, kEndHeaders, 1, Block()) + Frame(kData, 0, 1, "ab") +
                     Frame(kHeaders, kEndHeaders | kEndStream, 1, Header("x", "y"))),
            kAnswered1);
  EXPECT_EQ(talk.owner.log, "head 1\nend 1 2\nclosed 1\n");
}

TEST(Http2Session, StreamsBeyondTheLimitAreRefusedAndTheTableOfFieldsIsStillKept) {
  Talk talk;
  talk.Hello();
  talk.owner.answer.reset();
  for (std::uint32_t id : {1, 3, 5, 7, 9}) EXPECT_EQ(talk.Say(Post(id)), "");
  // The field of the stream that is refused enters the table, and the next one refers to it.
  std::string block = Block();
  block += '\x40' + Header("x-new", "value").substr(1);
  EXPECT_EQ(talk.Say(Frame(kHeaders, kEndHeaders, 11, block) +
                     Frame(kData, kEndStream, 11, "on its way")),
            "reset 11 7\n");
  EXPECT_EQ(talk.Say(Frame(kReset, 0, 3, U32(8)) +
                     Frame(kHeaders, kEndHeaders | kEndStream, 13, Block() + "\xbe")),
            "");
  EXPECT_NE(talk.owner.last_head.find("x-new: value"), std::string::npos);
}

TEST(Http2Session, WhatStillComesForAStreamThatWeResetIsThePeersRight) {
  Talk talk;
  talk.Hello();
  talk.owner.answer.reset();
  talk.Say(Frame(kHeaders, kEndHeaders, 1, Block()));
  talk.session.Reset(talk.owner.Of(1), Http2Error::kInternal);
  EXPECT_EQ(talk.Hear(), "reset 1 2\n");
  EXPECT_EQ(talk.Say(Frame(kData, 0, 1, "late") + Frame(kWindow, 0, 1, U32(5)) +
                     Frame(kHeaders, kEndHeaders | kEndStream, 1, Header("x", "y")) +
                     Frame(kReset, 0, 1, U32(8))),
            "");
  EXPECT_TRUE(talk.open);
}

TEST(Http2Session, AnAnswerKeepsToTheWindowsOfThePeer) {
  Talk talk;
  talk.Hello();
  talk.owner.answer = std::string(100000, 'a');
  EXPECT_EQ(talk.Say(Post(1)),
            "headers 1 :status: 200 x-answer: yes\ndata 1 16384\ndata 1 16384\ndata 1 16384\n"
            "data 1 16383\n");
  EXPECT_EQ(talk.Say(Frame(kWindow, 0, 1, U32(1000000))), "") << "the connection's is used up";
  EXPECT_EQ(talk.Say(Frame(kWindow, 0, 0, U32(10))), "data 1 10\n");
  EXPECT_EQ(
      talk.Say(Frame(kSettings, 0, 0, Setting(5, 50000)) + Frame(kWindow, 0, 0, U32(1000000))),
      "settings ack\ndata 1 34455\nheaders 1 end x-end: now\n");
}

TEST(Http2Session, AStreamsWindowMayBecomeNegative) {
  Talk talk;
  talk.Hello();
  talk.Say(Frame(kSettings, 0, 0, Setting(4, 10)));
  talk.owner.answer = std::string(20, 'a');
  EXPECT_EQ(talk.Say(Post(1)), "headers 1 :status: 200 x-answer: yes\ndata 1 10\n");
  EXPECT_EQ(talk.Say(Frame(kSettings, 0, 0, Setting(4, 4))), "settings ack\n");
  EXPECT_EQ(talk.Say(Frame(kWindow, 0, 1, U32(6))), "") << "from -6 to 0";
  EXPECT_EQ(talk.Say(Frame(kWindow, 0, 1, U32(1))), "data 1 1\n");
  EXPECT_EQ(talk.Say(Frame(kSettings, 0, 0, Setting(4, 1000))),
            "settings ack\ndata 1 9\nheaders 1 end x-end: now\n");
  EXPECT_EQ(talk.Say(Frame(kSettings, 0, 0, Setting(4, 0)) + Post(3)),
            "settings ack\nheaders 3 :status: 200 x-answer: yes\n");
}

TEST(Http2Session, StreamsTakeTurns) {
  Talk talk;
  talk.Hello();
  talk.Say(Frame(kSettings, 0, 0, Setting(4, 0x7fffffff) + Setting(5, 65536)) +
           Frame(kWindow, 0, 0, U32(0x7fff0000)));
  talk.owner.answer = std::string(std::size_t{3} * 65536, 'a');
  talk.session.Receive(Post(1) + Post(3) + Post(5), talk.now);
  std::string said = talk.Hear();
  std::string order;
  for (std::size_t at = 0; (at = said.find("data ", at)) != std::string::npos; ++at) {
    order += said[at + 5];
  }
  EXPECT_EQ(order, "135135135");
}

TEST(Http2Session, TheWindowsThatWeGiveAreRenewedWhenHalfUsedAndKept) {
  Talk talk;
  talk.Hello();
  talk.owner.answer.reset();
  const std::string mega(1 << 20, 'd');
  EXPECT_EQ(talk.Say(Frame(kHeaders, kEndHeaders, 1, Block()) + Frame(kData, 0, 1, mega) +
                     Frame(kData, 0, 1, mega)),
            "");
  EXPECT_EQ(talk.Say(Frame(kData, kPadded, 1, std::string(1, '\0') + "x")),
            StrCat("window 1 ", (2 << 20) + 2, "\n"))
      << "padding counts";
  // Streams that give back nothing use up the connection's half, and it is renewed.
  std::string said;
  for (std::uint32_t id : {3, 5, 7, 9}) {
    said += talk.Say(Frame(kHeaders, kEndHeaders, id, Block()));
    for (int i = 0; i < 4; ++i) said += talk.Say(Frame(kData, i == 3 ? kEndStream : 0, id, mega));
  }
  EXPECT_EQ(said.find("reset"), std::string::npos);
  EXPECT_NE(said.find("window 0 "), std::string::npos) << said;
  EXPECT_TRUE(talk.open);
}

TEST(Http2Session, ADrainEndsWhenWhatWasAskedIsAnswered) {
  Talk talk;
  talk.Hello();
  talk.owner.answer.reset();
  EXPECT_EQ(talk.Say(Post(1)), "");
  talk.session.StartDrain();
  EXPECT_EQ(talk.Hear(), StrCat("goaway 2147483647 0\nping ", std::string(8, '\0'), "\n"));
  EXPECT_EQ(talk.Say(Post(3)), "") << "it did not know yet";
  EXPECT_EQ(talk.Say(Frame(kPing, kAck, 0, std::string(8, '\0'))), "goaway 3 0\n");
  EXPECT_EQ(talk.Say(Post(5)), "reset 5 7\n");
  for (std::uint32_t id : {1, 3}) {
    EXPECT_FALSE(talk.session.finished());
    talk.owner.Answer(talk.owner.Of(id));
    EXPECT_NE(talk.Hear(), "");
  }
  EXPECT_TRUE(talk.session.finished());
}

TEST(Http2Session, HeadersBeyondAFrameOfThePeerAreContinued) {
  Talk talk;
  talk.Hello();
  talk.owner.answer.reset();
  talk.Say(Post(1));
  talk.session.BeginHeaders();
  talk.session.fields().Literal("x", std::string(40000, 'x'), talk.session.block());
  talk.session.EndHeaders(talk.owner.Of(1), true);
  EXPECT_EQ(talk.Hear(), StrCat("headers 1 end ...\ncontinuation 1 ...\ncontinuation 1 x: ",
                                std::string(40000, 'x'), "\n"));
}

TEST(Http2Session, IdleFramesBeyondTheirLimitEndTheConnection) {
  struct Case {
    const char* what;
    std::function<std::string(std::uint32_t)> frame;
  };
  for (const Case& c : std::initializer_list<Case>{
           {"pings", [](std::uint32_t) { return Frame(kPing, 0, 0, "12345678"); }},
           {"settings", [](std::uint32_t) { return Frame(kSettings, 0, 0, ""); }},
           {"priorities",
            [](std::uint32_t) { return Frame(kPriority, 0, 1, std::string(5, '\0')); }},
           {"empty data", [](std::uint32_t) { return Frame(kData, 0, 1, ""); }},
           {"padding alone",
            [](std::uint32_t) { return Frame(kData, kPadded, 1, std::string("\1\0", 2)); }},
           {"resets",
            [](std::uint32_t i) {
              return Frame(kHeaders, kEndHeaders, 2 * i + 3, Block()) +
                     Frame(kReset, 0, 2 * i + 3, U32(8));
            }},
           {"heads that we must reset",
            [](std::uint32_t i) { return Frame(kHeaders, kEndHeaders, 2 * i + 3, ""); }},
           {"ends of streams that are gone",
            [](std::uint32_t i) {
              return (i == 0 ? Frame(kReset, 0, 1, U32(8)) : "") + Frame(kData, kEndStream, 1, "");
            }},
           {"trailers of streams that are gone",
            [](std::uint32_t i) {
              return (i == 0 ? Frame(kData, 0, 1, "") + Frame(kWindow, 0, 1, U32(0)) : "") +
                     Frame(kHeaders, kEndHeaders | kEndStream, 1, Header("x", "y"));
            }},
       }) {
    for (bool slowly : {false, true}) {
      Talk talk;
      talk.Hello();
      talk.owner.answer.reset();
      talk.Say(Frame(kHeaders, kEndHeaders, 1, Block()));
      std::string said;
      for (int i = 0; i < kOptions.max_idle_frames_per_second + 2; ++i) {
        if (slowly) talk.now += std::chrono::milliseconds(20);
        said = talk.Say(c.frame(static_cast<std::uint32_t>(i)));
        if (!talk.open) break;
      }
      EXPECT_EQ(talk.open, slowly) << c.what;
      EXPECT_EQ(said.find(" 11\n") != std::string::npos, !slowly) << c.what << ": " << said;
    }
  }
}

TEST(Http2Session, APeerThatDoesNotReadCannotFillOurMemory) {
  Talk talk;
  talk.Hello();
  // Few a second, for ever.
  int pings = 0;
  while (talk.open && pings < 2 * kMaxHttp2QueuedControlFrames) {
    talk.now += std::chrono::milliseconds(100);
    talk.open = talk.session.Receive(Frame(kPing, 0, 0, "12345678"), talk.now);
    ++pings;
  }
  EXPECT_FALSE(talk.open);
  EXPECT_TRUE(talk.session.finished());
  EXPECT_EQ(pings, kMaxHttp2QueuedControlFrames + 1);
}

TEST(Http2Session, AnswersWaitForAPeerThatDoesNotRead) {
  Talk talk({.max_concurrent_streams = 1000,
             .max_header_bytes = 1000,
             .max_idle_frames_per_second = 200});
  talk.Hello();
  talk.Say(Frame(kWindow, 0, 0, U32(0x7fff0000)));
  talk.owner.answer = std::string(1000, 'a');
  for (std::uint32_t i = 0; i < 900; ++i) talk.session.Receive(Post(2 * i + 1), talk.now);
  EXPECT_LT(talk.session.Output().size(), kHttp2OutputBytes + 2000);
  EXPECT_GT(talk.session.stream_count(), 500U);
  // It reads after all, a little at a time.
  std::size_t largest = 0;
  while (!talk.session.Output().empty()) {
    talk.session.Sent(std::min<std::size_t>(talk.session.Output().size(), 777));
    talk.session.Fill();
    largest = std::max(largest, talk.session.Output().size());
  }
  EXPECT_EQ(talk.session.stream_count(), 0U);
  EXPECT_LT(largest, kHttp2OutputBytes + 2000);
}

TEST(Http2Session, SettingsBeyondTheirLimitEndTheConnection) {
  std::string settings;
  for (std::size_t i = 0; i < kMaxHttp2Settings; ++i) settings += Setting(99, 1);
  Talk talk;
  talk.Hello();
  EXPECT_EQ(talk.Say(Frame(kSettings, 0, 0, settings)), "settings ack\n");
  EXPECT_EQ(talk.Say(Frame(kSettings, 0, 0, settings + Setting(99, 1))), "goaway 0 11\n");
}

// Thousands of streams, opened and ended in any order, are each found again.
TEST(Http2Session, StreamsAreFoundInWhateverOrderTheyEnd) {
  Talk talk({.max_concurrent_streams = 5000,
             .max_header_bytes = 1000,
             .max_idle_frames_per_second = 200});
  talk.Hello();
  std::mt19937 random(7);
  std::vector<std::uint32_t> open;
  std::uint32_t next = 1;
  for (int step = 0; step < 20000; ++step) {
    if (open.empty() || (random() % 2 == 0 && open.size() < 3000)) {
      ASSERT_EQ(talk.Say(Frame(kHeaders, kEndHeaders, next, Block())), "");
      open.push_back(next);
      next += 2;
    } else {
      std::swap(open[random() % open.size()], open.back());
      const std::uint32_t id = open.back();
      open.pop_back();
      ASSERT_TRUE(talk.Say(Frame(kData, kEndStream, id, "x"))
                      .starts_with(StrCat("headers ", id, " :status: 200")));
    }
    ASSERT_EQ(talk.session.stream_count(), open.size());
  }
}

}  // namespace
}  // namespace takt::net
