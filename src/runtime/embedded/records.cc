#include "runtime/embedded/records.h"

#include <nlohmann/json.hpp>

#include "absl/strings/escaping.h"

namespace takt::runtime {
namespace {

using Json = nlohmann::json;
using std::chrono::milliseconds;

constexpr int kVersion = 1;

// One list of fields for both directions: a Writer stores them, a Reader takes them where they are
// there and of the right type.
class Writer {
 public:
  template <typename T>
  void Field(const char* name, const T& value) {
    json_[name] = value;
  }
  void Field(const char* name, const milliseconds& value) { json_[name] = value.count(); }
  template <typename T>
  void Field(const char* name, const std::optional<T>& value) {
    if (value) json_[name] = *value;
  }
  template <typename T>
  requires std::is_enum_v<T>
  void Field(const char* name, const T& value) { json_[name] = static_cast<int>(value); }
  template <typename T, typename F>
  void List(const char* name, const std::vector<T>& items, F fields) {
    Json list = Json::array();
    for (const T& item : items) {
      Writer writer;
      fields(writer, const_cast<T&>(item));
      list.push_back(std::move(writer.json_));
    }
    json_[name] = std::move(list);
  }
  std::string Dump() const { return json_.dump(-1, ' ', true, Json::error_handler_t::replace); }

 private:
  Json json_ = Json::object();
};

class Reader {
 public:
  explicit Reader(const Json& json) : json_(json) {}
  template <typename T>
  void Field(const char* name, T& value) {
    if (const Json* found = Find(name)) Get(*found, name, value);
  }
  void Field(const char* name, milliseconds& value) {
    std::int64_t count = 0;
    if (const Json* found = Find(name)) {
      Get(*found, name, count);
      value = milliseconds(count);
    }
  }
  template <typename T>
  void Field(const char* name, std::optional<T>& value) {
    if (const Json* found = Find(name)) {
      value.emplace();
      Get(*found, name, *value);
    }
  }
  template <typename T>
  requires std::is_enum_v<T>
  void Field(const char* name, T& value) {
    int number = 0;
    if (const Json* found = Find(name)) {
      Get(*found, name, number);
      value = static_cast<T>(number);
    }
  }
  template <typename T, typename F>
  void List(const char* name, std::vector<T>& items, F fields) {
    const Json* found = Find(name);
    if (!found || !found->is_array()) return;
    for (const Json& json : *found) {
      Reader reader(json);
      items.emplace_back();
      fields(reader, items.back());
      if (wrong_.empty()) wrong_ = reader.wrong_;
    }
  }
  absl::Status status() const {
    return wrong_.empty() ? absl::OkStatus()
                          : absl::DataLossError(StrCat("field \"", wrong_, "\" is no good"));
  }

 private:
  const Json* Find(const char* name) {
    if (!json_.is_object()) {
      wrong_ = name;
      return nullptr;
    }
    const auto it = json_.find(name);
    return it == json_.end() ? nullptr : &*it;
  }
  // nlohmann throws on a value of another type; this is the one place that catches it.
  template <typename T>
  void Get(const Json& json, const char* name, T& value) {
    try {
      json.get_to(value);
    } catch (const Json::exception&) {
      wrong_ = name;
    }
  }

