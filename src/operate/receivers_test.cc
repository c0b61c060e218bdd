#include "operate/receivers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <sys/stat.h>

#include "absl/strings/escaping.h"
#include "absl/strings/str_split.h"
#include "base/fs.h"
#include "base/sqlite.h"
#include "net/http_server.h"
#include "nlohmann/json.hpp"

namespace takt::operate {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::SizeIs;
using namespace std::chrono_literals;

using Time = std::chrono::system_clock::time_point;
Time At(int seconds) { return Time(std::chrono::seconds(1'000'000 + seconds)); }

Alert Fired() {
  return {.rule = "hot",
          .labels = {{"node", "a"}},
          .severity = Severity::kCritical,
          .firing = true,
          .since = At(0),
          .value = 97,
          .summary = "a is at \"97\"",
          .summary_zh = "a 达到 97"};
}
Alert Over() {
  Alert over = Fired();
  over.resolved = At(60);
  return over;
}

// ---- Messages ----

TEST(Messages, WebhookBodiesAreWhatTheReceiversExpect) {
  const auto body = nlohmann::json::parse(AlertmanagerBody({Fired(), Over()}));
  EXPECT_EQ(body["version"], "4");
  EXPECT_EQ(body["status"], "firing");
  EXPECT_EQ(body["alerts"][0]["labels"]["alertname"], "hot");
  EXPECT_EQ(body["alerts"][0]["labels"]["severity"], "critical");
  EXPECT_EQ(body["alerts"][0]["annotations"]["summary"], "a is at \"97\"");
  EXPECT_EQ(body["alerts"][0]["annotations"]["summary_zh"], "a 达到 97");
  EXPECT_EQ(body["alerts"][1]["status"], "resolved");
  const auto ding = nlohmann::json::parse(DingTalkBody({Fired(), Over()}, Language::kEnglish));
  EXPECT_EQ(ding["msgtype"], "text");
  EXPECT_THAT(ding["text"]["content"].get<std::string>(),
              testing::AllOf(HasSubstr("[critical] a is at"), HasSubstr("[resolved]")));
  EXPECT_THAT(DingTalkBody({Fired()}, Language::kChinese), HasSubstr("[严重] a 达到 97"));
}

TEST(Messages, AnAlertCannotBecomeAHeaderOfAMail) {
  Alert alert = Fired();
  alert.summary = "x\r\nBcc: everybody@example.com\r\n\r\n.\r\nRSET";
  const std::string mail =
      MailText({alert}, Language::kEnglish, "takt@example.com", {"a@example.com"}, At(0));
  EXPECT_THAT(mail, Not(HasSubstr("Bcc")));
  EXPECT_THAT(mail, Not(HasSubstr("RSET")));
  for (const absl::string_view line : absl::StrSplit(mail, "\r\n")) EXPECT_LE(line.size(), 78u);
}

TEST(Messages, AMailSaysEverythingInUtf8) {
  const std::string mail = MailText({Fired(), Over()}, Language::kChinese, "takt@example.com",
                                    {"a@example.com", "b@example.com"}, At(0));
  EXPECT_THAT(mail, HasSubstr("Date: Mon, 12 Jan 1970 13:46:40 +0000\r\n"));
  EXPECT_THAT(mail, HasSubstr("To: a@example.com, b@example.com\r\n"));
  std::string text;
  const auto blank = mail.find("\r\n\r\n");
  std::string encoded = mail.substr(blank);
  std::erase_if(encoded, [](char c) { return c == '\r' || c == '\n'; });
  ASSERT_TRUE(absl::Base64Unescape(encoded, &text));
  EXPECT_THAT(text, testing::AllOf(HasSubstr("[严重] a 达到 97"), HasSubstr("[已恢复]"),
                                   HasSubstr("node = a")));
}

TEST(Messages, DingTalkIsSignedAsItsDocumentationSays) {
  // openssl dgst -sha256 -hmac SEC123 of "1700000000000\nSEC123", base64, percent-encoded.
  EXPECT_EQ(SignedDingTalkUrl("https://x/robot/send?access_token=t", "SEC123", 1700000000000),
            "https://x/robot/send?access_token=t&timestamp=1700000000000&sign="
            "lkcPI1uoxBY1gUnCnnPH1Kkru0Hqjo7rFpA3haIVhEQ%3D");
}

// ---- Checks ----

Receiver Mail() {
  return {.name = "ops",
          .kind = Receiver::Kind::kEmail,
          .mail = {.server = "mail.example.com:587",
                   .user = "u",
                   .password = "p",
                   .from = "takt@example.com",
                   .to = {"ops@example.com"}}};
}

TEST(CheckReceiver, NamesTheFieldAndWhatWasExpected) {
  EXPECT_TRUE(CheckReceiver(Mail()).ok());
  using Spoil = std::function<void(Receiver&)>;
  for (const auto& [field, spoil] : std::vector<std::pair<std::string, Spoil>>{
           {"name", [](Receiver& r) { r.name = ""; }},
           {"url",
            [](Receiver& r) {
              r.kind = Receiver::Kind::kDingTalk;
              r.url = "ftp://x";
            }},
           {"server", [](Receiver& r) { r.mail.server = "mail.example.com"; }},
           {"server", [](Receiver& r) { r.mail.server = "mail.example.com:0"; }},
           {"from", [](Receiver& r) { r.mail.from = "Takt <takt@example.com>"; }},
           {"to", [](Receiver& r) { r.mail.to = {"a@b\r\nBcc: c@d"}; }},
           {"to", [](Receiver& r) { r.mail.to = {}; }},
           {"to", [](Receiver& r) { r.mail.to.assign(kMaxRecipients + 1, "a@b"); }},
           {"password", [](Receiver& r) { r.mail.password.assign(kMaxReceiverText + 1, 'x'); }},
           {"user", [](Receiver& r) { r.mail.user = "a\nb"; }},
           {"security", [](Receiver& r) { r.mail.security = MailRoute::Security::kNone; }},
       }) {
    Receiver receiver = Mail();
    spoil(receiver);
    EXPECT_THAT(std::string(CheckReceiver(receiver).message()),
                testing::StartsWith(field + ": expected"));
  }
}

TEST(ShownUrl, LeavesOutWhatMayBeASecret) {
  EXPECT_EQ(ShownUrl("https://a/robot/send?access_token=t"), "https://a/robot/send?...");
  EXPECT_EQ(ShownUrl("https://user:pw@a/hook"), "https://...@a/hook");
  EXPECT_EQ(ShownUrl("http://a:1/hook@x"), "http://a:1/hook@x");
}

// ---- Receivers ----

class ReceiversTest : public testing::Test {
 protected:
  ReceiversTest() {
    auto server =
        net::HttpServer::Start({}, [this](const net::HttpRequest& request, const auto& responder) {
          const std::lock_guard lock(mutex_);
          if (request.path == "/down") {
            ++refused_;
            responder->Send({.status = 503});
            return;
          }
          bodies_.push_back(request.body);
          responder->Send({.status = 200});
        });
    EXPECT_TRUE(server.ok()) << server.status();
    server_ = std::move(*server);
    Restart();
  }
  ~ReceiversTest() override { server_->Stop(0); }
  void Restart(std::vector<Receiver> fixed = {}) {
    receivers_.reset();
    file_.reset();
    file_ = AlertFile::Open(dir_.path() + "/alerts.db").value();
    receivers_ = Receivers::Open(*file_, std::move(fixed), clock_).value();
  }
  std::string Url(const std::string& path) {
    return "http://127.0.0.1:" + std::to_string(server_->port()) + path;
  }
  // Waits until the server has got `n` bodies; gives them.
  std::vector<std::string> Bodies(std::size_t n) {
    const auto deadline = std::chrono::steady_clock::now() + 30s;
    while (std::chrono::steady_clock::now() < deadline) {
      const std::lock_guard lock(mutex_);
      if (bodies_.size() >= n) break;
    }
    const std::lock_guard lock(mutex_);
    return bodies_;
  }

