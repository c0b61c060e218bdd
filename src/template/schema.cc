#include "template/schema.h"

#include <algorithm>
#include <cmath>
#include <deque>
#include <optional>
#include <string>
#include <unordered_set>
#include <utility>

#include "base/str.h"
#include "base/text.h"
#include "template/convert.h"

namespace takt::templates {
namespace {

// Kinds of value, as a set. kWhole is a number without a fraction, kNumber any number.
enum Kinds : unsigned {
  kNull = 1,
  kBool = 2,
  kWhole = 4,
  kNumber = 8 | kWhole,
  kText = 16,
  kList = 32,
  kMap = 64,
};

struct Struct;

// What one value may be and what becomes of it.
struct Shape {
  unsigned kinds = 0;
  Convert convert = nullptr;
  const Shape* item = nullptr;               // of a list's items; null = anything
  const Shape* value = nullptr;              // of a map with free keys; null = anything
  const Struct* fields = nullptr;            // of a map with named fields
  bool distinct = false;                     // a list may not hold the same item twice
  bool names = false;                        // free keys are names: letters, digits and ._-
  bool keep = false;                         // stays in its struct even when empty
  std::vector<std::string_view> words = {};  // the only texts allowed
  std::optional<std::int64_t> minimum = {};
  std::optional<std::int64_t> maximum = {};
};

struct Field {
  std::string_view name;
  const Shape* shape;
};

struct Struct {
  std::vector<Field> fields;
  std::vector<std::string_view> required = {};
  bool extensible = true;  // x-... fields are allowed
};

// Built once; never changes.
class Schema {
 public:
  Schema() { Build(); }
  const Struct& top() const { return *top_; }
  const Struct& service() const { return *service_; }

 private:
  const Shape* Add(Shape shape) { return &shapes_.emplace_back(std::move(shape)); }
  const Struct* AddStruct(Struct fields) { return &structs_.emplace_back(std::move(fields)); }

  const Shape* Scalar(unsigned kinds, Convert convert = nullptr) {
    return Add({.kinds = kinds, .convert = convert});
  }
  const Shape* Words(std::vector<std::string_view> words) {
    return Add({.kinds = kText, .words = std::move(words)});
  }
  const Shape* ListOf(const Shape* item, Convert convert = nullptr, bool distinct = false) {
    return Add({.kinds = kList, .convert = convert, .item = item, .distinct = distinct});
  }
  const Shape* MapOf(const Shape* value, Convert convert = nullptr, bool names = false) {
    return Add({.kinds = kMap, .convert = convert, .value = value, .names = names});
  }
  const Shape* Object(Struct fields, Convert convert = nullptr, unsigned others = 0) {
    return Add(
        {.kinds = kMap | others, .convert = convert, .fields = AddStruct(std::move(fields))});
  }
  void Build();