  const Json& json_;
  std::string wrong_;
};

template <typename Io>
void Fields(Io& io, ServiceSpec& s) {
  io.Field("app", s.app);
  io.Field("service", s.service);
  io.Field("revision", s.revision);
  io.Field("image", s.image);
  io.Field("image_digest", s.image_digest);
  io.Field("entrypoint", s.entrypoint);
  io.Field("command", s.command);
  io.Field("environment", s.environment);
  io.Field("labels", s.labels);
  io.List("ports", s.ports, [](auto& item, PortMapping& p) {
    item.Field("host_ip", p.host_ip);
    item.Field("published", p.published);
    item.Field("target", p.target);
    item.Field("protocol", p.protocol);
  });
  io.List("mounts", s.mounts, [](auto& item, MountSpec& m) {
    item.Field("volume", m.volume);
    item.Field("host_path", m.host_path);
    item.Field("target", m.target);
    item.Field("read_only", m.read_only);
    item.Field("tmpfs_bytes", m.tmpfs_bytes);
  });
  // Secrets may be any bytes.
  std::vector<std::pair<std::string, std::string>> files;
  for (const auto& [path, content] : s.files) {
    files.emplace_back(path, absl::Base64Escape(content));
  }
  io.Field("files", files);
  s.files.clear();
  for (const auto& [path, text] : files) absl::Base64Unescape(text, &s.files[path]);
  io.Field("restart", s.restart);
  io.Field("restart_max_attempts", s.restart_max_attempts);
  io.Field("health_kind", s.health.kind);
  io.Field("health_command", s.health.command);
  io.Field("health_url", s.health.url);
  io.Field("health_interval_ms", s.health.interval);
  io.Field("health_timeout_ms", s.health.timeout);
  io.Field("health_start_period_ms", s.health.start_period);
  io.Field("health_retries", s.health.retries);
  io.Field("replicas", s.replicas);
  io.Field("cpus", s.cpus);
  io.Field("memory_bytes", s.memory_bytes);
  io.Field("shm_bytes", s.shm_bytes);
  io.Field("gpus", s.gpus);
  io.Field("working_dir", s.working_dir);
  io.Field("user", s.user);
  io.Field("hostname", s.hostname);
  io.Field("stop_signal", s.stop_signal);
  io.Field("stop_grace_ms", s.stop_grace);
  io.Field("init", s.init);
  io.Field("read_only", s.read_only);
  io.Field("ulimits", s.ulimits);
  io.Field("extra_hosts", s.extra_hosts);
  io.Field("links", s.links);
}

template <typename Io>
void Fields(Io& io, ServiceRecord& r) {
  io.Field("last_generation", r.last_generation);
  io.Field("generations", r.generations);
  io.Field("stopped", r.stopped);
  io.Field("removed", r.removed);
  Fields(io, r.spec);
}

template <typename Io>
void Fields(Io& io, InstanceRecord& r) {
  io.Field("id", r.id);
  io.Field("app", r.app);
  io.Field("service", r.service);
  io.Field("revision", r.revision);
  io.Field("replica", r.replica);
  io.Field("restarts", r.restarts);
  io.Field("generation", r.generation);
  auto created = std::chrono::duration_cast<milliseconds>(r.created.time_since_epoch());
  io.Field("created_ms", created);
  r.created = std::chrono::system_clock::time_point(created);
}

template <typename T>
std::string ToJson(T record) {
  Writer writer;
  int version = kVersion;
  writer.Field("version", version);
  Fields(writer, record);
  return writer.Dump();
}

template <typename T>
absl::StatusOr<T> FromJson(const std::string& text) {
  const Json json = Json::parse(text, nullptr, false);
  if (json.is_discarded() || !json.is_object()) return absl::DataLossError("it is not JSON");
  Reader reader(json);
  int version = 0;
  reader.Field("version", version);
  if (version != kVersion) {
    return absl::DataLossError(StrCat("expected format version ", kVersion, ", got ", version));
  }
  T record;
  Fields(reader, record);
  TAKT_RETURN_IF_ERROR(reader.status());
  return record;
}

}  // namespace

std::string ServiceToJson(const ServiceRecord& record) { return ToJson(record); }
absl::StatusOr<ServiceRecord> ServiceFromJson(const std::string& text) {
  return FromJson<ServiceRecord>(text);
}
std::string InstanceToJson(const InstanceRecord& record) { return ToJson(record); }
absl::StatusOr<InstanceRecord> InstanceFromJson(const std::string& text) {
  return FromJson<InstanceRecord>(text);
}

}  // namespace takt::runtime
