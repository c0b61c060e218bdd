// A line and a runtime that do what a test tells them, behind the real interfaces.
#pragma once

#include <algorithm>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "line/line.h"
#include "runtime/runtime.h"

namespace takt::api {

// Logs and a catalogue; starts nothing.
class LogsOnlyRuntime final : public runtime::Runtime {
 public:
  runtime::Capabilities capabilities() const override {
    runtime::Capabilities c;
    c.name = "test";
    c.features = {"networks"};
    c.warnings = {"no memory cgroup"};
    return c;
  }
  std::vector<runtime::KnownImage> Images() override {
    return {{"takt/host", "", "the host's root", ""},
            {"tensorflow/serving*", "serving", "takt-serving", "not installed"}};
  }
  absl::StatusOr<runtime::ImageInfo> ResolveImage(const std::string& image) override {
    if (image != "takt/host") return absl::NotFoundError("no image " + image);
    return runtime::ImageInfo{image, "host@1", ""};
  }
  absl::Status Check(const runtime::ServiceSpec&) override { return absl::OkStatus(); }
  absl::Status Deploy(const runtime::ServiceSpec&) override { return absl::OkStatus(); }
  absl::Status Stop(const std::string&, const std::string&) override { return absl::OkStatus(); }
  absl::Status Remove(const std::string&, const std::string&) override { return absl::OkStatus(); }
  absl::StatusOr<std::vector<runtime::ServiceStatus>> Observe() override {
    return std::vector<runtime::ServiceStatus>();
  }
  absl::StatusOr<std::vector<runtime::LogLine>> ReadLog(const std::string& instance,
                                                        std::uint64_t cursor,
                                                        std::size_t max_lines) override {
    const std::lock_guard lock(mutex_);
    const auto found = logs_.find(instance);
    if (found == logs_.end()) return absl::NotFoundError("no instance " + instance);
    std::vector<runtime::LogLine> out;
    for (std::size_t i = cursor; i < found->second.size() && out.size() < max_lines; ++i) {
      out.push_back(found->second[i]);
    }
    return out;
  }
  absl::StatusOr<std::uint64_t> TailCursor(const std::string& instance,
                                           std::size_t lines) override {
    const std::lock_guard lock(mutex_);
    const auto found = logs_.find(instance);
    if (found == logs_.end()) return absl::NotFoundError("no instance " + instance);
    return found->second.size() - std::min(found->second.size(), lines);
  }
  void SetListener(std::function<void()>) override {}
  void SetLogListener(std::function<void(const std::string&)> listener) override {
    const std::lock_guard lock(mutex_);
    listener_ = std::move(listener);
  }

  // Adds a line, `second` seconds after the epoch.
  void Log(const std::string& instance, int second, const std::string& text) {
    std::function<void(const std::string&)> listener;
    {
      const std::lock_guard lock(mutex_);
      auto& log = logs_[instance];
      runtime::LogLine line;
      line.time = std::chrono::system_clock::time_point(std::chrono::seconds(second));
      line.instance = instance;
      line.text = text;
      line.cursor = log.size() + 1;
      log.push_back(line);
      listener = listener_;
    }
    if (listener) listener(instance);
  }

 private:
  std::mutex mutex_;
  std::map<std::string, std::vector<runtime::LogLine>> logs_;
  std::function<void(const std::string&)> listener_;
};

// Apps are what Create and Configure say, and run at once; a template's first word is its image.
class ScriptedLine final : public line::Line {
 public:
  // What Create and Configure answer from now on.
  absl::Status refusal;
  line::Preview preview;

