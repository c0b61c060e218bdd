// Runs tests/line/*.txt: each a story in a small language, told on a fake clock and a fake runtime.
//
// A line is a command; what it says is compared with the lines after it that begin with "= ".
// After every command the line's loop has run until nothing was left to do (but see `hold`).
// TAKT_UPDATE=1 writes what was said into the file instead: review the difference.
//
//   template NAME                      the indented lines after it are its text
//   volume NAME [device=PATH]          create; `rmvolume NAME`
//   mkdir PATH | rmdir PATH            directories; $DIR is a fresh one
//   deploy APP TEMPLATE [K=V ...] [volume.NAME=SUBDIRECTORY] [+volumes]
//   configure APP [template=NAME] [K=V ...] [K=] [volume.NAME=...] [+volumes]   the rest stays
//   preview APP [as configure, or as deploy with template= for a new app]
//   rollback APP N | stop APP | start APP | remove APP | keeps APP (which volumes stay)
//   behave APP.SERVICE [ends=3s] [code=N] [signal=N] [oom] [starts=1s] [fails=WHY]
//   [healthy=2s|never] exit APP.SERVICE[.REPLICA] CODE | kill APP.SERVICE SIGNAL | health
//   APP.SERVICE good|bad [WHY] missing IMAGE | digest IMAGE DIGEST [ROLE] | take PORT BY | refuse
//   CODE MESSAGE (next Deploy) advance 3s | restart               (a new daemon) hold | go the loop
//   stands still | goes on die before|after deploy|stop|remove   the next such call kills the
//   daemon; a new one starts remark APP SERVICE TEXT scale APP SERVICE N WHY show APP | apps |
//   history APP | events [APP] (since last asked) | started (since last asked) users VOLUME
#include <gtest/gtest.h>

#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "absl/strings/numbers.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "line/test_world.h"

namespace takt::line {
namespace {

using std::chrono::milliseconds;

milliseconds ParseDuration(const std::string& text) {
  double value = std::strtod(text.c_str(), nullptr);
  double factor = text.ends_with("ms")  ? 1
                  : text.ends_with("m") ? 60'000
                  : text.ends_with("h") ? 3'600'000
                                        : 1000;
  return milliseconds(static_cast<std::int64_t>(value * factor));
}

class Story {
 public:
  // What the command says, lines ending in "\n"; `block` is its indented text.
  std::string Run(const std::string& command, const std::string& block) {
    words_ = absl::StrSplit(command, ' ', absl::SkipEmpty());
    block_ = block;
    out_.clear();
    const std::string verb = words_[0];
    auto it = Verbs().find(verb);
    if (it == Verbs().end()) return "no such command: " + verb + "\n";
    it->second(*this);
    if (!held_) world_.line->Step();
    if (world_.runtime.dead()) {
      Say(world_.Open());
      world_.line->Step();
    }
    return absl::StrReplaceAll(out_, {{world_.dir.path(), "$DIR"}});
  }

 private:
  using Verb = std::function<void(Story&)>;

