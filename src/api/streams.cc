#include "api/streams.h"

#include <algorithm>

#include "api/convert.h"

namespace takt::api {

constexpr std::string_view kComment = ":\n\n";
constexpr std::size_t kLinesPerPiece = 500;

std::string FormatServerSentEvent(std::string_view event, std::string_view id,
                                  std::string_view data) {
  return StrCat(id.empty() ? "" : "id: ", id, id.empty() ? "" : "\n", "event: ", event,
                "\ndata: ", data, "\n\n");
}

net::HttpResponse StreamHead() {
  net::HttpResponse head;
  head.content_type = "text/event-stream";
  head.headers = {{"Cache-Control", "no-store"}, {"X-Accel-Buffering", "no"}};
  return head;
}

// ---- ChangeStream ----

ChangeStream::ChangeStream(line::Line& line, std::chrono::milliseconds keep_alive)
    : line_(line), keep_alive_(keep_alive) {
  const auto newest = line_.Events("", 0, line::kMaxEvents);
  if (!newest.empty()) last_event_ = newest.back().id;
  thread_ = std::thread([this] { Run(); });
}

ChangeStream::~ChangeStream() {
  {
    const std::lock_guard lock(wake_mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  thread_.join();
  for (const auto& client : clients_) client->Finish();
}

void ChangeStream::OnChange(const std::string& app) {
  const std::lock_guard lock(wake_mutex_);
  if (!app.empty()) changed_.insert(app);
  dirty_ = true;
  wake_.notify_all();
}

void ChangeStream::SendLocked(const std::string& text) {
  std::erase_if(clients_, [&](const auto& client) { return !client->Write(text); });
}

void ChangeStream::Broadcast(std::string_view event, std::string_view data) {
  const std::lock_guard lock(mutex_);
  SendLocked(FormatServerSentEvent(event, "", data));
}

absl::Status ChangeStream::Add(const std::shared_ptr<net::HttpResponder>& client,
                               std::int64_t after) {
  const std::lock_guard lock(mutex_);
  std::erase_if(clients_, [](const auto& each) { return each->closed(); });
  if (clients_.size() >= kMaxStreamClients) {
    return absl::ResourceExhaustedError(
        StrCat("there are ", kMaxStreamClients, " streams already, the most allowed"));
  }
  std::vector<line::Event> missed;
  if (after > 0 && after < last_event_) {
    missed = line_.Events("", after, line::kMaxEvents);
    std::erase_if(missed, [&](const line::Event& event) { return event.id > last_event_; });
  }
  // Events are forgotten beyond a limit, and of what is kept only so many are sent again.
  const bool cut =
      missed.size() > kMaxReplayedEvents || (!missed.empty() && missed.front().id > after + 1);
  if (missed.size() > kMaxReplayedEvents) {
    missed.erase(missed.begin(), missed.end() - static_cast<std::ptrdiff_t>(kMaxReplayedEvents));
  }
  std::string text;
  JsonWriter w(&text);
  w.BeginObject().Field("last_event_id", last_event_).Field("truncated", cut).EndObject();
  text = FormatServerSentEvent("hello", missed.empty() ? StrCat(last_event_) : "", text);
  for (const line::Event& event : missed) {
    text += FormatServerSentEvent("event", StrCat(event.id), ToJson(event));
  }
  client->StartStream(StreamHead());
  if (client->Write(text)) clients_.push_back(client);
  return absl::OkStatus();
}

void ChangeStream::Run() {
  while (true) {
    std::set<std::string> changed;
    bool dirty = false;
    {
      std::unique_lock lock(wake_mutex_);
      wake_.wait_for(lock, keep_alive_, [this] { return dirty_ || stop_; });
      if (stop_) return;
      dirty = std::exchange(dirty_, false);
      changed.swap(changed_);
    }
    {
      const std::lock_guard lock(mutex_);
      if (!dirty) {
        SendLocked(std::string(kComment));
        continue;
      }
      std::string text;
      for (const line::Event& event : line_.Events("", last_event_, line::kMaxEvents)) {
        last_event_ = event.id;
        text += FormatServerSentEvent("event", StrCat(event.id), ToJson(event));
      }
      if (!clients_.empty()) {
        for (const std::string& name : changed) {
          const auto app = line_.Get(name);
          if (app.ok()) {
            text += FormatServerSentEvent("app", "", ToJson(*app, AppForm::kList));
          } else if (absl::IsNotFound(app.status())) {
            std::string data;
            JsonWriter(&data).BeginObject().Field("name", name).EndObject();
            text += FormatServerSentEvent("app_removed", "", data);
          }
        }
        if (!text.empty()) SendLocked(text);
      }
    }
    std::unique_lock lock(wake_mutex_);
    wake_.wait_for(lock, kStreamInterval, [this] { return stop_; });
  }
}

// ---- LogStream ----

LogStream::LogStream(line::Line& line, runtime::Runtime& runtime)
    : line_(line), runtime_(runtime), thread_([this] { Run(); }) {}

LogStream::~LogStream() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  thread_.join();
}

void LogStream::OnChange(const std::string& app) {
  const std::lock_guard lock(mutex_);
  if (app.empty() || count_ == 0) return;
  apps_.insert(app);
  wake_.notify_all();
}

void LogStream::OnLog(const std::string& instance) {
  const std::lock_guard lock(mutex_);
  if (count_ == 0) return;
  grown_.insert(instance);
  wake_.notify_all();
}

void LogStream::Add(const std::shared_ptr<net::HttpResponder>& client, const std::string& app,
                    LogSelection selection, LogCursor cursor) {
  auto added = std::make_shared<Client>();
  added->responder = client;
  added->app = app;
  added->selection = std::move(selection);
  added->cursor = std::move(cursor);
  const std::lock_guard lock(mutex_);
  ++count_;
  added_.push_back(std::move(added));
  wake_.notify_all();
}

// Sends what there is and the client takes.
void LogStream::Serve(Client& client) {
  if (std::exchange(client.look_again, false)) {
    const auto app = line_.Get(client.app);
    if (!app.ok()) {
      client.ended = true;
      client.responder->Write(FormatServerSentEvent("log_end", "", "{}"));
      return;
    }
    // A service or an instance that is no more has no new lines; the stream goes on.
    auto instances = SelectInstances(*app, client.selection);
    if (instances.ok()) client.instances = *std::move(instances);
    client.read_again = true;
  }
  while (client.read_again) {
    if (client.responder->backlog() > kMaxLogBacklogBytes) return;
    const LogPage page =
        ReadLogs(runtime_, client.instances, kLinesPerPiece, kMaxLogBacklogBytes, &client.cursor);
    client.read_again = page.more && !page.entries.empty();
    if (page.entries.empty()) return;
    std::string body;
    WriteLogPage(page, client.cursor, &body);
    if (!client.responder->Write(FormatServerSentEvent("lines", "", body))) return;
  }
}

void LogStream::Run() {
  std::vector<std::shared_ptr<Client>> clients;
  while (true) {
    std::set<std::string> apps, grown;
    {
      std::unique_lock lock(mutex_);
      const auto woken = [this] {
        return stop_ || !apps_.empty() || !grown_.empty() || !added_.empty();
      };
      const bool waiting = std::any_of(clients.begin(), clients.end(),
                                       [](const auto& client) { return client->read_again; });
      if (waiting) {
        wake_.wait_for(lock, kLogStreamInterval, woken);
      } else {
        wake_.wait(lock, woken);
      }
      if (stop_) return;
      apps.swap(apps_);
      grown.swap(grown_);
      for (auto& each : added_) clients.push_back(std::move(each));
      added_.clear();
    }
    for (const auto& client : clients) {
      client->look_again = client->look_again || apps.contains(client->app);
      client->read_again =
          client->read_again || std::any_of(grown.begin(), grown.end(), [&](const std::string& id) {
            return client->instances.contains(id);
          });
      if (client->look_again || client->read_again) Serve(*client);
    }
    std::erase_if(clients,
                  [](const auto& client) { return client->ended || client->responder->closed(); });
    std::unique_lock lock(mutex_);
    count_ = clients.size() + added_.size();
    wake_.wait_for(lock, kLogStreamInterval, [this] { return stop_; });
  }
}

}  // namespace takt::api
