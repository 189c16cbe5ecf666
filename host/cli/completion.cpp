// bulkhead completion: what makes a shell complete the program's commands, options, files and plugins.
#include "command.hpp"
#include "described.hpp"
#include "exit_codes.hpp"
#include "plugin_path.hpp"

#include <fmt/format.h>

#include <algorithm>

namespace bulkhead::cli {
namespace {

// In single quotes, for each of the three.
std::string quoted(const std::string& text) {
  std::string out = "'";
  for (const char c : text) out += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return out + "'";
}

std::string escaped(const std::string& text, std::string_view special) {
  std::string out;
  for (const char c : text) {
    if (special.find(c) != special.npos) out += '\\';
    out += c;
  }
  return out;
}

bool takes_plugin(const described_command& command) {
  return std::any_of(command.options.begin(), command.options.end(),
                     [](const auto& each) { return each.positional == "PLUGIN" && each.names.empty(); });
}

std::string bash(const std::vector<described_command>& commands) {
  std::string names, words, files, values, plugins;
  for (const described_command& each : commands) {
    names += " " + each.name;
    std::string options;
    for (const described_option& option : each.options)
      for (const std::string& name : option.names) {
        options += " " + name;
        if (option.value.empty()) continue;
        std::string& cases = option.takes_file() ? files : values;
        cases += (cases.empty() ? "" : " | ") + each.name + ":" + name;
      }
    words += fmt::format("    {}) words='{}' ;;\n", each.name, options.substr(1));
    if (takes_plugin(each)) plugins += (plugins.empty() ? "" : " | ") + each.name;
  }
  return fmt::format(R"script(# bash completion for bulkhead: `bulkhead completion bash` prints it.
_bulkhead() {{
  local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} command=${{COMP_WORDS[1]}} words=
  COMPREPLY=()
  if ((COMP_CWORD == 1)); then
    mapfile -t COMPREPLY < <(compgen -W '{} help --help --version' -- "$word")
    return
  fi
  case $command:$before in
    {})
      mapfile -t COMPREPLY < <(compgen -f -- "$word")
      return
      ;;
    {}) return ;;
  esac
  if [[ $word != -* ]]; then
    mapfile -t COMPREPLY < <(compgen -f -- "$word")
    case $command in
      {})
        words=$("${{COMP_WORDS[0]}}" completion plugins 2>/dev/null)
        mapfile -t -O ${{#COMPREPLY[@]}} COMPREPLY < <(compgen -W "$words" -- "$word")
        ;;
    esac
    return
  fi
  case $command in
{}  esac
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$word")
}}
complete -o filenames -F _bulkhead bulkhead
)script",
                     names.substr(1), files, values, plugins, words);
}

std::string zsh(const std::vector<described_command>& commands) {
  std::string names, cases;
  for (const described_command& each : commands) {
    names += " " + quoted(each.name + ":" + escaped(each.summary, ":"));
    cases += "    " + each.name + ")\n      _arguments";
    for (const described_option& option : each.options) {
      const std::string help = escaped(option.help, "[]:\\");
      const std::string value =
          option.value.empty() ? "" : ":" + option.value + ":" + (option.takes_file() ? "_files" : " ");
      for (const std::string& name : option.names)
        cases += " \\\n        " + quoted((option.repeatable ? "*" : "") + name + "[" + help + "]" + value);
    }
    cases += " \\\n        " + std::string(takes_plugin(each) ? "'*:PLUGIN:_bulkhead_plugins'" : "'*:file:_files'") +
             "\n      ;;\n";
  }
  return fmt::format(R"script(#compdef bulkhead
# zsh completion for bulkhead: `bulkhead completion zsh` prints it.
_bulkhead_plugins() {{
  compadd -- ${{(f)"$(bulkhead completion plugins 2>/dev/null)"}}
  _files
}}

_bulkhead() {{
  local -a commands
  commands=({})
  if ((CURRENT == 2)); then
    _describe command commands
    return
  fi
  shift words
  ((CURRENT--))
  case $words[1] in
{}  esac
}}

if [[ ${{funcstack[1]}} == _bulkhead ]]; then _bulkhead "$@"; else compdef _bulkhead bulkhead; fi
)script",
                     names.substr(1), cases);
}

std::string fish(const std::vector<described_command>& commands) {
  std::string out = "# fish completion for bulkhead: `bulkhead completion fish` prints it.\n";
  for (const described_command& each : commands) {
    out += fmt::format("complete -c bulkhead -n __fish_use_subcommand -f -a {} -d {}\n", each.name,
                       quoted(escaped(each.summary, "\\")));
    const std::string when = fmt::format("complete -c bulkhead -n '__fish_seen_subcommand_from {}'", each.name);
    for (const described_option& option : each.options) {
      if (option.names.empty()) continue;
      out += when;
      for (const std::string& name : option.names)
        out += name.starts_with("--") ? " -l " + name.substr(2) : " -s " + name.substr(1);
      if (!option.value.empty()) out += option.takes_file() ? " -r -F" : " -x";
      out += " -d " + quoted(escaped(option.help, "\\")) + "\n";
    }
    if (takes_plugin(each)) out += when + " -a '(bulkhead completion plugins 2>/dev/null)'\n";
  }
  return out;
}

}  // namespace

std::string completion_for(const std::string& shell, const std::vector<described_command>& commands) {
  if (shell == "bash") return bash(commands);
  if (shell == "zsh") return zsh(commands);
  if (shell == "fish") return fish(commands);
  throw usage_error("there are completions for bash, zsh and fish, not for '" + shell + "'");
}

int run_completion(int argc, char** argv) {
  CLI::App app("Prints what makes a shell complete the program's command line.", "bulkhead completion");
  app.footer(
      "\nFor this shell alone: eval \"$(bulkhead completion bash)\" (zsh the same; fish: bulkhead completion fish | "
      "source).\n");
  std::string shell;
  app.add_option("SHELL", shell, "bash, zsh or fish; or 'plugins': the names of the plugins that are installed")
      ->required();
  if (const auto done = parse(app, argc, argv)) return *done;
  if (shell == "plugins")
    for (const std::string& name : installed_plugins()) fmt::print("{}\n", name);
  else fmt::print("{}", completion_for(shell, describe_commands()));
  return exit_ok;
}

}  // namespace bulkhead::cli
