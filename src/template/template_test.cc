// Templates as data. A file of tests/template/ holds cases of this form:
//
//   === what the case says
//   @set NAME=VALUE            any number of times
//   @show parameters spec      what is printed beside issues: parameters, spec, features, resolved
//   the template
//   >>>
//   what loading it prints
//
// TAKT_UPDATE_GOLDEN=1 rewrites what the cases of golden files expect, to be reviewed as a diff.
// Files compose*.txt hold what the Compose specification's own loader made of a template instead:
// "error", or the canonical model without what is empty; they are never rewritten.
#include "template/template.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "base/fs.h"
#include "base/str.h"

namespace takt::templates {
namespace {

using ::testing::HasSubstr;

struct Case {
  std::string name;
  std::vector<std::string> directives;  // the @ lines
  std::string text;
  std::string expected;
};

std::string DataDir() { return JoinPath(TAKT_SOURCE_DIR, "tests/template"); }

std::vector<Case> ReadCases(const std::string& path) {
  std::vector<Case> cases;
  std::ifstream stream(path);
  std::string* into = nullptr;
  bool directives = false;
  for (std::string line; std::getline(stream, line);) {
    if (line.starts_with("=== ")) {
      cases.push_back({line.substr(4), {}, "", ""});
      into = &cases.back().text;
      directives = true;
    } else if (into == nullptr) {
      continue;
    } else if (line == ">>>") {
      into = &cases.back().expected;
      directives = false;
    } else if (directives && line.starts_with('@')) {
      cases.back().directives.push_back(line);
    } else {
      directives = false;
      *into += line + "\n";
    }
  }
  for (Case& one : cases) {
    while (one.expected.ends_with("\n\n")) one.expected.pop_back();
    if (one.expected == "\n") one.expected.clear();
    // A template without a newline at its end.
    if (one.text.ends_with("<no newline>\n")) one.text.resize(one.text.size() - 13);
    // Characters that a text file cannot show.
    for (const auto& [shown, meant] : {std::pair<std::string, std::string>{"<tab>", "\t"},
                                       {"<cr>", "\r"},
                                       {"<bom>", "\xEF\xBB\xBF"},
                                       {"<nul>", std::string(1, '\0')},
                                       {"<ff>", "\xFF"},
                                       {"<bell>", "\a"}}) {
      for (std::size_t at = 0; (at = one.text.find(shown, at)) != std::string::npos;) {
        one.text.replace(at, shown.size(), meant);
      }
    }
  }
  return cases;
}

LoadOptions OptionsFor(const Case& one) {
  LoadOptions options;
  options.file_name = "";
  options.project_name = "app";
  options.allow_files = true;
  for (const std::string& directive : one.directives) {
    if (directive.starts_with("@set ")) {
      const std::size_t equals = directive.find('=');
      options.values[directive.substr(5, equals - 5)] = directive.substr(equals + 1);
    } else if (directive == "@server") {
      options.allow_files = false;
    } else if (directive == "@no-profiles") {
      options.all_profiles = false;
    }
  }
  return options;
}

// --- printing ---------------------------------------------------------------------------------

const char* TypeName(ParameterType type) {
  switch (type) {
    case ParameterType::kInteger:
      return "integer";
    case ParameterType::kNumber:
      return "number";
    case ParameterType::kPath:
      return "path";
    case ParameterType::kEndpoint:
      return "endpoint";
    case ParameterType::kText:
      return "text";
  }
  return "";
}

std::string Print(const std::vector<Parameter>& parameters) {
  std::string out;
  for (const Parameter& parameter : parameters) {
    out += StrCat(parameter.name, " ", TypeName(parameter.type));
    if (parameter.required) out += " required";
    if (parameter.default_value) out += StrCat(" default \"", *parameter.default_value, "\"");
    if (!parameter.message.empty()) out += StrCat(" message \"", parameter.message, "\"");
    for (const auto& use : parameter.uses) {
      out += StrCat("\n  ", use.line, ":", use.column, " ", use.path);
    }
    out += "\n";
  }
  return out;
}

template <typename List>
std::string Join(const List& list) {
  std::string out;
  for (const auto& item : list) out += StrCat(out.empty() ? "" : ", ", "\"", item, "\"");
  return StrCat("[", out, "]");
}

std::string Print(const HealthCheck& health) {
  constexpr const char* kKinds[] = {"none", "command", "shell", "http", "tcp"};
  return StrCat(kKinds[static_cast<int>(health.kind)], " ",
                health.url.empty() ? Join(health.command) : health.url, " every ",
                health.interval.count(), " ms, timeout ", health.timeout.count(),
                " ms, start after ", health.start_period.count(), " ms, retries ", health.retries);
}

// What differs from a service without any field.
std::string Print(const ServiceSpec& service) {
  std::string out = StrCat("service ", service.name, "\n");
  const ServiceSpec plain;
  const auto line = [&](std::string_view name, const auto& value) {
    out += StrCat("  ", name, ": ", value, "\n");
  };
  const auto text = [&](std::string_view name, const std::string& value,
                        const std::string& otherwise = "") {
    if (value != otherwise) line(name, value);
  };
  const auto number = [&](std::string_view name, auto value, auto otherwise) {
    if (value != otherwise) line(name, value);
  };
  const auto list = [&](std::string_view name, const std::vector<std::string>& value) {
    if (!value.empty()) line(name, Join(value));
  };
  text("image", service.image);
  if (service.entrypoint) line("entrypoint", Join(*service.entrypoint));
  if (service.command) line("command", Join(*service.command));
  for (const auto& [key, value] : service.environment) line("environment", StrCat(key, "=", value));
  for (const Port& port : service.ports) {
    line("port", StrCat(port.host_ip.empty() ? "*" : port.host_ip, ":", port.published, " -> ",
                        port.target, "/", port.protocol, " ", port.mode));
  }
  for (const Mount& mount : service.mounts) {
    constexpr const char* kKinds[] = {"volume", "bind", "tmpfs"};
    std::string shown =
        StrCat(kKinds[static_cast<int>(mount.kind)], " ", mount.source, " -> ", mount.target);
    if (mount.read_only) shown += " read-only";
    if (!mount.subdirectory.empty()) shown += " in " + mount.subdirectory;
    if (mount.tmpfs_bytes > 0) shown += StrCat(" ", mount.tmpfs_bytes, " bytes");
    line("mount", shown);
  }
  for (const auto& [name, condition] : service.depends_on) {
    constexpr const char* kConditions[] = {"started", "healthy", "completed"};
    line("depends on", StrCat(name, " ", kConditions[static_cast<int>(condition)]));
  }
  if (service.restart != plain.restart) {
    constexpr const char* kPolicies[] = {"no", "always", "on-failure", "unless-stopped"};
    line("restart", kPolicies[static_cast<int>(service.restart)]);
  }
  number("restart attempts", service.restart_max_attempts, 0);
  if (service.health != plain.health) line("health", Print(service.health));
  number("replicas", service.replicas, 1);
  if (service.one_per_node) line("one per node", "yes");
  number("cpus", service.cpus, 0.0);
  number("cpu shares", service.cpu_shares, std::int64_t{0});
  number("memory", service.memory_bytes, std::uint64_t{0});
  number("shm", service.shm_bytes, std::uint64_t{0});
  number("gpus", service.gpus, 0);
  text("working dir", service.working_dir);
  text("user", service.user);
  text("hostname", service.hostname);
  text("stop signal", service.stop_signal, "SIGTERM");
  if (service.stop_grace != plain.stop_grace) line("stop grace ms", service.stop_grace.count());
  for (const auto& [name, on] : {std::pair{"init", service.init},
                                 {"privileged", service.privileged},
                                 {"read only", service.read_only},
                                 {"tty", service.tty},
                                 {"stdin open", service.stdin_open}}) {
    if (on) line(name, "yes");
  }
  for (const auto& [name, limits] : service.ulimits) {
    line("ulimit", StrCat(name, " ", limits.first, " ", limits.second));
  }
  list("cap add", service.cap_add);
  list("cap drop", service.cap_drop);
  list("devices", service.devices);
  list("extra hosts", service.extra_hosts);
  list("dns", service.dns);
  for (const auto& [name, linked] : service.links) line("link", StrCat(name, " ", linked));
  list("profiles", service.profiles);
  list("constraints", service.constraints);
  list("affinities", service.affinities);
  if (service.reschedule_on_node_failure) line("reschedule on node failure", "yes");
  for (const auto& [name, aliases] : service.networks) line("network", name + " " + Join(aliases));
  for (const auto& [path, content] : service.files) line("file", StrCat(path, " = ", content));
  if (service.scaling) {
    const AutoScaling& s = *service.scaling;
    std::string scaling = StrCat(s.min_instances, " to ", s.max_instances, " by ", s.step);
    for (const auto& [name, percent] : {std::pair("max cpu", s.max_cpu),
                                        {"min cpu", s.min_cpu},
                                        {"max memory", s.max_memory},
                                        {"min memory", s.min_memory}}) {
      if (percent) scaling += StrCat(", ", name, " ", *percent);
    }
    line("scaling", scaling);
  }
  for (const LogStore& store : service.log_stores) {
    line("log store", StrCat(store.name, " ", store.source, " ", store.ttl_days, " days"));
  }
  text("model", service.model);
  text("model path", service.model_path);
  text("serves", service.serves);
  text("learning", service.learning);
  text("checkpoint", service.checkpoint);
  return out;
}

std::string Print(const AppSpec& spec) {
  std::string out;
  if (!spec.name.empty()) out += "name " + spec.name + "\n";
  for (const ServiceSpec& service : spec.services) out += Print(service);
  for (const auto& [key, volume] : spec.volumes) {
    out += StrCat("volume ", key, " = ", volume.actual_name, volume.external ? " external" : "",
                  volume.driver.empty() ? "" : " driver " + volume.driver);
    for (const auto& [name, value] : volume.driver_opts) out += StrCat(" ", name, "=", value);
    out += "\n";
  }
  return out;
}

std::string Print(const std::vector<FeatureUse>& features) {
  std::string out;
  for (const FeatureUse& use : features) {
    out += StrCat(use.line, ":", use.column, " ", use.feature, " (", use.path, ")\n");
  }
  return out;
}

std::string PrintCase(const Case& one) {
  const LoadResult result = LoadTemplate(one.text, OptionsFor(one));
  std::string out;
  for (const Issue& issue : result.issues) {
    // Without the file's name: ":4:5: ..." or ": ...".
    out += issue.ToString().substr(1) + "\n";
  }
  for (const std::string& directive : one.directives) {
    if (!directive.starts_with("@show ")) continue;
    std::istringstream words(directive.substr(6));
    for (std::string word; words >> word;) {
      if (word == "parameters") out += Print(result.parameters);
      if (!result.ok()) continue;
      if (word == "spec") out += Print(result.spec);
      if (word == "features") out += Print(result.spec.features);
      if (word == "resolved") out += result.canonical_json;
    }
  }
  return out;
}

// --- cases as tests ---------------------------------------------------------------------------

class GoldenCase : public ::testing::Test {
 public:
  explicit GoldenCase(Case one) : case_(std::move(one)) {}
  void TestBody() override { EXPECT_EQ(PrintCase(case_), case_.expected) << case_.text; }

