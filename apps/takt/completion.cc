// takt completion SHELL: a script that completes commands, options, files, and the names of apps
// and volumes that the daemon has. Made from the commands themselves, so it knows them all.
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "CLI/App.hpp"
#include "CLI/Validators.hpp"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "base/str.h"
#include "commands.h"

namespace takt::cli {
namespace {

// What the word after an option, or an argument, can be.
enum class Word { kNone, kFile, kApp, kVolume };

struct OptionWords {
  std::vector<std::string> names = {};  // "-f", "--follow"
  std::string description;
  bool takes_value = false;
  Word value = Word::kNone;
};

struct CommandWords {
  std::string name;  // "up", "volume create"
  std::string description;
  std::vector<OptionWords> options = {};
  std::vector<CommandWords> children = {};
  Word argument = Word::kNone;
};

Word WordFor(const std::string& name) {
  if (name == "APP") return Word::kApp;
  if (name == "VOLUME") return Word::kVolume;
  return name == "FILE" || name == "DIR" ? Word::kFile : Word::kNone;
}

CommandWords Describe(const CLI::App& app, const std::string& prefix) {
  CommandWords words{.name = prefix, .description = app.get_description()};
  for (const CLI::Option* option : app.get_options()) {
    if (option->nonpositional()) {
      OptionWords described{.description = option->get_description()};
      for (const auto& name : option->get_snames()) described.names.push_back("-" + name);
      for (const auto& name : option->get_lnames()) described.names.push_back("--" + name);
      described.takes_value = option->get_items_expected_max() > 0;
      described.value = WordFor(option->get_type_name());
      words.options.push_back(std::move(described));
    } else if (words.argument == Word::kNone) {
      words.argument = WordFor(option->get_name(true));
    }
  }
  for (const CLI::App* child : app.get_subcommands([](const CLI::App*) { return true; })) {
    words.children.push_back(
        Describe(*child, prefix.empty() ? child->get_name() : prefix + " " + child->get_name()));
  }
  return words;
}

std::string LastWord(const std::string& name) { return name.substr(name.rfind(' ') + 1); }

void Flatten(const CommandWords& command, std::vector<const CommandWords*>& all) {
  all.push_back(&command);
  for (const CommandWords& child : command.children) Flatten(child, all);
}

std::vector<const CommandWords*> All(const CommandWords& root) {
  std::vector<const CommandWords*> all;
  Flatten(root, all);
  return all;
}

constexpr const char* kAppNames = "takt apps --names 2>/dev/null";
constexpr const char* kVolumeNames = "takt volume ls --names 2>/dev/null";

// Words that may stand where the cursor is, for bash and zsh, whose `case` is the same.
std::string ShellCases(const CommandWords& root) {
  std::string text;
  for (const CommandWords* command : All(root)) {
    std::vector<std::string> words, value_options, file_options;
    for (const CommandWords& child : command->children) words.push_back(LastWord(child.name));
    for (const OptionWords& option : command->options) {
      for (const std::string& name : option.names) {
        words.push_back(name);
        if (option.takes_value) {
          (option.value == Word::kFile ? file_options : value_options).push_back(name);
        }
      }
    }
    text += StrCat("    '", command->name, "') offers='", absl::StrJoin(words, " "), "' values=' ",
                   absl::StrJoin(value_options, " "), " ' paths=' ",
                   absl::StrJoin(file_options, " "), " ' argument=",
                   command->argument == Word::kApp      ? "app"
                   : command->argument == Word::kVolume ? "volume"
                   : command->argument == Word::kFile   ? "file"
                                                        : "none",
                   " ;;\n");
  }
  return text;
}

std::string Groups(const CommandWords& root) {
  std::vector<std::string> names;
  for (const CommandWords& child : root.children) {
    if (!child.children.empty()) names.push_back(child.name);
  }
  return absl::StrJoin(names, "|");
}

constexpr const char* kBash = R"sh(# Completion of takt for bash: source <(takt completion bash)
_takt() {
  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]}
  local command='' offers='' values='' paths='' argument=none
  if [ "$COMP_CWORD" -gt 1 ]; then command=${COMP_WORDS[1]}; fi
  case $command in
    @GROUPS@) if [ "$COMP_CWORD" -gt 2 ]; then command+=" ${COMP_WORDS[2]}"; fi ;;
  esac
  case $command in
