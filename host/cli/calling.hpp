// What `bulkhead call` does alike for a worker of its own and for a daemon: the words of its command line, the call with
// its progress and Ctrl-C, and what came of it.
#pragma once

#include "interrupts.hpp"
#include "outcome_text.hpp"
#include "values/signature.hpp"

#include <CLI/CLI.hpp>

#include <functional>

namespace bulkhead::cli {

struct call_line {
  std::string method;
  std::vector<std::string> words;
  std::optional<std::string> input, output;
  std::chrono::nanoseconds deadline = std::chrono::nanoseconds(0);  // 0: the plugin's
  call_key key{};                                                   // of sticky dispatch
  bool as_json = false;
  signature form{};  // of the method, as far as its streams are used

  // Adds METHOD, ARGS and the options to a command line; `method_help` says what METHOD is.
  void declare(CLI::App& app, const char* method_help);
  // After the parsing. Throws usage_error.
  void check(const CLI::App& app);
  // When the signature is known. Throws usage_error for what does not go together with its streams.
  void check_streams() const;
};
extern const std::string_view arguments_help;

// Throws call_error rejected, with the methods there are, when `info`, which is `whose`, has none of this name.
const method_info& find_method(const plugin_info& info, const std::string& whose, const std::string& name);

struct made_call {
  bulkhead::reply reply;
  double ms = 0;
};
// Calls by `call`, shows progress on a terminal, and lets Ctrl-C cancel.
made_call make_call(const call_line& with, interrupts& signals, const std::function<reply(const call_options&)>& call);

// Prints what came of it; the exit status.
int report(const failure& what, const call_line& with, double ms);
int report(const made_call& made, const call_line& with);

}  // namespace bulkhead::cli