  static const std::map<std::string, Verb>& Verbs() {
    static const auto* verbs = new std::map<std::string, Verb>{
        {"template", [](Story& s) { s.templates_[s.Word(1)] = s.block_; }},
        {"volume", [](Story& s) { s.Volume(); }},
        {"rmvolume", [](Story& s) { s.Say(s.world_.volumes->Remove(s.Word(1))); }},
        {"mkdir", [](Story& s) { s.Say(MakeDirs(s.Path(1))); }},
        {"rmdir", [](Story& s) { s.Say(RemoveAll(s.Path(1))); }},
        {"deploy", [](Story& s) { s.Deploy(); }},
        {"configure", [](Story& s) { s.Configure(); }},
        {"preview", [](Story& s) { s.Preview(); }},
        {"rollback",
         [](Story& s) {
           s.Say(s.world_.line->Rollback(s.Word(1), s.Number(2), {.author = "ann"}).status());
         }},
        {"stop", [](Story& s) { s.Say(s.world_.line->Stop(s.Word(1)).status()); }},
        {"start", [](Story& s) { s.Say(s.world_.line->Start(s.Word(1)).status()); }},
        {"remove", [](Story& s) { s.Say(s.world_.line->Remove(s.Word(1))); }},
        {"keeps", [](Story& s) { s.Keeps(); }},
        {"behave", [](Story& s) { s.Behave(); }},
        {"exit", [](Story& s) { s.Did(s.world_.fake.Exit(s.Instance(), s.Number(2))); }},
        {"kill", [](Story& s) { s.Did(s.world_.fake.Kill(s.Instance(), s.Number(2))); }},
        {"health", [](Story& s) { s.SetHealth(); }},
        {"missing", [](Story& s) { s.world_.fake.MissImage(s.Word(1)); }},
        {"digest",
         [](Story& s) {
           s.world_.fake.SetImage(s.Word(1), {s.Word(1), s.Word(2), s.Word(3)});
         }},
        {"take",
         [](Story& s) {
           s.world_.fake.TakePort(static_cast<std::uint16_t>(s.Number(1)), s.Rest(2));
         }},
        {"refuse",
         [](Story& s) {
           s.world_.fake.FailNextDeploy(absl::Status(CodeFromName(s.Word(1)), s.Rest(2)));
         }},
        {"advance", [](Story& s) { s.world_.Advance(ParseDuration(s.Word(1))); }},
        {"restart", [](Story& s) { s.Say(s.world_.Open()); }},
        {"hold", [](Story& s) { s.held_ = true; }},
        {"go", [](Story& s) { s.held_ = false; }},
        {"die", [](Story& s) { s.Die(); }},
        {"remark", [](Story& s) { s.world_.line->SetRemark(s.Word(1), s.Word(2), s.Rest(3)); }},
        {"scale",
         [](Story& s) {
           s.Say(s.world_.line->Scale(s.Word(1), s.Word(2), std::stoi(s.Word(3)), s.Rest(4)));
         }},
        {"show", [](Story& s) { s.Show(); }},
        {"apps", [](Story& s) { s.Apps(); }},
        {"history", [](Story& s) { s.History(); }},
        {"events", [](Story& s) { s.Events(); }},
        {"started", [](Story& s) { s.Started(); }},
        {"users",
         [](Story& s) { s.Line(absl::StrJoin(s.world_.line->UsersOfVolume(s.Word(1)), " ")); }},
    };
    return *verbs;
  }

  std::string Word(std::size_t i) const { return i < words_.size() ? words_[i] : ""; }
  std::string Rest(std::size_t i) const {
    if (i >= words_.size()) return "";
    return absl::StrJoin(words_.begin() + static_cast<std::ptrdiff_t>(i), words_.end(), " ");
  }
  int Number(std::size_t i) const { return std::atoi(Word(i).c_str()); }
  std::string Path(std::size_t i) const { return Expand(Word(i)); }
  std::string Expand(const std::string& text) const {
    return absl::StrReplaceAll(text, {{"$DIR", world_.dir.path()}});
  }
  void Line(const std::string& text) { out_ += text + "\n"; }
  void Say(const absl::Status& status) {
    if (status.ok()) return;
    Line(StrCat(CodeName(status.code()), ": ", std::string(status.message())));
  }
  void Did(bool done) {
    if (!done) Line("there is no such live instance");
  }

  // "app.service" or "app.service.1" in word 1.
  std::pair<std::string, std::string> ServiceName() const {
    std::vector<std::string> parts = absl::StrSplit(Word(1), '.');
    return {parts[0], parts.size() > 1 ? parts[1] : ""};
  }
  std::string Instance() {
    std::vector<std::string> parts = absl::StrSplit(Word(1), '.');
    auto [app, service] = ServiceName();
    std::size_t replica =
        parts.size() > 2 ? static_cast<std::size_t>(std::atoi(parts[2].c_str())) : 0;
    std::vector<std::string> live = world_.fake.Live(app, service);
    return replica < live.size() ? live[replica] : "";
  }

  void Volume() {
    std::map<std::string, std::string> options;
    std::string driver = "local";
    for (std::size_t i = 2; i < words_.size(); ++i) {
      std::pair<std::string, std::string> option =
          absl::StrSplit(words_[i], absl::MaxSplits('=', 1));
      if (option.first == "driver") {
        driver = option.second;
      } else {
        options[option.first] = Expand(option.second);
      }
    }
    Say(world_.volumes->Create(Word(1), driver, options).status());
  }

  // Words from `first` on: K=V, volume.NAME=SUB, template=NAME, +volumes.
  void Change(Configuration& configuration, ApplyOptions& options, std::size_t first) {
    options.author = "ann";
    for (std::size_t i = first; i < words_.size(); ++i) {
      if (words_[i] == "+volumes") {
        options.create_volumes = true;
        continue;
      }
      std::pair<std::string, std::string> entry =
          absl::StrSplit(words_[i], absl::MaxSplits('=', 1));
      if (entry.first == "template") {
        SetTemplate(configuration, entry.second);
      } else if (entry.first.starts_with("volume.")) {
        configuration.volume_options[entry.first.substr(7)].subdirectory = entry.second;
      } else if (entry.first == "why") {
        options.why = entry.second;
      } else if (entry.second.empty()) {
        configuration.values.erase(entry.first);
      } else {
        configuration.values[entry.first] = entry.second;
      }
    }
  }
  void SetTemplate(Configuration& configuration, const std::string& name) {
    configuration.template_name = name + ".yml";
    configuration.template_text = Expand(templates_[name]);
  }

