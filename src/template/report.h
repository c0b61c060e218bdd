// Where the steps of loading put what they find wrong. Internal to this room.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "template/node.h"
#include "template/template.h"

namespace takt::templates {

// The way from the root to a node, kept on the stack of whoever walks the tree.
class Path {
 public:
  Path() = default;
  Path(const Path& parent, std::string_view key) : parent_(&parent), key_(key) {}
  Path(const Path& parent, std::size_t index)
      : parent_(&parent), index_(static_cast<long>(index)) {}

  const Path* parent() const { return parent_; }
  std::string_view key() const { return key_; }
  bool is_index() const { return index_ >= 0; }
  bool is_root() const { return parent_ == nullptr; }
  // "services.web.ports[2]"
  std::string ToString() const;

 private:
  const Path* parent_ = nullptr;
  std::string_view key_;
  long index_ = -1;
};

// More errors than this help nobody; the last one then says that there are more.
inline constexpr std::size_t kMaxIssues = 100;

// Ports that ranges stand for, in all services together.
inline constexpr std::size_t kMaxExpandedValues = 100'000;

class Report {
 public:
  Report(std::string file, std::vector<Issue>* issues) : file_(std::move(file)), issues_(issues) {}

  void Error(Mark mark, std::string path, std::string message, std::string suggestion = "");
  void Error(Mark mark, const Path& path, std::string message, std::string suggestion = "") {
    Error(mark, path.ToString(), std::move(message), std::move(suggestion));
  }
  // The same warning at the same place is kept once.
  void Warn(Mark mark, std::string path, std::string message, std::string suggestion = "");
  bool has_error() const { return errors_ > 0; }
  // Whatever else is found will not be kept: no need to look for more.
  bool full() const { return issues_->size() > kMaxIssues; }
  // Notes that a short form stands for `count` values; false when all short forms of the file
  // together stand for more than kMaxExpandedValues.
  bool Expand(std::size_t count) { return (expanded_ += count) <= kMaxExpandedValues; }

 private:
  void Add(Issue::Severity severity, Mark mark, std::string path, std::string message,
           std::string suggestion);

  std::string file_;
  std::vector<Issue>* issues_;
  std::size_t errors_ = 0;
  std::size_t expanded_ = 0;
};

}  // namespace takt::templates
