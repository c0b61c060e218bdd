#include "api.h"

#include <utility>

#include "CLI/Option.hpp"
#include "absl/strings/strip.h"
#include "base/fs.h"

namespace takt::cli {
namespace {

constexpr std::string_view kBase = "/api/v1";
constexpr std::size_t kMaxTokenBytes = 4096;

}  // namespace

void AddConnectionOptions(CLI::App& command, Connection* connection) {
  command.add_option("--host", connection->host, "where the daemon listens, HOST:PORT")
      ->envname("TAKT_HOST")
      ->capture_default_str();
  command.add_option("--token-file", connection->token_file, "file with the daemon's token")
      ->envname("TAKT_TOKEN_FILE")
      ->type_name("FILE");
  command.add_flag("--json", connection->json, "print JSON, for programs");
}

absl::StatusOr<Api> Api::Open(const Connection& connection) {
  const std::string url = connection.host.find("://") == std::string::npos
                              ? "http://" + connection.host
                              : connection.host;
  auto parsed = net::ParseHttpUrl(url);
  if (!parsed.ok() || parsed->host.empty() || parsed->target != "/") {
    return absl::InvalidArgumentError(
        StrCat("--host: expected HOST:PORT, got \"", connection.host, "\""));
  }
  net::HttpClientOptions options;
  options.host = parsed->host;
  options.port = parsed->port;
  if (!connection.token_file.empty()) {
    auto token = ReadFile(connection.token_file, kMaxTokenBytes);
    if (!token.ok()) return Annotate(token.status(), "--token-file");
    options.headers.emplace_back(
        "Authorization", StrCat("Bearer ", ToStd(absl::StripAsciiWhitespace(ToAbsl(*token)))));
  }
  return Api(std::move(options));
}

Api::Api(net::HttpClientOptions options)
    : address_(StrCat(options.host, ":", options.port)),
      client_(std::make_unique<net::HttpClient>(std::move(options))) {}

absl::Status Api::Unreachable(const absl::Status& status) const {
  if (status.code() != absl::StatusCode::kUnavailable) return Annotate(status, address_);
  return absl::UnavailableError(
      StrCat("no daemon answers at ", address_, " (", ToStd(status.message()),
             "): start one with `takt daemon`, or say where it is with --host or TAKT_HOST"));
}

absl::StatusOr<Json> Api::Read(const net::HttpReply& reply) const {
  if (reply.status == 204) return Json();
  Json body = Json::parse(reply.body, nullptr, /*allow_exceptions=*/false);
  if (body.is_discarded()) {
    return absl::DataLossError(StrCat(address_, " answers HTTP ", reply.status,
                                      " with something that is not Takt's API: is it a takt "
                                      "daemon?"));
  }
  if (reply.status < 400) return body;
  if (!body.is_object() || !body.contains("code") || !body["code"].is_string() ||
      !body.contains("message") || !body["message"].is_string()) {
    return absl::DataLossError(StrCat(address_, " answers HTTP ", reply.status,
                                      " without {code, message}: is it a takt daemon?"));
  }
  absl::Status status(CodeFromName(body["code"].get<std::string>()),
                      body["message"].get<std::string>());
  if (reply.status == 401) {
    return Annotate(status, StrCat(address_, " wants a token (--token-file or TAKT_TOKEN_FILE)"));
  }
  return status;
}

absl::StatusOr<Json> Api::Call(std::string_view method, std::string_view path, const Json& body) {
  net::HttpCall call;
  call.method = method;
  call.target = StrCat(kBase, path);
  if (!body.is_null()) call.body = body.dump(-1, ' ', false, Json::error_handler_t::replace);
  auto reply = client_->Call(call);
  if (!reply.ok()) return Unreachable(reply.status());
  return Read(*reply);
}

absl::Status Api::Stream(std::string_view path,
                         const std::function<bool(const net::ServerSentEvent&)>& on_event) {
  net::ServerSentEventParser parser;
  return Download(path, [&](std::string_view piece) { return parser.Feed(piece, on_event); });
}

absl::Status Api::Download(std::string_view path,
                           const std::function<bool(std::string_view)>& on_piece) {
  net::HttpCall call;
  call.target = StrCat(kBase, path);
  auto reply = client_->Stream(call, on_piece);
  if (!reply.ok()) return Unreachable(reply.status());
  if (reply->status == 200) return absl::OkStatus();
  return Read(*reply).status();
}

std::string AppPath(std::string_view app, std::string_view rest) {
  return StrCat("/apps/", net::UrlEncode(app), rest);
}

}  // namespace takt::cli