  void Deploy() {
    Configuration configuration;
    ApplyOptions options;
    SetTemplate(configuration, Word(2));
    Change(configuration, options, 3);
    Say(world_.line->Create(Word(1), configuration, options).status());
  }

  void Configure() {
    auto app = world_.line->Get(Word(1));
    if (!app.ok()) return Say(app.status());
    Configuration configuration = app->revision.configuration;
    ApplyOptions options;
    Change(configuration, options, 2);
    auto after = world_.line->Configure(Word(1), configuration, options);
    Say(after.status());
    if (after.ok() && after->revision.number == app->revision.number) Line("no new revision");
  }

  void Preview() {
    auto app = world_.line->Get(Word(1));
    Configuration configuration;
    if (app.ok()) configuration = app->revision.configuration;
    ApplyOptions options;
    Change(configuration, options, 2);
    auto preview = app.ok() ? world_.line->PreviewConfigure(Word(1), configuration)
                            : world_.line->PreviewCreate(Word(1), configuration);
    if (!preview.ok()) return Say(preview.status());
    if (!preview->anything_changes()) Line("nothing changes");
    for (const auto& change : preview->changes) Line(Text(change));
    for (const ServicePlan& plan : preview->services) {
      Line(StrCat(plan.service, ": ", ServiceActionName(plan.action)));
      for (const auto& change : plan.changes) Line("  " + Text(change));
    }
    for (const std::string& volume : preview->missing_volumes) Line("missing volume: " + volume);
    for (const auto& parameter : preview->parameters) Line("parameter: " + parameter.name);
    for (const auto& issue : preview->issues) Line(issue.ToString());
    for (const Suggestion& suggestion : preview->suggestions) {
      Line(StrCat("suggestion for ", suggestion.service, ": volume.", suggestion.volume, "=",
                  suggestion.option.subdirectory, " (", suggestion.message, ")"));
    }
    if (app.ok()) out_ += preview->template_diff;
  }
  static std::string Text(const line::Change& change) {
    switch (change.kind) {
      case line::Change::Kind::kAdded:
        return StrCat("+ ", change.path, ": ", change.after);
      case line::Change::Kind::kRemoved:
        return StrCat("- ", change.path, ": ", change.before);
      case line::Change::Kind::kChanged:
        return StrCat("~ ", change.path, ": ", change.before, " -> ", change.after);
    }
    return "";
  }

  void Keeps() {
    auto removal = world_.line->PreviewRemove(Word(1));
    if (!removal.ok()) return Say(removal.status());
    Line("kept: " + absl::StrJoin(removal->volumes_kept, " "));
    for (const std::string& shared : removal->shared_with) Line("shared: " + shared);
  }

  void Behave() {
    runtime::Behaviour behaviour;
    for (std::size_t i = 2; i < words_.size(); ++i) {
      std::pair<std::string, std::string> entry =
          absl::StrSplit(words_[i], absl::MaxSplits('=', 1));
      const std::string& value = entry.second;
      if (entry.first == "ends") behaviour.ends_after = ParseDuration(value);
      if (entry.first == "code") behaviour.exit_code = std::atoi(value.c_str());
      if (entry.first == "signal") behaviour.signal = std::atoi(value.c_str());
      if (entry.first == "oom") behaviour.oom_killed = true;
      if (entry.first == "starts") behaviour.starts_after = ParseDuration(value);
      if (entry.first == "stops") behaviour.stops_after = ParseDuration(value);
      if (entry.first == "fails")
        behaviour.fails_to_start = absl::StrReplaceAll(value, {{"_", " "}});
      if (entry.first == "healthy") {
        behaviour.healthy_after =
            value == "never" ? std::nullopt : std::optional(ParseDuration(value));
      }
    }
    auto [app, service] = ServiceName();
    world_.fake.Script(app, service, behaviour);
  }

  void SetHealth() {
    bool good = Word(2) == "good";
    Did(world_.fake.SetHealth(
        Instance(), good ? runtime::Health::kHealthy : runtime::Health::kUnhealthy, Rest(3)));
  }

  void Die() {
    using Fate = MortalRuntime::Fate;
    Fate fate = Word(1) == "before" ? Fate::kDieBefore : Fate::kDieAfter;
    world_.runtime.SetFate([this, fate] {
      world_.runtime.SetFate(nullptr);
      return fate;
    });
  }

