// HTTP/1.1 requests, one at a time.
#include <charconv>
#include <optional>

#include "absl/strings/match.h"
#include "load/connection.h"

namespace takt::load {
namespace {

constexpr std::size_t kMaxHeadBytes = 64 << 10;
constexpr std::size_t kMaxErrorText = 200;

class HttpConnection final : public Connection {
 public:
  using Connection::Connection;

  void Ask(Clock::time_point due, bool counted, std::string_view message) override {
    asked_ = Asked{due, counted};
    head_ = Head();
    body_.clear();
    out_.append(message);
  }
  std::size_t active() const override { return asked_.has_value() ? 1 : 0; }
  std::size_t allowed() const override { return 1; }
  Clock::time_point oldest() const override {
    return asked_.has_value() ? asked_->due : Clock::time_point::max();
  }

 private:
  struct Asked {
    Clock::time_point due;
    bool counted;
  };
  struct Head {
    int status = 0;  // 0 = the head has not come whole
    bool chunked = false;
    bool in_chunk = false;
    std::size_t left = 0;  // of the body, or of the chunk
  };

  absl::StatusOr<std::size_t> OnBytes(std::string_view bytes) override {
    const std::size_t size = bytes.size();
    while (!bytes.empty()) {
      if (!asked_.has_value()) return absl::InternalError("an answer that nobody asked for");
      const std::size_t before = bytes.size();
      if (head_.status == 0) {
        TAKT_RETURN_IF_ERROR(TakeHead(&bytes));
        if (head_.status == 0) break;
      }
      TAKT_ASSIGN_OR_RETURN(const bool whole, TakeBody(&bytes));
      if (whole) {
        Done();
      } else if (bytes.size() == before) {
        break;
      }
    }
    return size - bytes.size();
  }

  // Leaves `bytes` as they are when the head has not come whole.
  absl::Status TakeHead(std::string_view* bytes) {
    const std::size_t end = bytes->find("\r\n\r\n");
    if (end == std::string_view::npos) {
      if (bytes->size() > kMaxHeadBytes)
        return absl::InternalError("the head of an answer is endless");
      return absl::OkStatus();
    }
    std::string_view rest = bytes->substr(0, end + 2);
    constexpr std::string_view kVersion = "HTTP/1.1 ";
    int status = 0;
    if (!rest.starts_with(kVersion) ||
        std::from_chars(rest.data() + kVersion.size(), rest.data() + rest.size(), status).ec !=
            std::errc()) {
      return absl::InternalError("the server speaks no HTTP/1.1");
    }
    bytes->remove_prefix(end + 4);
    if (status < 200) return absl::OkStatus();  // 100 Continue: the answer comes behind it
    for (rest.remove_prefix(rest.find('\n') + 1); !rest.empty();) {
      const std::size_t line_end = rest.find("\r\n");
      const std::string_view line = rest.substr(0, line_end);
      rest.remove_prefix(line_end + 2);
      const std::size_t colon = std::min(line.find(':'), line.size());
      const std::string_view name = line.substr(0, colon);
      std::string_view value = line.substr(std::min(colon + 1, line.size()));
      while (value.starts_with(' ')) value.remove_prefix(1);
      if (absl::EqualsIgnoreCase(ToAbsl(name), "content-length")) {
        if (std::from_chars(value.data(), value.data() + value.size(), head_.left).ec !=
            std::errc()) {
          return absl::InternalError(StrCat("content-length: ", value));
        }
      } else if (absl::EqualsIgnoreCase(ToAbsl(name), "transfer-encoding")) {
        head_.chunked = absl::EqualsIgnoreCase(ToAbsl(value), "chunked");
      }
    }
    head_.status = status;
    return absl::OkStatus();
  }

  void TakeLeft(std::string_view* bytes) {
    const std::string_view part = bytes->substr(0, head_.left);
    body_.append(part);
    head_.left -= part.size();
    bytes->remove_prefix(part.size());
  }

  // True when the body has come whole.
  absl::StatusOr<bool> TakeBody(std::string_view* bytes) {
    if (!head_.chunked) {
      TakeLeft(bytes);
      return head_.left == 0;
    }
    while (true) {
      if (head_.in_chunk) {
        TakeLeft(bytes);
        if (head_.left > 0 || bytes->size() < 2) return false;
        bytes->remove_prefix(2);
        head_.in_chunk = false;
      }
      const std::size_t end = bytes->find("\r\n");
      if (end == std::string_view::npos) return false;
      std::size_t size = 0;
      if (std::from_chars(bytes->data(), bytes->data() + end, size, 16).ec != std::errc()) {
        return absl::InternalError("a chunk of no size");
      }
      if (size == 0) {  // the end, with no trailers
        if (bytes->size() < end + 4) return false;
        bytes->remove_prefix(end + 4);
        return true;
      }
      bytes->remove_prefix(end + 2);
      head_.left = size;
      head_.in_chunk = true;
    }
  }

  void Done() {
    const Asked asked = *asked_;
    const int status = head_.status;
    asked_.reset();
    const bool ok = status < 300;
    on_answer_({asked.due, asked.counted, ok ? 0 : status,
                ok ? std::string() : body_.substr(0, kMaxErrorText), &body_});
  }

  std::optional<Asked> asked_;
  Head head_;
  std::string body_;
};

}  // namespace

std::unique_ptr<Connection> MakeHttpConnection(int fd, OnAnswer on_answer) {
  return std::make_unique<HttpConnection>(fd, std::move(on_answer));
}

}  // namespace takt::load
