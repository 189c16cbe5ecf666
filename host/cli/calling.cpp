// See calling.hpp.
#include "calling.hpp"

#include "command.hpp"
#include "exit_codes.hpp"
#include "files.hpp"
#include "terminal.hpp"
#include "units.hpp"

#include <fmt/format.h>

#include <mutex>

namespace bulkhead::cli {
const std::string_view arguments_help =
    "ARGS are JSON, one word each, and must have the types of the method's signature ('bulkhead inspect PLUGIN').\n"
    "  str, any    a word that is not JSON is text as it stands: hello\n"
    "  bin, blob   '\"text\"' its bytes; @FILE the file's contents; '{\"$bin\": \"...\"}' base64\n"
    "  handle      @FILE opens the file for reading and passes the descriptor\n\n"
    "Results that a method streams are printed as they come, each on a line of its own; its own result follows, unless it\n"
    "is nil. Arguments that it takes as a stream are read from the standard input, one on each line.\n\n"
    "  bulkhead call echo add 2 3\n"
    "  bulkhead call text matches 'a1 b2' '[a-z]'\n"
    "  bulkhead call image thumbnail --in photo.jpg 256 --out small.jpg\n\n";

namespace {

// The words that are no options. A negative number is a word.
std::vector<std::string> words_of(const std::vector<std::string>& remaining) {
  std::vector<std::string> words;
  bool any = false;
  for (const std::string& word : remaining) {
    if (!any && word == "--") {
      any = true;
      continue;
    }
    const bool option = word.size() > 1 && word[0] == '-' && !std::isdigit(static_cast<unsigned char>(word[1]));
    if (!any && option)
      throw usage_error("there is no option " + word + "; for an argument that begins with a dash, write -- before it");
    words.push_back(word);
  }
  return words;
}

class progress_display {
 public:
  void show(const msgpack::object& value) {
    const std::string text = compact(from_msgpack(value, bytes_as::summary));
    std::lock_guard held(mutex_);
    if (!over_) line_.show("progress: " + text);
  }
  void end() {
    std::lock_guard held(mutex_);
    over_ = true;
    line_.clear();
  }

 private:
  std::mutex mutex_;
  status_line line_;
  bool over_ = false;
};

std::span<const std::uint8_t> bytes_of(std::string_view text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

void print_result(const reply& done, const call_line& with) {
  const msgpack::object_handle unpacked = ipc::unpack(done.raw());
  const msgpack::object& value = unpacked.get();
  const bool binary = value.type == msgpack::type::BIN, text = value.type == msgpack::type::STR;
  if (with.output) {
    if (binary) return write_file(*with.output, bytes_of({value.via.bin.ptr, value.via.bin.size}));
    if (text) return write_file(*with.output, bytes_of({value.via.str.ptr, value.via.str.size}));
    return write_file(*with.output, bytes_of(pretty(from_msgpack(value, bytes_as::base64)) + "\n"));
  }
  if (binary) {
    fmt::print("<bin {} bytes: use --out FILE>\n", value.via.bin.size);
    return;
  }
  fmt::print("{}\n", pretty(from_msgpack(value, bytes_as::summary), width_of(stream::out)));
}

json rounded(double ms) { return std::stod(fmt::format("{:.3f}", ms)); }

}  // namespace

void call_line::declare(CLI::App& app, const char* method_help) {
  app.add_option("METHOD", method, method_help)->required();
  // Named for the help only. CLI11 reads words like [1,2] and {} as lists of its own, so they are taken as what remains.
  app.add_option("ARGS", words, "the arguments; words after -- are taken even if they begin with a dash")
      ->expected(0, CLI::detail::expected_max_vector_size)
      ->allow_extra_args(false)
      ->type_name("JSON");
  app.allow_extras();
  app.add_option("--in", input, "file whose bytes are the first argument ('-': the standard input)")->type_name("FILE");
  app.add_option("--out", output,
                 "file for a result of type bin or str, raw; others as JSON ('-': the standard output)")
      ->type_name("FILE");
  add_duration(app, "--deadline", deadline, "how long the call may take: 500ms, 5s, 2m (default: the plugin's, 30s)");
  app.add_flag(
      "--json", as_json,
      "print one JSON object: outcome, result or error, report, time_ms; before it {\"item\": ...} for each streamed result");
}

void call_line::check(const CLI::App& app) {
  words = words_of(app.remaining());
  if (as_json && output) throw usage_error("--json and --out exclude each other");
}

void call_line::check_streams() const {
  if (form.streamed_results && output)
    throw usage_error("--out: '" + method + "' streams its results, which are printed one by one");
  if (form.streamed_arguments && input == "-")
    throw usage_error("--in -: '" + method + "' reads a stream of arguments from the standard input");
}

const method_info& find_method(const plugin_info& info, const std::string& whose, const std::string& name) {
  std::string known;
  for (const method_info& each : info.methods) {
    if (each.name == name) return each;
    known += "\n  " + each.name + each.signature;
  }
  throw call_error(outcome::rejected, whose + " has no method '" + name + "'; it has:" + known);
}

made_call make_call(const call_line& with, interrupts& signals, const std::function<reply(const call_options&)>& call) {
  call_options options;
  options.stop = signals.token();
  if (with.deadline.count() > 0) options.deadline = with.deadline;
  options.key = with.key;
  // Shared: a value may still be on its way to the handler when the call is over.
  const auto progress = std::make_shared<progress_display>();
  if (is_terminal(stream::err) && !(with.form.streamed_results && is_terminal(stream::out)))
    options.on_progress = [progress](const msgpack::object& value) { progress->show(value); };

  signals.call_begins();
  const auto begin = std::chrono::steady_clock::now();
  made_call made{call(options), 0};
  made.ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
  progress->end();
  return made;
}

int report(const failure& what, const call_line& with, double ms) {
  if (with.as_json)
    fmt::print("{}\n", compact({{"outcome", to_string(what.outcome)},
                                {"error", error_json(what)},
                                {"report", report_json(what.report)},
                                {"time_ms", rounded(ms)}}));
  else print_failure(what);
  return exit_code(what.outcome);
}

int report(const made_call& made, const call_line& with) {
  if (!made.reply) return report(failure_of(made.reply), with, made.ms);
  if (with.as_json) {
    const msgpack::object_handle value = ipc::unpack(made.reply.raw());
    fmt::print("{}\n", compact({{"outcome", "ok"},
                                {"result", from_msgpack(value.get(), bytes_as::base64)},
                                {"report", nullptr},
                                {"time_ms", rounded(made.ms)}}));
  } else if (const ipc::byte_span raw = made.reply.raw();
             !with.form.streamed_results || raw.size() != 1 || raw[0] != 0xc0) {  // nil says nothing after items
    print_result(made.reply, with);
  }
  return exit_ok;
}

}  // namespace bulkhead::cli