  void Show() {
    auto app = world_.line->Get(Word(1));
    if (!app.ok()) return Say(app.status());
    Line(
        StrCat(app->name, " revision ", app->revision.number, ": ", Text(app->state, app->reason)));
    for (const ServiceView& service : app->services) {
      std::string line =
          StrCat("  ", service.spec.name, service.role.empty() ? "" : " [" + service.role + "]",
                 ": ", Text(service.state, service.reason));
      Line(line);
      for (const runtime::InstanceStatus& instance : service.instances) {
        static constexpr const char* kStates[] = {"starting", "running", "stopping", "exited",
                                                  "backing off"};
        Line(StrCat("    ", instance.replica, ": ", kStates[static_cast<int>(instance.state)],
                    ", revision ", instance.revision));
      }
    }
  }
  static std::string Text(AppState state, const std::string& reason) {
    return StrCat(AppStateName(state), reason.empty() ? "" : StrCat(" (", reason, ")"));
  }

  void Apps() {
    for (const App& app : world_.line->List()) {
      Line(StrCat(app.name, " ", Text(app.state, app.reason)));
    }
  }

  void History() {
    auto revisions = world_.line->Revisions(Word(1));
    if (!revisions.ok()) return Say(revisions.status());
    for (const Revision& revision : *revisions) {
      std::vector<std::string> values;
      for (const auto& [name, value] : revision.configuration.values) {
        values.push_back(StrCat(name, "=", value));
      }
      for (const auto& [service, digest] : revision.image_digests) {
        values.push_back(StrCat(service, "@", digest));
      }
      Line(StrCat(revision.number, " by ", revision.author, ": ", absl::StrJoin(values, " "),
                  revision.why.empty() ? "" : StrCat(" (", revision.why, ")"),
                  revision.rollback_of == 0 ? "" : StrCat(" [of ", revision.rollback_of, "]")));
    }
  }

  void Events() {
    for (const Event& event : world_.line->Events(Word(1), last_event_, 1000)) {
      last_event_ = event.id;
      Line(StrCat(event.app, " ", event.kind, event.level == "info" ? "" : "!" + event.level, ": ",
                  event.message));
    }
  }

  void Started() {
    int now = world_.fake.started();
    Line(StrCat(now - started_));
    started_ = now;
  }

  TestWorld world_;
  std::map<std::string, std::string> templates_;
  std::vector<std::string> words_;
  std::string block_, out_;
  bool held_ = false;
  std::int64_t last_event_ = 0;
  int started_ = 0;
};

std::filesystem::path Folder() { return std::filesystem::path(TAKT_SOURCE_DIR) / "tests/line"; }

class Script : public ::testing::TestWithParam<std::string> {};

TEST_P(Script, TellsWhatItSays) {
  const std::filesystem::path path = Folder() / GetParam();
  std::ifstream in(path);
  ASSERT_TRUE(in.is_open()) << path;
  std::vector<std::string> lines;
  for (std::string line; std::getline(in, line);) lines.push_back(line);

  const bool update = std::getenv("TAKT_UPDATE") != nullptr;
  std::string updated;
  Story story;
  for (std::size_t i = 0; i < lines.size();) {
    const std::string command = lines[i];
    const std::size_t at = ++i;
    updated += command + "\n";
    if (command.empty() || command[0] == '#') continue;
    std::string block, expected;
    while (i < lines.size() && lines[i].starts_with("  ")) {
      updated += lines[i] + "\n";
      block += lines[i++].substr(2) + "\n";
    }
    while (i < lines.size() && lines[i].starts_with("=")) {
      expected += (lines[i].size() > 2 ? lines[i].substr(2) : "") + "\n";
      ++i;
    }
    std::string said;
    for (absl::string_view line : absl::StrSplit(story.Run(command, block), '\n')) {
      if (line.empty()) continue;
      absl::StrAppend(&said, line, "\n");
      absl::StrAppend(&updated, "= ", line, "\n");
    }
    if (!update) {
      EXPECT_EQ(said, expected) << path.filename().string() << ":" << at << ": " << command;
    }
  }
  if (update) {
    std::ofstream out(path);
    out << updated;
  }
}

std::vector<std::string> Scripts() {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(Folder())) {
    if (entry.path().extension() == ".txt") names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

INSTANTIATE_TEST_SUITE_P(Line, Script, ::testing::ValuesIn(Scripts()), [](const auto& info) {
  std::string name;
  for (char c : info.param.substr(0, info.param.size() - 4)) {
    name += std::isalnum(static_cast<unsigned char>(c)) != 0 ? c : '_';
  }
  return name;
});

}  // namespace
}  // namespace takt::line