  absl::StatusOr<line::App> Create(const std::string& name, const line::Configuration& c,
                                   const line::ApplyOptions& options) override {
    if (!refusal.ok()) return refusal;
    {
      const std::lock_guard lock(mutex_);
      if (apps_.contains(name)) return absl::AlreadyExistsError("app " + name + " exists");
      line::App& app = apps_[name];
      app.name = name;
      app.created_at = app.updated_at = "2026-01-01T00:00:00.000Z";
      app.state = line::AppState::kRunning;
      Revise(app, c, options);
    }
    Record(name, "created", "revision 1");
    return Get(name);
  }
  absl::StatusOr<line::Preview> PreviewCreate(const std::string&,
                                              const line::Configuration&) override {
    return preview;
  }
  absl::StatusOr<line::App> Configure(const std::string& name, const line::Configuration& c,
                                      const line::ApplyOptions& options) override {
    if (!refusal.ok()) return refusal;
    {
      const std::lock_guard lock(mutex_);
      Revise(apps_.at(name), c, options);
    }
    Record(name, "configured", options.why);
    return Get(name);
  }
  absl::StatusOr<line::Preview> PreviewConfigure(const std::string&,
                                                 const line::Configuration& c) override {
    previewed = c;
    return preview;
  }
  absl::StatusOr<line::App> Rollback(const std::string& name, int number,
                                     const line::ApplyOptions& options) override {
    auto revisions = Revisions(name);
    if (!revisions.ok()) return revisions.status();
    for (const line::Revision& each : *revisions) {
      if (each.number == number) return Configure(name, each.configuration, options);
    }
    return absl::NotFoundError("no revision");
  }
  absl::Status Scale(const std::string&, const std::string&, int, const std::string&) override {
    return absl::OkStatus();
  }
  absl::StatusOr<line::App> Stop(const std::string& name) override { return Halt(name, true); }
  absl::StatusOr<line::App> Start(const std::string& name) override { return Halt(name, false); }
  absl::StatusOr<line::Removal> PreviewRemove(const std::string& name) override {
    const auto app = Get(name);
    if (!app.ok()) return app.status();
    return line::Removal{{"data"}, {"data: apps other"}};
  }
  absl::Status Remove(const std::string& name) override {
    {
      const std::lock_guard lock(mutex_);
      apps_.erase(name);
      revisions_.erase(name);
    }
    Record(name, "removed", "");
    return absl::OkStatus();
  }
  absl::StatusOr<line::App> Get(const std::string& name) override {
    const std::lock_guard lock(mutex_);
    const auto found = apps_.find(name);
    if (found == apps_.end()) return absl::NotFoundError("there is no app " + name);
    return found->second;
  }
  std::vector<line::App> List() override {
    const std::lock_guard lock(mutex_);
    std::vector<line::App> out;
    for (const auto& [name, app] : apps_) out.push_back(app);
    return out;
  }
  absl::StatusOr<std::vector<line::Revision>> Revisions(const std::string& name) override {
    const std::lock_guard lock(mutex_);
    const auto found = revisions_.find(name);
    if (found == revisions_.end()) return absl::NotFoundError("there is no app " + name);
    return std::vector<line::Revision>(found->second.rbegin(), found->second.rend());
  }
  std::vector<line::Event> Events(const std::string& app, std::int64_t after,
                                  std::size_t limit) override {
    const std::lock_guard lock(mutex_);
    std::vector<line::Event> out;
    for (const line::Event& each : events_) {
      if (each.id > after && (app.empty() || each.app == app) && out.size() < limit) {
        out.push_back(each);
      }
    }
    return out;
  }
  absl::Status AddEvent(const std::string& app, const std::string& kind, const std::string& message,
                        const std::string&) override {
    Record(app, kind, message);
    return absl::OkStatus();
  }
  std::vector<std::string> UsersOfVolume(const std::string& volume) override {
    return volume == "used" ? std::vector<std::string>{"a", "b"} : std::vector<std::string>{};
  }
  void SetRemark(const std::string&, const std::string&, const std::string&) override {}
  void AddListener(std::function<void(const std::string&)> listener) override {
    listeners_.push_back(std::move(listener));
  }
  void Step() override {}

  void Record(const std::string& app, const std::string& kind, const std::string& message) {
    {
      const std::lock_guard lock(mutex_);
      line::Event event;
      event.id = static_cast<std::int64_t>(events_.size()) + 1;
      event.time = "2026-01-01T00:00:00.000Z";
      event.app = app;
      event.kind = kind;
      event.message = message;
      events_.push_back(event);
    }
    for (const auto& listener : listeners_) listener(app);
  }
  // Replaces the app's only service.
  void SetService(const std::string& name, line::ServiceView service) {
    {
      const std::lock_guard lock(mutex_);
      apps_.at(name).services = {std::move(service)};
    }
    for (const auto& listener : listeners_) listener(name);
  }
  // Gives the app's only service an instance.
  void AddInstance(const std::string& name, runtime::InstanceStatus instance) {
    {
      const std::lock_guard lock(mutex_);
      apps_.at(name).services.at(0).instances.push_back(std::move(instance));
    }
    for (const auto& listener : listeners_) listener(name);
  }

  line::Configuration previewed;

 private:
  void Revise(line::App& app, const line::Configuration& c, const line::ApplyOptions& options) {
    auto& revisions = revisions_[app.name];
    line::Revision revision;
    revision.number = static_cast<int>(revisions.size()) + 1;
    revision.configuration = c;
    revision.created_at = "2026-01-01T00:00:00.000Z";
    revision.author = options.author;
    revision.why = options.why;
    revision.image_digests = {{"main", "host@1"}};
    revisions.push_back(revision);
    app.revision = revision;
    if (app.services.empty()) app.services.emplace_back();
    line::ServiceView& service = app.services[0];
    service.spec.name = "main";
    service.spec.image = c.template_text;
    service.spec.command = std::vector<std::string>{"sh"};
    service.spec.ports.push_back({"", 80, 80, "tcp", "ingress"});
    service.spec.mounts.emplace_back();
    service.spec.depends_on["x"] = templates::DependencyCondition::kHealthy;
    service.spec.log_stores.push_back({"mnist", "stdout", 2});
    service.state = line::AppState::kRunning;
    service.role = "serving";
  }
  absl::StatusOr<line::App> Halt(const std::string& name, bool stopped) {
    {
      const std::lock_guard lock(mutex_);
      const auto found = apps_.find(name);
      if (found == apps_.end()) return absl::NotFoundError("there is no app " + name);
      found->second.stopped = stopped;
      found->second.state = stopped ? line::AppState::kStopped : line::AppState::kRunning;
    }
    Record(name, stopped ? "stopped" : "started", "");
    return Get(name);
  }

  std::mutex mutex_;
  std::map<std::string, line::App> apps_;
  std::map<std::string, std::vector<line::Revision>> revisions_;
  std::vector<line::Event> events_;
  std::vector<std::function<void(const std::string&)>> listeners_;
};

}  // namespace takt::api