  std::deque<Shape> shapes_;
  std::deque<Struct> structs_;
  const Struct* top_ = nullptr;
  const Struct* service_ = nullptr;
};

void Schema::Build() {
  const Shape* text = Scalar(kText);
  const Shape* kept_text = Add({.kinds = kText, .keep = true});
  const Shape* text_or_null = Scalar(kText | kNull);
  const Shape* text_or_whole = Scalar(kText | kWhole, ToTextValue);
  const Shape* boolean = Scalar(kBool | kText, ToBool);
  const Shape* boolean_kept = Scalar(kBool | kText, ToBoolKept);
  const Shape* only_boolean = Scalar(kBool, ToBool);
  const Shape* opt_out = Scalar(kBool | kText, ToTrueKept);
  const Shape* whole = Scalar(kWhole | kText, ToInteger);
  const Shape* whole_kept = Scalar(kWhole | kText, ToIntegerKept);
  const Shape* natural = Scalar(kWhole | kText, ToNatural);
  const Shape* natural_kept = Scalar(kWhole | kText, ToNaturalKept);
  const Shape* number = Scalar(kNumber | kText, ToInteger);
  const Shape* fraction = Scalar(kNumber | kText, ToFloat);
  const Shape* bytes = Scalar(kNumber | kText, ToBytes);
  const Shape* text_bytes = Scalar(kText, ToBytes);
  const Shape* duration = Scalar(kText, ToDuration);
  const Shape* duration_kept = Scalar(kText, ToDurationKept);
  const Shape* texts = ListOf(text);
  const Shape* distinct_texts = ListOf(text, nullptr, true);
  const Shape* last_of_texts = ListOf(text, ToDistinct);
  const Shape* text_or_texts = Add({.kinds = kText | kList, .convert = ToList, .item = text});
  const Shape* text_or_last_texts =
      Add({.kinds = kText | kList, .convert = ToListDistinct, .item = text});
  const Shape* command =
      Add({.kinds = kNull | kText | kList, .convert = ToCommand, .item = text, .keep = true});
  const Shape* plain_value = Scalar(kText | kNumber | kBool | kNull);
  const auto list_or_map = [&](Convert convert) {
    return Add({.kinds = kList | kMap, .convert = convert, .item = text, .value = plain_value});
  };
  const Shape* mapping = list_or_map(ToMapping);
  const Shape* environment = list_or_map(ToEnvironment);
  const Shape* options = MapOf(Scalar(kText | kNumber | kNull), ToOptions);
  const Shape* driver_options = MapOf(Scalar(kText | kNumber), ToOptions);
  const Shape* hosts = Add({.kinds = kList | kMap,
                            .convert = ToHosts,
                            .item = text,
                            .value = Add({.kinds = kText | kList, .item = text})});
  const Shape* ulimits =
      MapOf(Object({.fields = {{"soft", whole}, {"hard", whole}}, .required = {"soft", "hard"}},
                   ToUlimit, kWhole | kText));
  const auto file_mount = [&](Convert convert) {
    return ListOf(Object({.fields = {{"source", text},
                                     {"target", text},
                                     {"uid", text},
                                     {"gid", text},
                                     {"mode", Scalar(kNumber | kText, ToMode)}}},
                         convert, kText),
                  ToMounts);
  };
  const Shape* secret_mounts = file_mount(ToSecretMount);
  const Shape* config_mounts = file_mount(ToConfigMount);
  const auto device_request = [&](std::vector<std::string_view> required) {
    return ListOf(Object({.fields = {{"capabilities", distinct_texts},
                                     {"count", Scalar(kWhole | kText, ToDeviceCount)},
                                     {"device_ids", distinct_texts},
                                     {"driver", text},
                                     {"options", mapping}},
                          .required = std::move(required)},
                         ToDeviceRequest));
  };
  const Shape* hook = Object({.fields = {{"command", command},
                                         {"user", text},
                                         {"privileged", boolean},
                                         {"working_dir", text},
                                         {"environment", environment}},
                              .required = {"command"}});

  const Shape* volume = Object(
      {.fields =
           {{"type", Words({"bind", "volume", "tmpfs", "cluster", "npipe", "image"})},
            {"source", text},
            {"target", text},
            {"read_only", boolean},
            {"consistency", text},
            {"bind", Object({.fields = {{"propagation", text},
                                        {"create_host_path", opt_out},
                                        {"recursive",
                                         Words({"enabled", "disabled", "writable", "readonly"})},
                                        {"selinux", Words({"z", "Z"})}}})},
            {"volume",
             Object({.fields = {{"labels", mapping}, {"nocopy", boolean}, {"subpath", text}}})},
            {"tmpfs",
             Object({.fields = {{"size", bytes}, {"mode", Scalar(kNumber | kText, ToNatural)}}})},
            {"image", Object({.fields = {{"subpath", text}}})}},
       .required = {"type"}},
      ToVolume, kText);

  const Shape* port = Object({.fields = {{"name", text},
                                         {"mode", text},
                                         {"host_ip", text},
                                         {"target", Scalar(kWhole | kText, ToNatural)},
                                         {"published", text_or_whole},
                                         {"protocol", text},
                                         {"app_protocol", text}}},
                             nullptr, kNumber | kText);

  const Shape* network_use =
      MapOf(Add({.kinds = kMap | kNull,
                 .fields = AddStruct({.fields = {{"aliases", last_of_texts},
                                                 {"interface_name", text},
                                                 {"ipv4_address", text},
                                                 {"ipv6_address", text},
                                                 {"link_local_ips", last_of_texts},
                                                 {"mac_address", text},
                                                 {"driver_opts", driver_options},
                                                 {"priority", Scalar(kNumber, ToInteger)},
                                                 {"gw_priority", Scalar(kNumber, ToInteger)}}}),
                 .keep = true}),
            ToNameMap, true);

  const Shape* blkio_rate = ListOf(Object(
      {.fields = {{"path", text}, {"rate", Scalar(kWhole | kText, ToBytes)}}, .extensible = false},
      ToBlkioRate));
  const Shape* blkio =
      Object({.fields = {{"device_read_bps", blkio_rate},
                         {"device_read_iops", blkio_rate},
                         {"device_write_bps", blkio_rate},
                         {"device_write_iops", blkio_rate},
                         {"weight", natural},
                         {"weight_device",
                          ListOf(Object({.fields = {{"path", text}, {"weight", natural_kept}},
                                         .extensible = false},
                                        ToBlkioWeight))}},
              .extensible = false});

  const Shape* build = Object({.fields = {{"context", text},
                                          {"dockerfile", text},
                                          {"dockerfile_inline", text},
                                          {"entitlements", texts},
                                          {"args", environment},
                                          {"ssh", list_or_map(ToSsh)},
                                          {"labels", mapping},
                                          {"cache_from", texts},
                                          {"cache_to", texts},
                                          {"no_cache", boolean},
                                          {"no_cache_filter", text_or_texts},
                                          {"additional_contexts", list_or_map(ToKeyValues)},
                                          {"network", text},
                                          {"provenance", Scalar(kText | kBool, ToTextValue)},
                                          {"sbom", Scalar(kText | kBool, ToTextValue)},
                                          {"pull", boolean},
                                          {"target", text},
                                          {"shm_size", Scalar(kWhole | kText, ToBytes)},
                                          {"extra_hosts", hosts},
                                          {"isolation", text},
                                          {"privileged", boolean},
                                          {"secrets", config_mounts},
                                          {"tags", last_of_texts},
                                          {"ulimits", ulimits},
                                          {"platforms", texts}}},
                              ToBuild, kText);

  const Shape* depends_on =
      Add({.kinds = kList | kMap,
           .convert = ToDependencies,
           .item = text,
           .value = Object({.fields = {{"restart", boolean},
                                       {"required", boolean_kept},
                                       {"condition", Words({"service_started", "service_healthy",
                                                            "service_completed_successfully"})}},
                            .required = {"condition"}},
                           ToDependency),
           .distinct = true,
           .names = true});

  const Shape* update = Object({.fields = {{"parallelism", natural_kept},
                                           {"delay", duration},
                                           {"failure_action", text},
                                           {"monitor", duration},
                                           {"max_failure_ratio", fraction},
                                           {"order", Words({"start-first", "stop-first"})}}});
  const Shape* generic_resources = ListOf(Object(
      {.fields = {{"discrete_resource_spec",
                   Object({.fields = {{"kind", text},
                                      {"value", Scalar(kNumber | kText, ToIntegerKept)}}})}}}));
  const Shape* resources = Object(
      {.fields = {
           {"limits",
            Object({.fields = {{"cpus", fraction}, {"memory", text_bytes}, {"pids", whole}}})},
           {"reservations", Object({.fields = {{"cpus", fraction},
                                               {"memory", text_bytes},
                                               {"generic_resources", generic_resources},
                                               {"devices", device_request({"capabilities"})}}})}}});
  const Shape* deploy = Object(
      {.fields = {{"mode", text},
                  {"endpoint_mode", text},
                  {"replicas", whole_kept},
                  {"labels", mapping},
                  {"rollback_config", update},
                  {"update_config", update},
                  {"resources", resources},
                  {"restart_policy", Object({.fields = {{"condition", text},
                                                        {"delay", duration_kept},
                                                        {"max_attempts", natural_kept},
                                                        {"window", duration_kept}}})},
                  {"placement", Object({.fields = {{"constraints", texts},
                                                   {"preferences",
                                                    ListOf(Object({.fields = {{"spread", text}}}))},
                                                   {"max_replicas_per_node", natural}}})}}},
      nullptr, kNull);

  const Shape* watch = Object(
      {.fields = {{"ignore", text_or_texts},
                  {"include", text_or_texts},
                  {"path", text},
                  {"action", Words({"rebuild", "sync", "restart", "sync+restart", "sync+exec"})},
                  {"target", text},
                  {"exec", hook},
                  {"initial_sync", only_boolean}},
       .required = {"path", "action"}});

  const Shape* healthcheck = Object(
      {.fields = {{"disable", boolean},
                  {"interval", duration_kept},
                  {"retries", Scalar(kNumber | kText, ToNaturalKept)},
                  {"test", Add({.kinds = kText | kList, .convert = ToHealthTest, .item = text})},
                  {"timeout", duration_kept},
                  {"start_period", duration_kept},
                  {"start_interval", duration_kept}}});

  const Shape* provider =
      Object({.fields = {{"type", text},
                         {"options", MapOf(Add({.kinds = kText | kNumber | kBool | kList,
                                                .convert = ToTexts,
                                                .item = Scalar(kText | kNumber | kBool)}))}},
              .required = {"type"}});

  service_ = AddStruct(
      {.fields = {
           {"annotations", mapping},
           {"attach", boolean_kept},
           {"blkio_config", blkio},
           {"build", build},
           {"cap_add", last_of_texts},
           {"cap_drop", last_of_texts},
           {"cgroup", Words({"host", "private"})},
           {"cgroup_parent", text},
           {"command", command},
           {"configs", config_mounts},
           {"container_name", kept_text},
           {"cpu_count",
            Add({.kinds = kWhole | kText, .convert = ToInteger, .minimum = 0})},
           {"cpu_percent",
            Add({.kinds = kWhole | kText, .convert = ToFloat, .minimum = 0, .maximum = 100})},
           {"cpu_period", number},
           {"cpu_quota", number},
           {"cpu_rt_period", number},
           {"cpu_rt_runtime", number},
           {"cpu_shares", number},
           {"cpus", fraction},
           {"cpuset", text},
           {"credential_spec",
            Object({.fields = {{"config", text}, {"file", text}, {"registry", text}}})},
           {"depends_on", depends_on},
           {"deploy", deploy},
           {"develop", Object({.fields = {{"watch", ListOf(watch)}}}, nullptr, kNull)},
           {"device_cgroup_rules", distinct_texts},
           {"devices", ListOf(Object({.fields = {{"source", text},
                                                 {"target", text},
                                                 {"permissions", text}},
                                      .required = {"source"}},
                                     ToDevice, kText),
                              ToDevices)},
           {"dns", text_or_last_texts},
           {"dns_opt", last_of_texts},
           {"dns_search", text_or_last_texts},
           {"domainname", text},
           {"entrypoint", command},
           {"env_file",
            Add({.kinds = kText | kList,
                 .convert = ToEnvFiles,
                 .item = Object({.fields = {{"path", text},
                                            {"format", text},
                                            {"required", opt_out}},
                                 .required = {"path"},
                                 .extensible = false},
                                nullptr, kText)})},
           {"environment", environment},
           {"expose", ListOf(text_or_whole, ToDistinct)},
           {"external_links", distinct_texts},
           {"extra_hosts", hosts},
           {"gpus", [&] {
              Shape gpus = *device_request({});
              gpus.kinds |= kText;
              gpus.convert = ToGpus;
              gpus.words = {"all"};
              return Add(std::move(gpus));
            }()},
           {"group_add", ListOf(text_or_whole, nullptr, true)},
           {"healthcheck", healthcheck},
           {"hostname", text},
           {"image", text},
           {"init", boolean_kept},
           {"ipc", text},
           {"isolation", text},
           {"label_file", text_or_texts},
           {"labels", mapping},
           {"links", last_of_texts},
           {"logging", Object({.fields = {{"driver", text}, {"options", options}}})},
           {"mac_address", text},
           {"mem_limit", bytes},
           {"mem_reservation", Scalar(kWhole | kText, ToBytes)},
           {"mem_swappiness", Scalar(kWhole | kText, ToBytes)},
           {"memswap_limit", bytes},
           {"models", Add({.kinds = kList | kMap,
                           .convert = ToNameMap,
                           .item = text,
                           .value = Add({.kinds = kMap | kNull,
                                         .fields = AddStruct({.fields = {{"endpoint_var", text},
                                                                         {"model_var", text}}}),
                                         .keep = true}),
                           .distinct = true,
                           .names = true})},
           {"network_mode", kept_text},
           {"networks", [&] {
              Shape networks = *network_use;
              networks.kinds |= kList;
              networks.item = text;
              networks.distinct = true;
              return Add(std::move(networks));
            }()},
           {"oom_kill_disable", boolean},
           {"oom_score_adj", Add({.kinds = kWhole | kText,
                                  .convert = ToInteger,
                                  .minimum = -1000,
                                  .maximum = 1000})},
           {"pid", text_or_null},
           {"pids_limit", number},
           {"platform", text},
           {"ports", ListOf(port, ToPorts)},
           {"post_start", ListOf(hook)},
           {"pre_stop", ListOf(hook)},
           {"privileged", boolean},
           {"profiles", last_of_texts},
           {"provider", provider},
           {"pull_policy", kept_text},
           {"pull_refresh_after", text},
           {"read_only", boolean},
           {"restart", text},
           {"runtime", text},
           {"scale", whole_kept},
           {"secrets", secret_mounts},
           {"security_opt", distinct_texts},
           {"shm_size", bytes},
           {"stdin_open", boolean},
           {"stop_grace_period", duration_kept},
           {"stop_signal", text},
           {"storage_opt", MapOf(text_or_whole)},
           {"sysctls", mapping},
           {"tmpfs", text_or_last_texts},
           {"tty", boolean},
           {"ulimits", ulimits},
           {"use_api_socket", only_boolean},
           {"user", text},
           {"userns_mode", text},
           {"uts", text},
           {"volumes", ListOf(volume, ToVolumes)},
           {"volumes_from", distinct_texts},
           {"working_dir", text},
       }});

  const Shape* external = Add({.kinds = kBool | kText | kMap,
                               .convert = ToExternal,
                               .fields = AddStruct({.fields = {{"name", text}}}),
                               .keep = true});
  const Shape* ipam =
      Object({.fields = {{"driver", text},
                         {"config", ListOf(Object({.fields = {{"subnet", text},
                                                              {"ip_range", text},
                                                              {"gateway", text},
                                                              {"aux_addresses", MapOf(text)}}}))},
                         {"options", MapOf(text)}}});
  const Shape* network = Add({.kinds = kMap | kNull,
                              .fields = AddStruct({.fields = {{"name", text},
                                                              {"driver", text},
                                                              {"driver_opts", driver_options},
                                                              {"ipam", ipam},
                                                              {"external", external},
                                                              {"internal", boolean},
                                                              {"enable_ipv4", boolean_kept},
                                                              {"enable_ipv6", boolean_kept},
                                                              {"attachable", boolean},
                                                              {"labels", mapping}}}),
                              .keep = true});
  const Shape* top_volume = Add({.kinds = kMap | kNull,
                                 .fields = AddStruct({.fields = {{"name", text},
                                                                 {"driver", text},
                                                                 {"driver_opts", driver_options},
                                                                 {"external", external},
                                                                 {"labels", mapping}}}),
                                 .keep = true});
  const Shape* secret = Object({.fields = {{"name", text},
                                           {"environment", text},
                                           {"file", text},
                                           {"external", external},
                                           {"labels", mapping},
                                           {"driver", text},
                                           {"driver_opts", driver_options},
                                           {"template_driver", text}}});
  const Shape* config = Object({.fields = {{"name", text},
                                           {"content", text},
                                           {"environment", text},
                                           {"file", text},
                                           {"external", external},
                                           {"labels", mapping},
                                           {"template_driver", text}}});
  const Shape* model = Object({.fields = {{"name", text},
                                          {"model", text},
                                          {"context_size", Scalar(kWhole, ToInteger)},
                                          {"runtime_flags", texts}},
                               .required = {"model"}});

  top_ = AddStruct({.fields = {
                        {"version", Scalar(kText | kNumber, ToTextValue)},
                        {"name", text},
                        {"services", MapOf(Add({.kinds = kMap, .fields = service_, .keep = true}),
                                           nullptr, true)},
                        {"networks", MapOf(network, nullptr, true)},
                        {"volumes", MapOf(top_volume, nullptr, true)},
                        {"secrets", MapOf(secret, nullptr, true)},
                        {"configs", MapOf(config, nullptr, true)},
                        {"models", MapOf(model, nullptr, true)},
                    }});
}

const Schema& TheSchema() {
  static const Schema schema;
  return schema;
}

// --- checking ---------------------------------------------------------------------------------

unsigned KindOf(const Node& node) {
  switch (node.kind) {
    case Node::Kind::kNull:
      return kNull;
    case Node::Kind::kBool:
      return kBool;
    case Node::Kind::kInt:
      return kWhole;
    case Node::Kind::kFloat:
      return node.number == std::trunc(node.number)
                 ? kWhole
                 : static_cast<unsigned>(kNumber) & ~static_cast<unsigned>(kWhole);
    case Node::Kind::kString:
      return kText;
    case Node::Kind::kList:
      return kList;
    case Node::Kind::kMap:
      return kMap;
  }
  return 0;
}

std::string JoinOr(const std::vector<std::string>& words) {
  std::string text;
  for (std::size_t i = 0; i < words.size(); ++i) {
    if (i > 0) text += i + 1 == words.size() ? " or " : ", ";
    text += words[i];
  }
  return text;
}

std::string ExpectedKinds(const Shape& shape) {
  std::vector<std::string> words;
  if ((shape.kinds & kText) != 0) words.emplace_back("a text");
  if ((shape.kinds & kNumber) == kNumber) {
    words.emplace_back("a number");
  } else if ((shape.kinds & kWhole) != 0) {
    words.emplace_back("a whole number");
  }
  if ((shape.kinds & kBool) != 0) words.emplace_back("true or false");
  if ((shape.kinds & kList) != 0) words.emplace_back("a list");
  if ((shape.kinds & kMap) != 0) words.emplace_back("a mapping");
  if ((shape.kinds & kNull) != 0) words.emplace_back("nothing");
  return JoinOr(words);
}

bool IsName(std::string_view text) {
  return !text.empty() && std::all_of(text.begin(), text.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-';
  });
}

std::vector<std::string_view> NamesOf(const Struct& fields) {
  std::vector<std::string_view> names;
  for (const Field& field : fields.fields) names.push_back(field.name);
  return names;
}

bool SaysNothing(const Node& node) {
  return node.is_null() || (node.is_string() && node.text.empty()) ||
         (node.is_list() && node.items.empty()) || (node.is_map() && node.entries.empty());
}

void Check(Node& node, const Shape& shape, const Path& path, Report& report);

void CheckFields(Node& node, const Struct& fields, const Path& path, Report& report) {
  for (Entry& entry : node.entries) {
    if (report.full()) return;
    if (fields.extensible && entry.key.starts_with("x-")) continue;
    const auto field = std::find_if(fields.fields.begin(), fields.fields.end(),
                                    [&](const Field& f) { return f.name == entry.key; });
    if (field == fields.fields.end()) {
      report.Error(entry.mark, Path(path, entry.key),
                   StrCat("there is no field \"", entry.key, "\" here"),
                   SuggestField(entry.key, NamesOf(fields)));
      continue;
    }
    Check(entry.value, *field->shape, Path(path, entry.key), report);
  }
  for (const std::string_view required : fields.required) {
    if (node.Find(required) == nullptr) {
      report.Error(node.mark, path, StrCat("the field \"", required, "\" is missing"));
    }
  }
  // Extension fields and what says nothing end here, but for the file's own.
  const bool top = path.is_root();
  std::erase_if(node.entries, [&](const Entry& entry) {
    if (entry.key.starts_with("x-")) return fields.extensible && !top;
    const auto field = std::find_if(fields.fields.begin(), fields.fields.end(),
                                    [&](const Field& f) { return f.name == entry.key; });
    return field != fields.fields.end() && !field->shape->keep && SaysNothing(entry.value);
  });
}

void CheckList(Node& node, const Shape& shape, const Path& path, Report& report) {
  std::unordered_set<std::string> seen;
  for (std::size_t i = 0; i < node.items.size(); ++i) {
    Node& item = node.items[i];
    if (shape.item != nullptr) Check(item, *shape.item, Path(path, i), report);
    if (shape.distinct && !seen.insert(item.ToText()).second) {
      report.Error(item.mark, Path(path, i), StrCat(item.Describe(), " is listed twice"));
    }
  }
}

void CheckMap(Node& node, const Shape& shape, const Path& path, Report& report) {
  for (Entry& entry : node.entries) {
    const Path entry_path(path, entry.key);
    if (shape.names && !IsName(entry.key)) {
      report.Error(entry.mark, entry_path,
                   StrCat("expected a name of letters, digits and ._-, got \"", entry.key, "\""));
    }
    if (shape.value != nullptr) Check(entry.value, *shape.value, entry_path, report);
  }
}

void Check(Node& node, const Shape& shape, const Path& path, Report& report) {
  if (node.kind == Node::Kind::kFloat && !std::isfinite(node.number)) {
    report.Error(node.mark, path, StrCat("expected a finite number, got ", node.ToText()));
    return;
  }
  if ((KindOf(node) & shape.kinds) == 0) {
    report.Error(node.mark, path,
                 StrCat("expected ", ExpectedKinds(shape), ", got ", node.Describe()),
                 shape.kinds == kText && (KindOf(node) & (kNumber | kBool)) != 0
                     ? StrCat("quote it: \"", node.ToText(), "\"")
                     : "");
    return;
  }
  if (node.is_list()) CheckList(node, shape, path, report);
  if (node.is_map() && shape.fields != nullptr) {
    CheckFields(node, *shape.fields, path, report);
  } else if (node.is_map()) {
    CheckMap(node, shape, path, report);
  }
  if (node.is_string() && !shape.words.empty() &&
      std::find(shape.words.begin(), shape.words.end(), node.text) == shape.words.end()) {
    std::vector<std::string> words;
    for (const std::string_view word : shape.words) words.push_back(StrCat("\"", word, "\""));
    report.Error(node.mark, path, StrCat("expected ", JoinOr(words), ", got ", node.Describe()),
                 SuggestField(node.text, shape.words));
    return;
  }
  if (shape.convert != nullptr && !node.is_null()) shape.convert(node, path, report);
  if (node.kind == Node::Kind::kInt && ((shape.minimum && node.integer < *shape.minimum) ||
                                        (shape.maximum && node.integer > *shape.maximum))) {
    report.Error(node.mark, path,
                 shape.maximum
                     ? StrCat("expected a number from ", *shape.minimum, " to ", *shape.maximum,
                              ", got ", node.ToText())
                     : StrCat("expected ", *shape.minimum, " or more, got ", node.ToText()));
  }
}

}  // namespace