 private:
  Case case_;
};

nlohmann::json WithoutEmpty(const nlohmann::json& value) {
  const auto empty = [](const nlohmann::json& v) {
    return v.is_null() || ((v.is_object() || v.is_array()) && v.empty()) ||
           (v.is_string() && v.get_ref<const std::string&>().empty());
  };
  if (value.is_object()) {
    nlohmann::json kept = nlohmann::json::object();
    for (const auto& [key, member] : value.items()) {
      nlohmann::json plain = WithoutEmpty(member);
      if (!empty(plain)) kept[key] = std::move(plain);
    }
    return kept;
  }
  if (value.is_array()) {
    nlohmann::json kept = nlohmann::json::array();
    for (const auto& member : value) kept.push_back(WithoutEmpty(member));
    return kept;
  }
  return value;
}

class ComposeCase : public ::testing::Test {
 public:
  explicit ComposeCase(Case one) : case_(std::move(one)) {}
  void TestBody() override {
    ::setenv("HOME", "/root", 1);  // what ~ means in the vectors
    const LoadResult result = LoadTemplate(case_.text, OptionsFor(case_));
    if (case_.expected == "error\n") {
      ASSERT_FALSE(result.ok()) << case_.text << result.canonical_json;
      EXPECT_GT(result.issues.front().line, 0);
      return;
    }
    ASSERT_TRUE(result.ok()) << case_.text << result.status();
    nlohmann::json model = WithoutEmpty(nlohmann::json::parse(result.canonical_json));
    model.erase("name");
    EXPECT_EQ(model, nlohmann::json::parse(case_.expected)) << case_.text;
  }

