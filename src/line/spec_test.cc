#include "line/spec.h"

#include <gtest/gtest.h>

namespace takt::line {
namespace {

templates::ServiceSpec Web() {
  templates::ServiceSpec web;
  web.name = "web";
  web.image = "nginx";
  web.command = {"nginx", "-g", "daemon off;"};
  return web;
}

templates::Mount Volume(const std::string& name, const std::string& target,
                        const std::string& subdirectory = "") {
  return {templates::Mount::Kind::kVolume, name, target, false, subdirectory, 0};
}

DesiredService From(const templates::ServiceSpec& service, const std::string& digest = "sha256:1") {
  return Translate("app", {}, service, digest);
}

TEST(Translate, TakesEverythingTheRuntimeKnows) {
  templates::ServiceSpec web = Web();
  web.entrypoint = std::vector<std::string>{};
  web.environment = {{"A", "1"}};
  web.labels = {{"x", "y"}};
  web.ports = {{"127.0.0.1", 8080, 80, "tcp", "ingress"}};
  web.mounts = {{templates::Mount::Kind::kVolume, "data", "/data", true, "sub", 0},
                {templates::Mount::Kind::kTmpfs, "", "/tmp", false, "", 1024},
                {templates::Mount::Kind::kBind, "/srv", "/srv", false, "", 0}};
  web.depends_on = {{"db", templates::DependencyCondition::kHealthy}};
  web.restart = templates::RestartPolicy::kOnFailure;
  web.restart_max_attempts = 4;
  web.health.kind = templates::HealthCheck::Kind::kHttp;
  web.health.url = "http://container:80/health";
  web.replicas = 3;
  web.cpus = 1.5;
  web.memory_bytes = 1 << 20;
  web.files = {{"/etc/x", "content"}};
  web.stop_signal = "SIGINT";
  templates::AppSpec app;
  app.volumes["data"].actual_name = "platform_data";
  DesiredService service = Translate("app", app, web, "sha256:1");

  runtime::ServiceSpec expected;
  expected.app = "app";
  expected.service = "web";
  expected.image = "nginx";
  expected.image_digest = "sha256:1";
  expected.entrypoint = std::vector<std::string>{};
  expected.command = web.command;
  expected.environment = web.environment;
  expected.labels = web.labels;
  expected.ports = {{"127.0.0.1", 8080, 80, "tcp"}};
  expected.mounts = {
      {.volume = "platform_data", .host_path = "", .target = "/data", .read_only = true},
      {.volume = "", .host_path = "", .target = "/tmp", .tmpfs_bytes = 1024},
      {.volume = "", .host_path = "", .target = "/srv"}};
  expected.restart = runtime::RestartPolicy::kOnFailure;
  expected.restart_max_attempts = 4;
  expected.health.kind = runtime::HealthProbe::Kind::kHttp;
  expected.health.url = "http://127.0.0.1:80/health";
  expected.replicas = 3;
  expected.cpus = 1.5;
  expected.memory_bytes = 1 << 20;
  expected.files = web.files;
  expected.stop_signal = "SIGINT";
  EXPECT_TRUE(service.spec == expected);
  EXPECT_EQ(service.depends_on, web.depends_on);
  EXPECT_EQ(service.sources[0],
            (MountSource{templates::Mount::Kind::kVolume, "platform_data", "sub"}));
}

TEST(Translate, TheInstanceItselfIsThisMachine) {
  for (const auto& [url, expected] : std::map<std::string, std::string>{
           {"container:9000", "127.0.0.1:9000"},
           {"http://container/x", "http://127.0.0.1/x"},
           {"http://container:80/container", "http://127.0.0.1:80/container"},
           {"http://containers:80/", "http://containers:80/"},
           {"db:5432", "db:5432"}}) {
    templates::ServiceSpec web = Web();
    web.health.kind = templates::HealthCheck::Kind::kTcp;
    web.health.url = url;
    EXPECT_EQ(From(web).spec.health.url, expected);
  }
}

// Whom "web" finds by which name beside "db", "cache" and so on themselves.
TEST(Translate, NamesOfLinksAndOfAliasesOnASharedNetwork) {
  using Names = std::map<std::string, std::string>;
  using Networks = std::map<std::string, std::vector<std::string>>;
  struct {
    const char* what;
    Names links;
    Networks mine, theirs;  // of web, of db
    Names expected;
  } cases[] = {
      {"nothing said", {}, {}, {}, {}},
      {"a link", {{"mysql", "db"}, {"db", "db"}}, {}, {}, {{"mysql", "db"}}},
      {"an alias on the default network", {}, {}, {{"default", {"sql"}}}, {{"sql", "db"}}},
      {"an alias on a shared one", {}, {{"n", {}}}, {{"n", {"sql"}}}, {{"sql", "db"}}},
      {"an alias elsewhere", {}, {{"m", {}}}, {{"n", {"sql"}}}, {}},
      {"of two networks the shared one's",
       {},
       {{"n", {}}},
       {{"n", {"sql"}}, {"m", {"hidden"}}},
       {{"sql", "db"}}},
      {"the default network is not theirs", {}, {}, {{"n", {"sql"}}}, {}},
      {"a link wins", {{"sql", "web"}}, {{"n", {}}}, {{"n", {"sql"}}}, {{"sql", "web"}}},
      {"an own alias", {}, {{"n", {"me"}}}, {{"n", {}}}, {{"me", "web"}}},
  };
  for (const auto& c : cases) {
    templates::AppSpec app;
    app.services = {Web(), Web()};
    app.services[0].links = c.links;
    app.services[0].networks = c.mine;
    app.services[1].name = "db";
    app.services[1].networks = c.theirs;
    EXPECT_EQ(Translate("app", app, app.services[0], "").spec.links, c.expected) << c.what;
  }
}

TEST(Translate, OnePerNodeIsOneHere) {
  templates::ServiceSpec web = Web();
  web.one_per_node = true;
  web.replicas = 7;
  EXPECT_EQ(From(web).spec.replicas, 1);
}

TEST(ApplyVolumeOptions, ByKeyOrPlatformName) {
  templates::AppSpec app;
  app.volumes["data"].actual_name = "platform_data";
  app.services.push_back(Web());
  app.services[0].mounts = {Volume("data", "/a"),
                            Volume("other", "/b", "own"),
                            {templates::Mount::Kind::kBind, "data", "/c", false, "", 0}};
  for (const char* name : {"data", "platform_data"}) {
    templates::AppSpec spec = app;
    ApplyVolumeOptions({{name, {"sub"}}, {"other", {""}}}, spec);
    EXPECT_EQ(spec.services[0].mounts[0].subdirectory, "sub");
    EXPECT_EQ(spec.services[0].mounts[1].subdirectory, "own");
    EXPECT_EQ(spec.services[0].mounts[2].subdirectory, "");
  }
}

// What a change of one field comes to: "restart services.web.command[2]".
TEST(PlanServices, KnowsWhatRestarts) {
  struct Case {
    const char* change;
    std::function<void(templates::ServiceSpec&)> apply;
    std::string plan;
  };
  const Case kCases[] = {
      {"nothing", [](auto&) {}, "unchanged"},
      {"depends_on", [](auto& s) { s.depends_on["db"]; }, "unchanged"},
      {"takt.model", [](auto& s) { s.model = "mnist"; }, "unchanged"},
      {"command", [](auto& s) { (*s.command)[2] = "x"; }, "restart ~services.web.command[2]"},
      {"a longer command", [](auto& s) { s.command->push_back("x"); },
       "restart +services.web.command[3]"},
      {"no command", [](auto& s) { s.command.reset(); },
       "restart -services.web.command[0] -services.web.command[1] -services.web.command[2]"},
      {"an empty command", [](auto& s) { s.command->clear(); },
       "restart +services.web.command -services.web.command[0] -services.web.command[1] "
       "-services.web.command[2]"},
      {"image", [](auto& s) { s.image = "httpd"; }, "restart ~services.web.image"},
      {"environment", [](auto& s) { s.environment["A"] = "1"; },
       "restart +services.web.environment.A"},
      {"replicas", [](auto& s) { s.replicas = 2; }, "update ~services.web.replicas"},
      {"labels", [](auto& s) { s.labels["a"] = "b"; }, "update +services.web.labels.a"},
      {"restart", [](auto& s) { s.restart = templates::RestartPolicy::kAlways; },
       "update ~services.web.restart"},
      {"ports",
       [](auto& s) {
         s.ports.push_back({"", 80, 80});
       },
       "restart +services.web.ports[0]"},
      {"volumes", [](auto& s) { s.mounts.push_back(Volume("m", "/m")); },
       "restart +services.web.volumes[0]"},
      {"files", [](auto& s) { s.files["/a"] = "b"; }, "restart +services.web.files./a"},
      {"memory", [](auto& s) { s.memory_bytes = 5; }, "restart +services.web.mem_limit"},
      {"stop grace", [](auto& s) { s.stop_grace = std::chrono::seconds(3); },
       "restart ~services.web.stop_grace_period"},
      {"health check",
       [](auto& s) {
         s.health.kind = templates::HealthCheck::Kind::kShell;
         s.health.command = {"true"};
       },
       "restart +services.web.healthcheck.kind +services.web.healthcheck.test[0] "
       "+services.web.healthcheck.interval +services.web.healthcheck.timeout "
       "+services.web.healthcheck.start_period +services.web.healthcheck.retries"},
  };
  for (const Case& c : kCases) {
    templates::ServiceSpec after = Web();
    c.apply(after);
    std::vector<ServicePlan> plans = PlanServices({From(Web())}, {From(after)});
    ASSERT_EQ(plans.size(), 1u);
    std::string text = ServiceActionName(plans[0].action);
    for (const Change& change : plans[0].changes) {
      text += std::string(" ") +
              (change.kind == Change::Kind::kAdded     ? "+"
               : change.kind == Change::Kind::kRemoved ? "-"
                                                       : "~") +
              change.path;
    }
    EXPECT_EQ(text, c.plan) << c.change;
  }
}

TEST(PlanServices, KnowsWhatComesAndGoes) {
  templates::ServiceSpec db = Web();
  db.name = "db";
  std::vector<ServicePlan> plans = PlanServices({From(db)}, {From(Web())});
  ASSERT_EQ(plans.size(), 2u);
  EXPECT_EQ(plans[0].service, "web");
  EXPECT_EQ(plans[0].action, ServiceAction::kStart);
  EXPECT_EQ(plans[1].service, "db");
  EXPECT_EQ(plans[1].action, ServiceAction::kRemove);
}

TEST(Flatten, ShowsNoContentOfFiles) {
  templates::ServiceSpec web = Web();
  web.files["/run/secrets/password"] = "hunter2";
  for (const auto& [path, value] : Flatten(From(web))) {
    EXPECT_EQ(value.find("hunter2"), std::string::npos) << path;
  }
}

TEST(CheckPorts, NamesPortAndOwner) {
  using Ports = std::vector<templates::Port>;
  struct Case {
    Ports mine, same_app, other;
    int replicas;
    absl::StatusCode code;
    std::string says;
  };
  constexpr auto kOk = absl::StatusCode::kOk, kTaken = absl::StatusCode::kAlreadyExists,
                 kWrong = absl::StatusCode::kInvalidArgument;
  const Case kCases[] = {
      {{{"", 9000, 1}}, {}, {{"", 9000, 2}}, 1, kTaken, "port 9000 is taken by app serving"},
      {{{"127.0.0.1", 9000, 1}},
       {},
       {{"", 9000, 2}},
       1,
       kTaken,
       "port 9000 is taken by app serving"},
      {{{"127.0.0.1", 9000, 1}}, {}, {{"10.0.0.1", 9000, 2}}, 1, kOk, ""},
      {{{"", 9000, 1, "udp"}}, {}, {{"", 9000, 2}}, 1, kOk, ""},
      {{{"", 0, 1}}, {}, {{"", 0, 1}}, 1, kOk, ""},
      {{{"", 9000, 1}},
       {{"", 9000, 1}},
       {},
       1,
       kWrong,
       "port 9000 is taken by service db of this app"},
      {{{"", 9000, 1}, {"", 9000, 2}},
       {},
       {},
       1,
       kWrong,
       "port 9000 is taken by service web of this app"},
      {{{"", 9000, 1}}, {}, {}, 2, kWrong, "2 instances cannot all publish port 9000"},
      {{{"", 0, 1}}, {}, {}, 2, kOk, ""},
  };
  for (const Case& c : kCases) {
    templates::ServiceSpec web = Web(), db = Web(), other = Web();
    db.name = "db";
    db.ports = c.same_app;
    web.ports = c.mine;
    web.replicas = c.replicas;
    other.ports = c.other;
    DesiredService taken = Translate("serving", {}, other, "");
    absl::Status status = CheckPorts({From(db), From(web)}, {&taken});
    EXPECT_EQ(status.code(), c.code) << status;
    EXPECT_NE(std::string(status.message()).find(c.says), std::string::npos) << status;
  }
}

TEST(RoleOf, LabelsComeBeforeTheProgramAndTheProgramBeforeTheImage) {
  templates::ServiceSpec service = Web();
  service.entrypoint.reset();
  service.command.reset();
  runtime::ImageInfo image;
  image.role = "client";
  image.program_roles = {{"/bin/server", "serving"}, {"trainer", "training"}};
  EXPECT_EQ(RoleOf(service, image), "client");
  service.command = {"/bin/Server", "--port=1"};
  EXPECT_EQ(RoleOf(service, image), "serving");
  service.entrypoint = {"trainer"};
  EXPECT_EQ(RoleOf(service, image), "training");
  service.serves = "mnist";
  EXPECT_EQ(RoleOf(service, image), "serving");
  service.model = "mnist";
  EXPECT_EQ(RoleOf(service, image), "training");
}

}  // namespace
}  // namespace takt::line
