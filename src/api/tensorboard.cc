#include "api/tensorboard.h"

#include "api/errors.h"
#include "net/http_client.h"

namespace takt::api {
namespace {

constexpr std::chrono::seconds kAnswerTime{60};
constexpr std::size_t kMaxAnswerBytes = 64 << 20;
// Its own, without the hosts that its plugins like to ask.
constexpr const char* kPolicy =
    "default-src 'self'; script-src 'self' 'unsafe-eval'; style-src 'self' 'unsafe-inline' data:; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; object-src 'none'; "
    "base-uri 'self'; form-action 'self'; frame-ancestors 'none'";

}  // namespace

void TensorBoardProxy::Handle(const net::HttpRequest& request,
                              const std::shared_ptr<net::HttpResponder>& responder) {
  const std::size_t begin = operate::kTensorBoardPath.size();
  const std::size_t end = request.path.find('/', begin);
  Call call(request, responder);
  absl::StatusOr<Reply> reply = Reply{};
  if (request.method != "GET" && request.method != "POST") {
    reply = WithHttpStatus(absl::InvalidArgumentError("the methods here are GET, POST"), 405);
  } else if (end == std::string::npos) {  // what it serves is relative to its own address
    reply->status = 308;
    reply->headers = {{"Location", request.target.substr(0, request.target.find('?')) + "/"}};
  } else {
    net::HttpCall ask;
    ask.method = request.method;
    ask.target = request.target;
    ask.body = request.body;
    ask.content_type = std::string(request.Header("content-type"));
    for (const char* name : {"accept", "accept-encoding"}) {
      const std::string_view value = request.Header(name);
      if (!value.empty()) ask.headers.emplace_back(name, value);
    }
    reply = workers_.Answer(
        call,
        [this, app = request.path.substr(begin, end - begin), ask]() -> absl::StatusOr<Reply> {
          TAKT_ASSIGN_OR_RETURN(const std::uint16_t port, boards_.Open(app));
          net::HttpClientOptions options;
          options.port = port;
          options.timeout = kAnswerTime;
          options.max_body_bytes = kMaxAnswerBytes;
          TAKT_ASSIGN_OR_RETURN(net::HttpReply answer, net::HttpClient(options).Call(ask));
          Reply out;
          out.status = answer.status;
          out.content_type = std::string(answer.Header("content-type"));
          for (const char* name : {"content-encoding", "cache-control", "content-disposition"}) {
            const std::string_view value = answer.Header(name);
            if (!value.empty()) out.headers.emplace_back(name, value);
          }
          out.headers.emplace_back("Content-Security-Policy", kPolicy);
          out.headers.emplace_back("X-Content-Type-Options", "nosniff");
          out.body = std::move(answer.body);
          return out;
        });
  }
  if (!reply.ok()) {
    responder->Send(ErrorResponse(reply.status()));
  } else if (!reply->streaming) {
    net::HttpResponse response;
    response.status = reply->status;
    response.headers = std::move(reply->headers);
    responder->Send(std::move(response));
  }
}

}  // namespace takt::api
