// The command line's side of the public HTTP API: where the daemon is, one call at a time, its
// errors as absl::Status.
#pragma once

#include <functional>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "CLI/App.hpp"
#include "base/status.h"
#include "net/http_client.h"

namespace takt::cli {

// Objects keep the order in which the daemon sent them.
using Json = nlohmann::ordered_json;

// What every client command takes: --host (TAKT_HOST), --token-file (TAKT_TOKEN_FILE), --json.
struct Connection {
  std::string host = "127.0.0.1:8080";
  std::string token_file;
  bool json = false;  // print what the API answered, for programs
};
void AddConnectionOptions(CLI::App& command, Connection* connection);

class Api {
 public:
  // INVALID_ARGUMENT for a host that is no address, NOT_FOUND for the token file. Connects to
  // nothing yet.
  static absl::StatusOr<Api> Open(const Connection& connection);

  // The answer's body; null where it has none. The daemon's own code and message where it refuses;
  // UNAVAILABLE, with what to do, where none answers; DATA_LOSS where something else does. `path`
  // is relative to /api/v1 and as on the wire.
  absl::StatusOr<Json> Get(std::string_view path) { return Call("GET", path, Json()); }
  absl::StatusOr<Json> Delete(std::string_view path) { return Call("DELETE", path, Json()); }
  absl::StatusOr<Json> Post(std::string_view path, const Json& body) {
    return Call("POST", path, body);
  }
  absl::StatusOr<Json> Put(std::string_view path, const Json& body) {
    return Call("PUT", path, body);
  }
  // Server-sent events until `on_event` returns false or the daemon ends the stream.
  absl::Status Stream(std::string_view path,
                      const std::function<bool(const net::ServerSentEvent&)>& on_event);
  // The body of an answer of any size, in pieces, until `on_piece` returns false (OK) or it ends.
  absl::Status Download(std::string_view path,
                        const std::function<bool(std::string_view)>& on_piece);

 private:
  explicit Api(net::HttpClientOptions options);
  absl::StatusOr<Json> Call(std::string_view method, std::string_view path, const Json& body);
  absl::StatusOr<Json> Read(const net::HttpReply& reply) const;
  absl::Status Unreachable(const absl::Status& status) const;

  std::string address_;
  std::unique_ptr<net::HttpClient> client_;  // HttpClient does not move
};

// "/apps/NAME" with NAME escaped.
std::string AppPath(std::string_view app, std::string_view rest = "");

}  // namespace takt::cli