@CASES@  esac
  COMPREPLY=()
  if [[ $paths == *" $previous "* ]]; then
    mapfile -t COMPREPLY < <(compgen -f -- "$current")
  elif [[ $values == *" $previous "* ]]; then
    return
  elif [[ $current == -* || -z $command || $argument == none ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$offers" -- "$current")
  elif [[ $argument == app ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$(@APPS@)" -- "$current")
  elif [[ $argument == volume ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$(@VOLUMES@)" -- "$current")
  else
    mapfile -t COMPREPLY < <(compgen -f -- "$current")
  fi
}
complete -o filenames -F _takt takt
)sh";

constexpr const char* kZsh = R"sh(#compdef takt
# Completion of takt for zsh: source <(takt completion zsh)
_takt() {
  local current=$words[CURRENT] previous=$words[CURRENT-1]
  local -a typed
  typed=("${words[@]}")
  local command='' values='' paths='' argument=none
  if (( CURRENT > 2 )); then command=$typed[2]; fi
  case $command in
    @GROUPS@) if (( CURRENT > 3 )); then command+=" $typed[3]"; fi ;;
  esac
  local offers=''
  case $command in
@CASES@  esac
  if [[ $paths == *" $previous "* ]]; then
    _files
  elif [[ $values == *" $previous "* ]]; then
    return
  elif [[ $current == -* || -z $command || $argument == none ]]; then
    compadd -- ${=offers}
  elif [[ $argument == app ]]; then
    compadd -- ${(f)"$(@APPS@)"}
  elif [[ $argument == volume ]]; then
    compadd -- ${(f)"$(@VOLUMES@)"}
  else
    _files
  fi
}
compdef _takt takt
)sh";

std::string Fill(const char* script, const CommandWords& root) {
  return absl::StrReplaceAll(script, {{"@GROUPS@", Groups(root)},
                                      {"@CASES@", ShellCases(root)},
                                      {"@APPS@", kAppNames},
                                      {"@VOLUMES@", kVolumeNames}});
}

std::string FishQuote(const std::string& text) {
  return StrCat("'", absl::StrReplaceAll(text, {{"\\", "\\\\"}, {"'", "\\'"}}), "'");
}

std::string Fish(const CommandWords& root) {
  std::string text =
      "# Completion of takt for fish: takt completion fish | source\n"
      "complete -c takt -f\n";
  for (const CommandWords* command : All(root)) {
    // True where the words typed so far begin with the command's, or for the root are none.
    std::string condition = "__fish_use_subcommand";
    if (!command->name.empty()) {
      const std::size_t space = command->name.find(' ');
      condition = StrCat("__fish_seen_subcommand_from ", command->name.substr(0, space));
      if (space != std::string::npos) {
        condition += StrCat("; and __fish_seen_subcommand_from ", command->name.substr(space + 1));
      }
      std::vector<std::string> children;
      for (const CommandWords& child : command->children) children.push_back(LastWord(child.name));
      if (!children.empty()) {
        condition += StrCat("; and not __fish_seen_subcommand_from ", absl::StrJoin(children, " "));
      }
    }
    const std::string start = StrCat("complete -c takt -n ", FishQuote(condition));
    for (const CommandWords& child : command->children) {
      text +=
          StrCat(start, " -a ", LastWord(child.name), " -d ", FishQuote(child.description), "\n");
    }
    for (const OptionWords& option : command->options) {
      text += start;
      for (const std::string& name : option.names) {
        text += name.starts_with("--") ? " -l " + name.substr(2) : " -s " + name.substr(1);
      }
      if (option.takes_value) text += option.value == Word::kFile ? " -r -F" : " -x";
      text += StrCat(" -d ", FishQuote(option.description), "\n");
    }
    switch (command->argument) {
      case Word::kApp:
        text += StrCat(start, " -a '(", kAppNames, ")'\n");
        break;
      case Word::kVolume:
        text += StrCat(start, " -a '(", kVolumeNames, ")'\n");
        break;
      case Word::kFile:
        text += StrCat(start, " -F\n");
        break;
      case Word::kNone:
        break;
    }
  }
  return text;
}

}  // namespace

void AddCompletionCommand(CLI::App& app) {
  CLI::App* command = app.add_subcommand("completion", "Print a completion script for a shell");
  auto shell = std::make_shared<std::string>();
  command->add_option("SHELL", *shell, "bash, zsh or fish")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
  command->callback([&app, shell] {
    const CommandWords root = Describe(app, "");
    std::cout << (*shell == "bash"  ? Fill(kBash, root)
                  : *shell == "zsh" ? Fill(kZsh, root)
                                    : Fish(root));
  });
}

}  // namespace takt::cli
