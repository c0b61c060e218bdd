// How a connection answers: headers, messages, trailers; see grpc_connection.cc for the rest of it.
#include <array>

#include "absl/strings/escaping.h"
#include "net/grpc_connection.h"

namespace takt::net {
namespace {

// Answers shorter than this are not worth compressing.
constexpr std::size_t kMinCompressedBytes = 1024;

// The fields of answers: grpc-status by its number, and these.
constexpr std::size_t kStatuses = 17;
constexpr std::size_t kContentType = kStatuses;
constexpr std::size_t kAcceptEncoding = kStatuses + 1;
constexpr std::array<HpackEncoder::Field, kStatuses + 2> kFields = {{
    {"grpc-status", "0"},
    {"grpc-status", "1"},
    {"grpc-status", "2"},
    {"grpc-status", "3"},
    {"grpc-status", "4"},
    {"grpc-status", "5"},
    {"grpc-status", "6"},
    {"grpc-status", "7"},
    {"grpc-status", "8"},
    {"grpc-status", "9"},
    {"grpc-status", "10"},
    {"grpc-status", "11"},
    {"grpc-status", "12"},
    {"grpc-status", "13"},
    {"grpc-status", "14"},
    {"grpc-status", "15"},
    {"grpc-status", "16"},
    {"content-type", "application/grpc"},
    {"grpc-accept-encoding", kGrpcAcceptEncoding},
}};

std::size_t StatusField(absl::StatusCode code) {
  const auto at = static_cast<std::size_t>(GrpcStatusFor(code));
  return at < kStatuses ? at : static_cast<std::size_t>(absl::StatusCode::kUnknown);
}

}  // namespace

std::span<const HpackEncoder::Field> GrpcServerConnection::AnswerFields() { return kFields; }

void GrpcServerConnection::Submit(GrpcServerCall* call) {
  WantWrite();
  // A streamed call's own code may be running, so its end comes later; and nobody's answers pile up
  // whose peer does not read.
  if (call->is_streamed() || !session_.HasRoom()) return session_.Wait(*call, false);
  Answer(call);
}

void GrpcServerConnection::OnWritable(Http2Stream& stream) {
  Answer(&static_cast<GrpcServerCall&>(stream));
}

void GrpcServerConnection::Answer(GrpcServerCall* call) {
  if (call->broken) return session_.Reset(*call, Http2Error::kInternal);
  if (!call->submitted && !AnswerHeaders(call)) return;
  const std::string_view left = std::string_view(call->response()).substr(call->sent_bytes);
  if (!left.empty()) {
    const std::size_t sent = session_.SendData(*call, left);
    call->sent_bytes += sent;
    if (sent < left.size()) return session_.Wait(*call, true);
  }
  if (!call->finished) return;
  session_.BeginHeaders();
  AppendStatus(call->status);
  session_.EndHeaders(*call, true);
}

bool GrpcServerConnection::AnswerHeaders(GrpcServerCall* call) {
  call->submitted = true;
  if (call->http_status != nullptr) {
    session_.BeginHeaders();
    session_.fields().Status(call->http_status, session_.block());
    session_.EndHeaders(*call, true);
    return false;
  }
  const bool streamed = call->is_streamed();
  const bool has_message = streamed ? !call->response().empty() : call->status.ok();
  const bool trailers_only = !has_message && call->finished;
  const bool compressed = has_message && !streamed && FrameResponse(call);
  session_.BeginHeaders();
  HpackEncoder& fields = session_.fields();
  std::string& block = session_.block();
  fields.Status("200", block);
  fields.Fixed(kContentType, block);
  if (streamed || trailers_only || compressed || !call->response_metadata().empty()) {
    fields.Fixed(kAcceptEncoding, block);
  }
  if (compressed) {
    fields.Literal("grpc-encoding", GrpcCompressionName(call->request_compression), block);
  }
  for (const auto& [name, value] : call->response_metadata()) {
    const bool binary = name.ends_with("-bin");
    fields.Literal(name, binary ? absl::Base64Escape(value) : value, block);
  }
  if (trailers_only) AppendStatus(call->status);
  session_.EndHeaders(*call, trailers_only);
  return !trailers_only;
}

void GrpcServerConnection::AppendStatus(const absl::Status& status) {
  HpackEncoder& fields = session_.fields();
  std::string& block = session_.block();
  fields.Fixed(StatusField(status.code()), block);
  const std::string_view message = ToStd(status.message());
  if (message.empty()) return;
  // Refusing has to be cheap: no text is made where it may go as it is.
  if (message.size() <= kMaxGrpcMessageText && IsPlainGrpcMessage(message)) {
    return fields.Literal("grpc-message", message, block);
  }
  fields.Literal("grpc-message", PercentEncode(CutMessage(message, kMaxGrpcMessageText)), block);
}

bool GrpcServerConnection::FrameResponse(GrpcServerCall* call) {
  std::string& response = call->response();
  bool compressed = false;
  if (call->request_compression != GrpcCompression::kIdentity &&
      response.size() >= kMinCompressedBytes) {
    if (auto packed = GrpcDeflate(call->request_compression,
                                  std::string_view(response).substr(kGrpcFramingBytes));
        packed.ok() && packed->size() + kGrpcFramingBytes < response.size()) {
      response.resize(kGrpcFramingBytes);
      response.append(*packed);
      compressed = true;
    }
  }
  WriteGrpcPrefix(compressed, response.size() - kGrpcFramingBytes, response.data());
  return compressed;
}

}  // namespace takt::net