  TempDir dir_;
  FakeClock clock_;
  std::mutex mutex_;
  std::vector<std::string> bodies_;  // under mutex_
  int refused_ = 0;                  // under mutex_
  std::unique_ptr<net::HttpServer> server_;
  std::unique_ptr<AlertFile> file_;
  std::unique_ptr<Receivers> receivers_;
};

TEST_F(ReceiversTest, EachGetsWhatIsForItInItsForm) {
  ASSERT_TRUE(receivers_->Put({.name = "all", .url = Url("/all")}).ok());
  ASSERT_TRUE(receivers_
                  ->Put({.name = "ding",
                         .kind = Receiver::Kind::kDingTalk,
                         .url = Url("/ding"),
                         .language = Language::kChinese,
                         .least_severity = Severity::kCritical,
                         .send_resolved = false})
                  .ok());
  ASSERT_TRUE(receivers_->Put({.name = "off", .url = Url("/off"), .enabled = false}).ok());
  Alert mild = Fired();
  mild.severity = Severity::kInfo;
  receivers_->Tell({mild}, {Over()});
  EXPECT_THAT(Bodies(1), ElementsAre(HasSubstr("\"resolved\"")));
  receivers_->Tell({Fired()}, {});
  EXPECT_THAT(Bodies(3), testing::Contains(HasSubstr("[严重] a 达到 97")));
  receivers_.reset();
  EXPECT_THAT(bodies_, SizeIs(3));
}

TEST_F(ReceiversTest, AreKeptOverARestartWithWhatTheyHaveNotGot) {
  Receiver mail = Mail();
  mail.enabled = false;
  ASSERT_TRUE(receivers_->Put(mail).ok());
  ASSERT_TRUE(receivers_->Put({.name = "hook", .url = Url("/down")}).ok());
  receivers_->Tell({Fired()}, {});
  Restart({{.name = "webhook-1", .url = Url("/ok")}});
  const auto kept = receivers_->Get("ops");
  ASSERT_TRUE(kept.has_value());
  EXPECT_EQ(kept->mail.password, "p");
  EXPECT_THAT(kept->mail.to, ElementsAre("ops@example.com"));
  EXPECT_FALSE(kept->enabled);
  EXPECT_THAT(receivers_->List(), SizeIs(3));
  // Its address was wrong: what waits goes to the new one.
  ASSERT_TRUE(receivers_->Put({.name = "hook", .url = Url("/up")}).ok());
  EXPECT_THAT(Bodies(1), ElementsAre(HasSubstr("\"hot\"")));
  EXPECT_EQ(receivers_->Put({.name = "webhook-1", .url = Url("/x")}).code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(receivers_->Remove("webhook-1").code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(ReceiversTest, ARemovedOneLeavesNothing) {
  ASSERT_TRUE(receivers_->Put({.name = "hook", .url = Url("/down")}).ok());
  receivers_->Tell({Fired()}, {});
  ASSERT_TRUE(receivers_->Remove("hook").ok());
  EXPECT_EQ(receivers_->Remove("hook").code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(*file_->Letters("hook"), IsEmpty());
  Restart();
  EXPECT_THAT(receivers_->List(), IsEmpty());
}

TEST_F(ReceiversTest, HaveALimit) {
  for (std::size_t i = 0; i < kMaxReceivers; ++i) {
    ASSERT_TRUE(receivers_->Put({.name = StrCat("r", i), .url = Url("/x")}).ok());
  }
  EXPECT_EQ(receivers_->Put({.name = "more", .url = Url("/x")}).code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_TRUE(receivers_->Put({.name = "r0", .url = Url("/y")}).ok());
}

TEST_F(ReceiversTest, ATestSaysWhetherItArrived) {
  EXPECT_TRUE(receivers_->Test({.name = "t", .url = Url("/x")}).ok());
  EXPECT_THAT(Bodies(1), ElementsAre(HasSubstr("this is a test")));
  EXPECT_EQ(receivers_->Test({.name = "t", .url = Url("/down")}).code(),
            absl::StatusCode::kUnavailable);
}

TEST_F(ReceiversTest, TheFileIsOnlyForItsOwner) {
  struct stat info {};
  ASSERT_EQ(stat((dir_.path() + "/alerts.db").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 0777, 0600u);
}

}  // namespace
}  // namespace takt::operate
