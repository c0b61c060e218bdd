#include "runtime/shim/launch.h"

#include <unistd.h>

#include <cerrno>
#include <cstdlib>
#include <cstring>

namespace takt::runtime::shim {
namespace {

std::vector<std::string> Words(const std::string& text) {
  std::vector<std::string> words;
  std::size_t at = 0;
  while (at < text.size()) {
    const std::size_t space = std::min(text.find(' ', at), text.size());
    if (space > at) words.push_back(text.substr(at, space - at));
    at = space + 1;
  }
  return words;
}

std::uint64_t Number(const std::string& text) { return std::strtoull(text.c_str(), nullptr, 10); }

}  // namespace

void AppendRecord(std::string& out, Tag tag, const std::string& value) {
  out.push_back(static_cast<char>(tag));
  out.append(value.c_str(), std::strlen(value.c_str()));
  out.push_back('\0');
}

bool ReadLaunch(int fd, Launch& launch, std::string& error) {
  std::string text;
  char buffer[4096];
  while (true) {
    const ssize_t n = pread(fd, buffer, sizeof(buffer), static_cast<off_t>(text.size()));
    if (n < 0) {
      error = std::string("cannot read the launch file: ") + std::strerror(errno);
      return false;
    }
    if (n == 0) break;
    text.append(buffer, static_cast<std::size_t>(n));
  }
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = text.find('\0', at);
    if (end == std::string::npos) {
      error = "the launch file is cut off";
      return false;
    }
    const Tag tag = static_cast<Tag>(text[at]);
    const std::string value = text.substr(at + 1, end - at - 1);
    const std::vector<std::string> words = Words(value);
    at = end + 1;
    switch (tag) {
      case Tag::kArgument:
        launch.arguments.push_back(value);
        break;
      case Tag::kEnvironment:
        launch.environment.push_back(value);
        break;
      case Tag::kSandbox:
        launch.sandbox.push_back(value);
        break;
      case Tag::kDirectory:
        launch.directory = value;
        break;
      case Tag::kUser:
        launch.has_user = true;
        for (const std::string& word : words) {
          launch.user.push_back(static_cast<std::uint32_t>(Number(word)));
        }
        break;
      case Tag::kResource:
        if (words.size() == 3) {
          launch.resources.push_back(
              {static_cast<int>(Number(words[0])), Number(words[1]), Number(words[2])});
        }
        break;
      case Tag::kControlGroup:
        launch.control_groups.push_back(value);
        break;
      case Tag::kOomFile:
        launch.oom_file = value;
        break;
      case Tag::kMaxLogBytes:
        launch.max_log_bytes = Number(value);
        break;
      case Tag::kStopSignal:
        launch.stop_signal = static_cast<int>(Number(value));
        break;
      case Tag::kGraceMs:
        launch.grace_ms = static_cast<std::int64_t>(Number(value));
        break;
      case Tag::kForward:
        if (words.size() == 3) {
          launch.forwards.push_back(
              {words[0], static_cast<int>(Number(words[1])), static_cast<int>(Number(words[2]))});
        }
        break;
      case Tag::kMovePort:
        if (value == "*") {
          launch.move_all_ports = true;
        } else {
          launch.moved_ports.push_back(static_cast<int>(Number(value)));
        }
        break;
      case Tag::kSharePort:
        launch.shared_ports.push_back(static_cast<int>(Number(value)));
        break;
      default:
        error = "the launch file has an unknown record";
        return false;
    }
  }
  if (launch.arguments.empty() || (launch.has_user && launch.user.size() < 2)) {
    error = "the launch file lacks a program";
    return false;
  }
  return true;
}

}  // namespace takt::runtime::shim
