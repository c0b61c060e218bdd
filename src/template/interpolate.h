// ${VAR} in the values of a template. Internal to this room.
#pragma once

#include <cstddef>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "template/node.h"
#include "template/report.h"
#include "template/template.h"

namespace takt::templates {

// All values together, once their variables are in place, hold at most this much text; and
// defaults may stand in defaults so deep.
inline constexpr std::size_t kMaxInterpolatedBytes = 16 << 20;
inline constexpr int kMaxInterpolationDepth = 32;

// [A-Za-z_][A-Za-z0-9_]*
bool IsVariableName(std::string_view text);

// $V, ${V}, ${V:-d}, ${V-d}, ${V:?m}, ${V?m}, ${V:+x}, ${V+x} with variables inside d, m and x;
// $$ is a dollar sign, and a dollar sign before anything else stays.
class Interpolator {
 public:
  // `text` is what the nodes' marks refer to. COMPOSE_PROJECT_NAME is `project_name`.
  Interpolator(std::string_view text, const std::map<std::string, std::string>& values,
               std::string_view project_name, Report& report);

  // Replaces the variables in all text values (not keys) of `root`, and notes the parameters.
  void Apply(Node& root);
  // In the order of the text; types not yet guessed.
  std::vector<Parameter> TakeParameters();

 private:
  struct Known {
    Parameter parameter;
    bool needs_value = false;  // somewhere without a default
    bool has_message = false;
  };
  struct Scalar;  // the text at work
  enum class Form { kPlain, kDefault, kRequired, kAlternative };

  void Walk(Node& node, const Path& path);
  std::string Expand(Scalar& scalar, std::size_t from, std::size_t to, bool active, int depth);
  // The expression whose `$` is at `at`; moves `at` behind it.
  std::string ExpandBraced(Scalar& scalar, std::size_t* at, std::size_t to, bool active, int depth);
  const std::string* Lookup(const std::string& name) const;
  Known* Note(Scalar& scalar, std::size_t at, const std::string& name);

  std::string_view text_;
  const std::map<std::string, std::string>& values_;
  std::string project_name_;
  Report& report_;
  std::vector<Known> known_;
  std::map<std::string, std::size_t, std::less<>> index_;
  std::size_t bytes_ = 0;
  bool stopped_ = false;
};

}  // namespace takt::templates
