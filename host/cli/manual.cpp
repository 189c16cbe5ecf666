// bulkhead manual: the manual pages, made of what the commands' own help says.
#include "command.hpp"
#include "described.hpp"
#include "exit_codes.hpp"
#include "files.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <utility>

namespace bulkhead::cli {
namespace {

// Text as it stands, also where a line begins with a dot.
std::string roff(const std::string& text) {
  std::string out;
  bool line_begins = true;
  for (const char c : text) {
    if (line_begins && (c == '.' || c == '\'')) out += "\\&";
    if (c == '\\') out += "\\e";
    else if (c == '-') out += "\\-";
    else out += c;
    line_begins = c == '\n';
  }
  return out;
}

std::string section(const std::string& title, const std::string& text) {
  return text.empty() ? "" : ".SH " + title + "\n" + text + "\n";
}

std::string as_it_stands(std::string text) {
  while (text.starts_with('\n')) text.erase(0, 1);
  while (text.ends_with('\n')) text.pop_back();
  return text.empty() ? "" : ".nf\n" + roff(text) + "\n.fi";
}

std::string header(const std::string& name, const std::string& summary) {
  std::string capitals = name;
  for (char& c : capitals) c = static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return fmt::format(".TH {} 1 \"\" \"bulkhead {}\" \"User Commands\"\n.SH NAME\n{} \\- {}\n", capitals,
                     BULKHEAD_VERSION, roff(name), roff(summary));
}

std::string entry(const std::string& term, const std::string& text) {
  return ".TP\n" + term + "\n" + roff(text) + "\n";
}

std::string term_of(const described_option& option) {
  std::string out;
  for (const std::string& name : option.names) out += (out.empty() ? "\\fB" : ", \\fB") + roff(name) + "\\fR";
  if (option.names.empty()) return "\\fI" + option.positional + "\\fR";
  return option.value.empty() ? out : out + " \\fI" + roff(option.value) + "\\fR";
}

std::string synopsis(const described_command& command) {
  std::string out = "\\fBbulkhead " + command.name + "\\fR [\\fIOPTIONS\\fR]";
  for (const described_option& each : command.options) {
    if (!each.names.empty()) continue;
    const std::string word = "\\fI" + each.positional + "\\fR" + (each.repeatable ? "..." : "");
    out += each.required ? " " + word : " [" + word + "]";
  }
  return out;
}

std::string list(const described_command& command, bool positionals) {
  std::string out;
  for (const described_option& each : command.options)
    if (each.names.empty() == positionals) out += entry(term_of(each), each.help);
  return out.empty() ? out : out.substr(0, out.size() - 1);
}

constexpr std::string_view exit_title = "Exit status:\n";

// What programs read of their environment; bulkhead-worker(8) has the worker's.
constexpr std::pair<const char*, const char*> variables[] = {
    {"\\fBBULKHEAD_PLUGIN_PATH\\fR",
     "Folders, with colons between them, in which plugins are looked for that are named without a "
     "slash; before the installed ones."},
    {"\\fBBULKHEAD_SOCKET\\fR", "The socket of the daemon that commands speak to."},
    {"\\fBRUNTIME_DIRECTORY\\fR, \\fBXDG_RUNTIME_DIR\\fR",
     "Where that socket is, unless it is named: see bulkhead.toml(5)."},
    {"\\fBBULKHEAD_WORKER_PRELOAD\\fR",
     "A library, such as a sanitizer's runtime, that is loaded into worker programs before anything "
     "else; variables whose names end in SAN_OPTIONS are passed on then. All applications read it."},
    {"\\fBNO_COLOR\\fR", "Unless it is empty: no colours."},
    {"\\fBPATH\\fR", "Where 'bulkhead new' looks for compilers; 'bulkhead spawn --clear-env' leaves it to the child."},
    {"\\fBNOTIFY_SOCKET\\fR, \\fBWATCHDOG_USEC\\fR, \\fBWATCHDOG_PID\\fR",
     "Set by systemd for 'bulkhead run': where it says that it is ready, and how often that it is alive."},
    {"\\fBNODE_CHANNEL_FD\\fR, \\fBNODE_CHANNEL_SERIALIZATION_MODE\\fR",
     "Set by Node's fork() for 'bulkhead node': the channel, and how messages are written."},
};

}  // namespace

std::string manual_of(const described_command& command) {
  // What follows the title in the help is that section here.
  const std::size_t exits = command.footer.find(exit_title);
  const std::string notes = command.footer.substr(0, exits);
  const std::string statuses = exits == std::string::npos ? "" : command.footer.substr(exits + exit_title.size());
  return header("bulkhead-" + command.name, command.summary) + section("SYNOPSIS", synopsis(command)) +
         section("DESCRIPTION", roff(command.description)) + section("ARGUMENTS", list(command, true)) +
         section("OPTIONS", list(command, false)) + section("NOTES", as_it_stands(notes)) +
         section("EXIT STATUS", as_it_stands(statuses)) + section("SEE ALSO", "\\fBbulkhead\\fR(1)");
}

std::string manual_of_program(const std::vector<described_command>& commands) {
  std::string table;
  for (const described_command& each : commands)
    table += entry("\\fBbulkhead\\-" + each.name + "\\fR(1)", each.summary);
  std::string environment;
  for (const auto& [names, text] : variables) environment += entry(names, text);
  return header("bulkhead", "runs plugins in processes of their own") +
         section("SYNOPSIS", "\\fBbulkhead\\fR \\fICOMMAND\\fR [\\fIARGUMENTS\\fR...]") +
         section("DESCRIPTION",
                 "Calls native plugins, each in a sandboxed worker process, serves them as a daemon, and shows what "
                 "happens to them. Each command has a page of its own.") +
         section("COMMANDS", table) + section("ENVIRONMENT", environment) +
         section("FILES", entry("\\fI/etc/bulkhead/daemon.toml\\fR", "What the systemd service bulkhead serves.")) +
         section("EXIT STATUS", as_it_stands(std::string(exit_codes_help.substr(exit_title.size())))) +
         section("SEE ALSO", "\\fBbulkhead.toml\\fR(5), \\fBbulkhead\\-worker\\fR(8)");
}

int run_manual(int argc, char** argv) {
  CLI::App app("Prints the manual page of a command, or writes all of them into a folder.", "bulkhead manual");
  app.footer("\n  bulkhead manual call | man -l -\n");
  std::string name;
  std::filesystem::path folder;
  app.add_option("COMMAND", name, "the command; without: the program's own page");
  app.add_option("--all", folder, "write all pages into this folder")->type_name("DIR");
  if (const auto done = parse(app, argc, argv)) return *done;
  const auto commands = describe_commands();
  const auto write = [&](const std::string& page, const std::string& text) {
    write_file((folder / (page + ".1")).string(), {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()});
  };
  if (!folder.empty()) {
    write("bulkhead", manual_of_program(commands));
    for (const described_command& each : commands) write("bulkhead-" + each.name, manual_of(each));
    return exit_ok;
  }
  if (name.empty()) return fmt::print("{}", manual_of_program(commands)), exit_ok;
  const auto found =
      std::find_if(commands.begin(), commands.end(), [&](const described_command& each) { return each.name == name; });
  if (found == commands.end()) throw usage_error("there is no command '" + name + "'");
  fmt::print("{}", manual_of(*found));
  return exit_ok;
}

}  // namespace bulkhead::cli