 private:
  Case case_;
};

void RegisterCases() {
  const auto files = ListDir(DataDir());
  if (!files.ok()) return;  // The test of the suite's size fails then.
  for (const std::string& file : *files) {
    if (!file.ends_with(".txt")) continue;
    const bool compose = file.starts_with("compose");
    for (Case& one : ReadCases(JoinPath(DataDir(), file))) {
      const std::string suite = file.substr(0, file.size() - 4);
      const std::string name = one.name;
      ::testing::RegisterTest(suite.c_str(), name.c_str(), nullptr, nullptr, __FILE__, __LINE__,
                              [compose, one = std::move(one)]() -> ::testing::Test* {
                                if (compose) return new ComposeCase(one);
                                return new GoldenCase(one);
                              });
    }
  }
}

void UpdateGoldens() {
  const auto files = ListDir(DataDir());
  if (!files.ok()) return;
  for (const std::string& file : *files) {
    if (!file.ends_with(".txt") || file.starts_with("compose")) continue;
    const std::string path = JoinPath(DataDir(), file);
    std::ifstream stream(path);
    std::string text;
    const std::vector<Case> cases = ReadCases(path);
    auto next = cases.begin();
    bool copying = true;
    for (std::string line; std::getline(stream, line);) {
      if (line.starts_with("=== ")) copying = true;
      if (copying) text += line + "\n";
      if (line == ">>>" && next != cases.end()) {
        text += PrintCase(*next++) + "\n";
        copying = false;
      }
    }
    if (text.ends_with("\n\n")) text.pop_back();
    const absl::Status written = WriteFileAtomic(path, text);
    if (!written.ok()) std::fprintf(stderr, "%s\n", written.ToString().c_str());
  }
}

TEST(TemplateSuite, HoldsWhatItShould) {
  std::size_t golden = 0;
  std::size_t compose = 0;
  const auto files = ListDir(DataDir());
  ASSERT_TRUE(files.ok()) << files.status();
  for (const std::string& file : *files) {
    if (!file.ends_with(".txt")) continue;
    (file.starts_with("compose") ? compose : golden) += ReadCases(JoinPath(DataDir(), file)).size();
  }
  EXPECT_GE(golden, 150U);
  EXPECT_GE(compose, 164U);
}

// --- what does not fit into a text file -------------------------------------------------------

LoadResult Load(const std::string& text) {
  LoadOptions options;
  options.file_name = "t.yml";
  return LoadTemplate(text, options);
}

std::string FirstError(const std::string& text) {
  const LoadResult result = Load(text);
  return result.ok() ? "no error" : std::string(result.status().message()).substr(0, 400);
}

TEST(HostileTemplate, OverTheSizeLimitIsRefusedUnread) {
  const std::string fits =
      "services: {s: {image: x}}\n#" + std::string(kMaxTemplateBytes - 27, 'a');
  ASSERT_EQ(fits.size(), kMaxTemplateBytes);
  EXPECT_TRUE(Load(fits).ok());
  EXPECT_THAT(FirstError(fits + "a"), HasSubstr("expected at most 1048576 bytes, got 1048577"));
  EXPECT_THAT(FirstError(std::string(100 << 20, 'a')), HasSubstr("expected at most"));
}

TEST(HostileTemplate, AliasBombIsRefused) {
  std::string text = "x-a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n";
  for (int i = 1; i < 12; ++i) {
    text += StrCat("x-a", i, ": &a", i, " [");
    for (int j = 0; j < 10; ++j) text += StrCat(j > 0 ? ", *a" : "*a", i - 1);
    text += "]\n";
  }
  EXPECT_THAT(FirstError(text + "services: {s: {image: x, command: *a11}}\n"),
              HasSubstr("more than 100000 values"));
}

TEST(HostileTemplate, BombOfMergesIsRefused) {
  std::string text = "x-a0: &a0 {k0: 1, k1: 1, k2: 1, k3: 1}\n";
  for (int i = 1; i < 20; ++i) {
    text +=
        StrCat("x-a", i, ": &a", i, " {<<: *a", i - 1, ", p: *a", i - 1, ", q: *a", i - 1, "}\n");
  }
  EXPECT_THAT(FirstError(text + "services: {s: {image: x}}\n"),
              HasSubstr("more than 100000 values"));
}

TEST(HostileTemplate, ServicesThatExtendABigOneAreCounted) {
  std::string text = "services:\n  base:\n    image: x\n    labels:\n";
  for (int i = 0; i < 1000; ++i) text += StrCat("      l", i, ": v\n");
  for (int i = 0; i < 200; ++i) text += StrCat("  s", i, ": {extends: base}\n");
  EXPECT_THAT(FirstError(text), HasSubstr("more than 100000 values, with bases in place"));
}

TEST(HostileTemplate, ChainOfExtendsHasALimit) {
  std::string text = "services:\n  s0: {image: x}\n";
  for (int i = 1; i < 200; ++i) text += StrCat("  s", i, ": {extends: s", i - 1, "}\n");
  // The last one first, so that the whole chain is open at once.
  text += "  a: {extends: s199}\n";
  std::string reversed = "services:\n";
  for (int i = 199; i > 0; --i) reversed += StrCat("  s", i, ": {extends: s", i - 1, "}\n");
  EXPECT_THAT(FirstError(reversed + "  s0: {image: x}\n"), HasSubstr("more than 64 levels"));
  EXPECT_TRUE(Load(text).ok());
}

TEST(HostileTemplate, DeepNestingIsRefused) {
  const auto nested = [](int levels) {
    // The file's mapping is the first level.
    return StrCat("x-a: ", std::string(levels - 1, '['), std::string(levels - 1, ']'),
                  "\nservices: {s: {image: x}}\n");
  };
  EXPECT_TRUE(Load(nested(kMaxTemplateDepth)).ok());
  EXPECT_THAT(FirstError(nested(kMaxTemplateDepth + 1)), HasSubstr("nested deeper than 64 levels"));
  for (const char* opening : {"[", "{a: ", "- ", "? ", "\"", "&a [", "!x ["}) {
    std::string text;
    while (text.size() < 300000) text += opening;
    EXPECT_FALSE(Load(text).ok()) << opening;
  }
}

TEST(HostileTemplate, TooManyValuesAreRefused) {
  std::string text = "services: {s: {image: x}}\nx-a: [";
  for (std::size_t i = 0; i < kMaxTemplateNodes; ++i) text += "1,";
  EXPECT_THAT(FirstError(text + "]\n"), HasSubstr("more than 100000 values"));
}

TEST(HostileTemplate, VariablesCannotBlowUpTheText) {
  std::string text = "services: {s: {image: x}}\nx-a: \"";
  for (int i = 0; i < 100'000; ++i) text += "${A}";
  LoadOptions options;
  options.values["A"] = std::string(100'000, 'a');
  const LoadResult result = LoadTemplate(text + "\"\n", options);
  ASSERT_FALSE(result.ok());
  EXPECT_THAT(std::string(result.status().message()), HasSubstr("more than 16777216 bytes"));
}

TEST(HostileTemplate, DefaultsInDefaultsHaveALimit) {
  const auto nested = [](int depth) {
    std::string text;
    for (int i = 0; i < depth; ++i) text += "${A:-";
    text += "x" + std::string(depth, '}');
    return "services: {s: {image: \"" + text + "\"}}\n";
  };
  EXPECT_TRUE(Load(nested(32)).ok());
  EXPECT_THAT(FirstError(nested(40)), HasSubstr("nested deeper than 32"));
  EXPECT_THAT(FirstError(nested(50'000)), HasSubstr("nested deeper than 32"));
}

TEST(HostileTemplate, PortRangesHaveALimit) {
  const std::string one = "services: {s: {image: x, ports: [\"1-65535\"";
  EXPECT_TRUE(Load(one + "]}}\n").ok());
  EXPECT_THAT(FirstError(one + ", \"1-65535:1-65535/udp\"]}}\n"),
              HasSubstr("hold more than 100000 ports"));
}

TEST(HostileTemplate, ManyErrorsEndInOneLine) {
  std::string text = "services:\n";
  for (int i = 0; i < 5000; ++i) text += StrCat("  s", i, ": {imagge: x}\n");
  const LoadResult result = Load(text);
  EXPECT_EQ(result.issues.size(), 101U);
  EXPECT_THAT(result.issues.back().message, HasSubstr("only the first 100 are listed"));
}

TEST(HostileTemplate, OtherEncodingsAreRefusedByName) {
  const std::string text = "services: {s: {image: x}}\n";
  std::string little = "\xFF\xFE";
  std::string big = "\xFE\xFF";
  std::string bare;
  for (const char c : text) {
    little += {c, '\0'};
    big += {'\0', c};
    bare += {c, '\0'};
  }
  EXPECT_THAT(FirstError(little), HasSubstr("expected UTF-8 text, got UTF-16"));
  EXPECT_THAT(FirstError(big), HasSubstr("expected UTF-8 text, got UTF-16"));
  EXPECT_THAT(FirstError(bare), HasSubstr("expected UTF-8 text, got UTF-16"));
  EXPECT_THAT(FirstError("services:\n  s: {image: \"a\xC0\x80\"}\n"),
              HasSubstr("t.yml:2:16: expected UTF-8 text, got the byte c0"));
  EXPECT_THAT(FirstError("services:\n  s: {image: \"\xED\xA0\x80\"}\n"), HasSubstr("byte ed"));
  EXPECT_THAT(FirstError("a: \xE2\x82"), HasSubstr("byte e2"));
}

TEST(HostileTemplate, ValuesAreTextToo) {
  for (const std::string& value : {std::string("a\0b", 3), std::string("\xFF")}) {
    LoadOptions options;
    options.values["A"] = value;
    const LoadResult result = LoadTemplate("services: {s: {image: \"$A\"}}\n", options);
    EXPECT_THAT(std::string(result.status().message()),
                HasSubstr("the value of A: expected UTF-8 text without NUL characters"));
  }
}

TEST(Template, TheUsersThreeLoadUnchanged) {
  for (const char* name : {"client.yml", "serving.yml", "training.yml"}) {
    const auto text = ReadFile(JoinPath(DataDir(), StrCat("user/", name)), kMaxTemplateBytes);
    ASSERT_TRUE(text.ok()) << text.status();
    const LoadResult result = Load(*text);
    EXPECT_TRUE(result.ok()) << result.status();
    ASSERT_EQ(result.spec.services.size(), 1U);
    const ServiceSpec& service = result.spec.services[0];
    EXPECT_THAT(service.image, HasSubstr("registry-vpc.cn-hangzhou.aliyuncs.com/"));
    if (std::string(name) == "client.yml") continue;
    ASSERT_EQ(service.log_stores.size(), 1U);
    EXPECT_EQ(service.log_stores[0].source, "stdout");
    EXPECT_EQ(service.environment.at("CUDA_VISIBLE_DEVICES"), "-1");
    const VolumeSpec& volume = result.spec.volumes.at("mnist_model");
    EXPECT_TRUE(volume.external);
    EXPECT_EQ(volume.actual_name, "mnist_model");
    EXPECT_TRUE(result.spec.features.empty());
  }
}

TEST(Template, ReadsFilesBesideIt) {
  TempDir dir;
  ASSERT_TRUE(WriteFileAtomic(JoinPath(dir.path(), "a.env"),
                              "# comment\nA=1\nexport B = two words # not this\nC='$A'\n"
                              "D=\"x\\n${A}\"\nE: yaml\nF\nG=${NOPE:-d}\nH=\"over\nlines\"\n")
                  .ok());
  ASSERT_TRUE(WriteFileAtomic(JoinPath(dir.path(), "raw.env"), "A='2'\n").ok());
  ASSERT_TRUE(WriteFileAtomic(JoinPath(dir.path(), "l.labels"), "takt.serves=m\n").ok());
  ASSERT_TRUE(WriteFileAtomic(JoinPath(dir.path(), "conf"), "hello").ok());
  const std::string text = R"(
services:
  s:
    image: x
    env_file: [a.env, {path: raw.env, format: raw}, {path: nope.env, required: false}]
    environment: {E: own}
    label_file: l.labels
    configs: [{source: c, target: /etc/c}]
    secrets: [k]
configs:
  c: {file: ./conf}
secrets:
  k: {environment: F}
)";
  LoadOptions options;
  options.project_dir = dir.path();
  options.allow_files = true;
  options.values["F"] = "outer";
  LoadResult result = LoadTemplate(text, options);
  ASSERT_TRUE(result.ok()) << result.status();
  const ServiceSpec& service = result.spec.services.at(0);
  const std::map<std::string, std::string> expected{
      {"A", "'2'"}, {"B", "two words"}, {"C", "$A"}, {"D", "x\n1"},
      {"E", "own"}, {"F", "outer"},     {"G", "d"},  {"H", "over\nlines"}};
  EXPECT_EQ(service.environment, expected);
  EXPECT_EQ(service.serves, "m");
  EXPECT_EQ(service.files.at("/etc/c"), "hello");
  EXPECT_EQ(service.files.at("/run/secrets/k"), "outer");

  options.allow_files = false;
  result = LoadTemplate(text, options);
  EXPECT_FALSE(result.ok());
  EXPECT_THAT(std::string(result.status().message()),
              HasSubstr("only the template itself is sent"));

  options.allow_files = true;
  result = LoadTemplate("services: {s: {image: x, env_file: ../secret}}\n", options);
  EXPECT_THAT(std::string(result.status().message()),
              HasSubstr("lies outside of the template's directory"));
}

TEST(Issue, PrintsFileLineColumnPathMessageAndSuggestion) {
  const LoadResult result = Load("services:\n  web:\n    image: x\n    comand: a\n");
  ASSERT_EQ(result.issues.size(), 1U);
  EXPECT_EQ(result.issues[0].ToString(),
            "t.yml:4:5: services.web.comand: there is no field \"comand\" here (did you mean "
            "command?)");
  EXPECT_EQ(result.status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace takt::templates

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  if (std::getenv("TAKT_UPDATE_GOLDEN") != nullptr) takt::templates::UpdateGoldens();
  takt::templates::RegisterCases();
  return RUN_ALL_TESTS();
}
