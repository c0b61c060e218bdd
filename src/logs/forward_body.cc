// What Loki and OTLP want to read.
#include <map>
#include <nlohmann/json.hpp>
#include <tuple>

#include "logs/forward.h"

namespace takt::logs {
namespace {

using Json = nlohmann::json;

// ---- Loki: https://grafana.com/docs/loki/latest/reference/loki-http-api/#ingest-logs ----

std::string LokiBody(const std::vector<FoundEntry>& entries) {
  std::map<std::tuple<std::string, std::string, std::string, Level>, Json> streams;
  for (const FoundEntry& found : entries) {
    Json& values =
        streams[{found.stream.app, found.stream.service, found.stream.instance, found.entry.level}];
    values.push_back(Json::array({absl::StrCat(found.entry.time_us, "000"), found.entry.text}));
  }
  Json list = Json::array();
  for (auto& [key, values] : streams) {
    const auto& [app, service, instance, level] = key;
    Json labels = {{"service", service}, {"level", LevelName(level)}};
    if (!app.empty()) labels["app"] = app;
    if (!instance.empty()) labels["instance"] = instance;
    list.push_back({{"stream", std::move(labels)}, {"values", std::move(values)}});
  }
  return Json({{"streams", std::move(list)}}).dump(-1, ' ', false, Json::error_handler_t::replace);
}

// ---- OTLP: opentelemetry/proto/logs/v1/logs.proto and collector/logs/v1/logs_service.proto ----

class ProtoWriter {
 public:
  ProtoWriter& Varint(int field, std::uint64_t value) {
    Number(static_cast<std::uint64_t>(field) << 3);
    Number(value);
    return *this;
  }
  ProtoWriter& Fixed64(int field, std::uint64_t value) {
    Number(static_cast<std::uint64_t>(field) << 3 | 1);
    for (int i = 0; i < 8; ++i) out_.push_back(static_cast<char>(value >> (8 * i)));
    return *this;
  }
  ProtoWriter& Bytes(int field, std::string_view bytes) {
    Number(static_cast<std::uint64_t>(field) << 3 | 2);
    Number(bytes.size());
    out_.append(bytes);
    return *this;
  }
  ProtoWriter& Message(int field, const ProtoWriter& message) { return Bytes(field, message.out_); }
  std::string& out() { return out_; }

 private:
  void Number(std::uint64_t value) {
    for (; value >= 0x80; value >>= 7) out_.push_back(static_cast<char>(value | 0x80));
    out_.push_back(static_cast<char>(value));
  }
  std::string out_;
};

// KeyValue{key = 1, value = 2: AnyValue{string_value = 1, int_value = 3}}
ProtoWriter Attribute(std::string_view key, std::string_view value) {
  return ProtoWriter().Bytes(1, key).Message(2, ProtoWriter().Bytes(1, value));
}
ProtoWriter Attribute(std::string_view key, std::int64_t value) {
  return ProtoWriter().Bytes(1, key).Message(
      2, ProtoWriter().Varint(3, static_cast<std::uint64_t>(value)));
}

int SeverityOf(Level level) {
  switch (level) {
    case Level::kUnknown:
      return 0;
    case Level::kTrace:
      return 1;
    case Level::kDebug:
      return 5;
    case Level::kInfo:
      return 9;
    case Level::kWarn:
      return 13;
    case Level::kError:
      return 17;
    case Level::kFatal:
      return 21;
  }
  return 0;
}

std::string OtlpBody(const std::vector<FoundEntry>& entries, std::int64_t now_us) {
  ProtoWriter request;
  for (std::size_t begin = 0; begin < entries.size();) {
    const StreamKey& key = entries[begin].stream;
    ProtoWriter scope_logs;
    scope_logs.Message(1, ProtoWriter().Bytes(1, "takt"));
    std::size_t end = begin;
    for (; end < entries.size() && entries[end].stream == key; ++end) {
      const auto& [id, stream, entry] = entries[end];
      ProtoWriter record;
      record.Fixed64(1, static_cast<std::uint64_t>(entry.time_us) * 1000);
      if (entry.level != Level::kUnknown) {
        record.Varint(2, static_cast<std::uint64_t>(SeverityOf(entry.level)))
            .Bytes(3, LevelName(entry.level));
      }
      record.Message(5, ProtoWriter().Bytes(1, entry.text))
          .Message(6, Attribute("log.iostream", entry.is_stderr ? "stderr" : "stdout"))
          .Message(6, Attribute("takt.entry", absl::StrCat(id.chunk, ".", id.index)))
          .Fixed64(11, static_cast<std::uint64_t>(now_us) * 1000);
      scope_logs.Message(2, record);
    }
    ProtoWriter resource;
    resource.Message(1, Attribute("service.name", key.service))
        .Message(1, Attribute("service.namespace", key.app))
        .Message(1, Attribute("service.instance.id", key.instance))
        .Message(1, Attribute("takt.store", key.store))
        .Message(1, Attribute("takt.revision", std::int64_t{key.revision}));
    if (!key.node.empty()) resource.Message(1, Attribute("host.name", key.node));
    if (!key.file.empty()) resource.Message(1, Attribute("log.file.path", key.file));
    request.Message(1, ProtoWriter().Message(1, resource).Message(2, scope_logs));
    begin = end;
  }
  return std::move(request.out());
}

}  // namespace

ForwardBody MakeForwardBody(ForwardKind kind, const std::vector<FoundEntry>& entries,
                            std::int64_t now_us) {
  if (kind == ForwardKind::kLoki) return {"application/json", LokiBody(entries)};
  return {"application/x-protobuf", OtlpBody(entries, now_us)};
}

}  // namespace takt::logs
