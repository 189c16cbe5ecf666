// The program's commands and their options as data, for completions and manual pages: what CLI11 has been told of each, so
// neither can say anything else.
#pragma once

#include <string>
#include <vector>

namespace bulkhead::cli {

struct described_option {
  std::vector<std::string> names{};  // "--json", "-n"; empty: a positional
  std::string positional{};          // "PLUGIN"
  std::string value{};               // what it takes: "FILE"; empty: a flag
  std::string help{};
  bool required = false, repeatable = false;

  bool takes_file() const { return value == "FILE" || value == "PATH" || value == "DIR"; }
};

struct described_command {
  std::string name, summary, description, footer;
  std::vector<described_option> options{};
};

// Each command with its options, those of its other forms (`call --socket`) included.
std::vector<described_command> describe_commands();

// The completions of a shell: "bash", "zsh" or "fish".
std::string completion_for(const std::string& shell, const std::vector<described_command>& commands);

// A manual page in the language of man(7): of the command, or of the program.
std::string manual_of(const described_command& command);
std::string manual_of_program(const std::vector<described_command>& commands);

}  // namespace bulkhead::cli