std::string SuggestField(std::string_view field, const std::vector<std::string_view>& known) {
  if (const auto near = NearMiss(field, known)) return StrCat("did you mean ", *near, "?");
  // A field of a service's inner struct at the service's own level, or the other way round.
  const auto& service = ServiceFields();
  if (std::find(known.begin(), known.end(), "image") != known.end()) {
    for (const Field& outer : TheSchema().service().fields) {
      if (outer.shape->fields == nullptr) continue;
      for (const Field& inner : outer.shape->fields->fields) {
        if (inner.name == field) return StrCat("it belongs under ", outer.name);
      }
    }
    const auto& top = TopLevelFields();
    if (std::find(top.begin(), top.end(), field) != top.end()) {
      return "it belongs at the top level of the file";
    }
  } else if (std::find(service.begin(), service.end(), field) != service.end()) {
    return "it belongs in a service itself";
  }
  return "";
}

const std::vector<std::string_view>& TopLevelFields() {
  static const std::vector<std::string_view> names = NamesOf(TheSchema().top());
  return names;
}

const std::vector<std::string_view>& ServiceFields() {
  static const std::vector<std::string_view> names = NamesOf(TheSchema().service());
  return names;
}

void CheckAndConvert(Node& root, Report& report) {
  CheckFields(root, TheSchema().top(), Path(), report);
}

}  // namespace takt::templates
