// bulkhead call: calls one method in a worker of its own and prints what came of it. Words become arguments in
// values/arguments.cpp; this file is the order of events.
#include "command.hpp"
#include "denials.hpp"
#include "exit_codes.hpp"
#include "files.hpp"
#include "interrupts.hpp"
#include "outcome_text.hpp"
#include "plugin_path.hpp"
#include "streamed_call.hpp"
#include "terminal.hpp"
#include "units.hpp"
#include "values/arguments.hpp"
#include "worker_options.hpp"

#include <fmt/format.h>

#include <mutex>

namespace bulkhead::cli {
namespace {

constexpr std::string_view arguments_help =
    "ARGS are JSON, one word each, and must have the types of the method's signature ('bulkhead inspect PLUGIN').\n"
    "  str, any    a word that is not JSON is text as it stands: hello\n"
    "  bin, blob   '\"text\"' its bytes; @FILE the file's contents; '{\"$bin\": \"...\"}' base64\n"
    "  handle      @FILE opens the file for reading and passes the descriptor\n"
    "Results that a method streams are printed as they come, each on a line of its own; its own result follows, unless it\n"
    "is nil. Arguments that it takes as a stream are read from the standard input, one on each line.\n\n"
    "  bulkhead call echo add 2 3\n"
    "  bulkhead call text matches 'a1 b2' '[a-z]'\n"
    "  bulkhead call image thumbnail --in photo.jpg 256 --out small.jpg\n\n";

struct settings {
  worker_options worker;
  std::string method;
  std::vector<std::string> words;
  std::optional<std::string> input, output;
  std::chrono::nanoseconds deadline = load_options{}.deadline;
  bool as_json = false;
  bool explain = false, learn = false;
  std::string crash_dir;
};

struct result {
  bulkhead::reply reply;
  double ms = 0;
};

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

std::optional<int> read_command_line(settings& out, int argc, char** argv) {
  CLI::App app("Calls a method of a plugin, in a worker process of its own.", "bulkhead call");
  app.footer("\n" + std::string(arguments_help) + std::string(exit_codes_help));
  out.worker.declare(app);
  app.add_option("METHOD", out.method, "its name, as 'bulkhead inspect' shows it")->required();
  // Named for the help only. CLI11 reads words like [1,2] and {} as lists of its own, so they are taken as what remains.
  app.add_option("ARGS", out.words, "the arguments; words after -- are taken even if they begin with a dash")
      ->expected(0, CLI::detail::expected_max_vector_size)
      ->allow_extra_args(false)
      ->type_name("JSON");
  app.allow_extras();
  app.add_option("--in", out.input, "file whose bytes are the first argument ('-': the standard input)")
      ->type_name("FILE");
  app.add_option("--out", out.output,
                 "file for a result of type bin or str, raw; others as JSON ('-': the standard output)")
      ->type_name("FILE");
  add_duration(app, "--deadline", out.deadline, "how long the call may take: 500ms, 5s, 2m (default 30s)");
  app.add_option("--crash-dir", out.crash_dir,
                 "folder for a report if its worker dies, request included: see 'bulkhead report' and 'replay'")
      ->type_name("DIR");
  app.add_flag(
      "--json", out.as_json,
      "print one JSON object: outcome, result or error, report, time_ms; before it, {\"item\": ...} for each streamed "
      "result");
  app.add_flag("--explain", out.explain, "show what its sandbox denied, each with the grant that would allow it");
  app.add_flag("--learn", out.learn,
               "run it with everything allowed, for plugins that you trust, and show the least policy it needs");
  if (const auto done = parse(app, argc, argv)) return done;
  out.words = words_of(app.remaining());
  if (out.as_json && out.output) throw usage_error("--json and --out exclude each other");
  return std::nullopt;
}

const method_info& find_method(const plugin_info& info, const std::string& name) {
  std::string known;
  for (const method_info& each : info.methods) {
    if (each.name == name) return each;
    known += "\n  " + each.name + each.signature;
  }
  throw call_error(outcome::rejected, "plugin '" + info.id + "' has no method '" + name + "'; it has:" + known);
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

result call(const plugin& target, const settings& with, const signature& form, packed_arguments arguments,
            interrupts& signals) {
  call_options options;
  options.stop = signals.token();
  options.deadline = with.deadline;
  // Shared: a value may still be on its way to the handler when the call is over.
  const auto progress = std::make_shared<progress_display>();
  if (is_terminal(stream::err) && !(form.streamed_results && is_terminal(stream::out)))
    options.on_progress = [progress](const msgpack::object& value) { progress->show(value); };

  signals.call_begins();
  const auto begin = std::chrono::steady_clock::now();
  result made{streams(form) ? call_streamed(target, with.method, form, std::move(arguments), options, with.as_json)
                            : target.call_packed(with.method, std::move(arguments), options),
              0};
  made.ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
  progress->end();
  return made;
}

std::span<const std::uint8_t> bytes_of(std::string_view text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

void print_result(const reply& done, const settings& with) {
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

int report(const failure& what, const settings& with, double ms) {
  if (with.as_json)
    fmt::print("{}\n", compact({{"outcome", to_string(what.outcome)},
                                {"error", error_json(what)},
                                {"report", report_json(what.report)},
                                {"time_ms", rounded(ms)}}));
  else print_failure(what);
  return exit_code(what.outcome);
}

int report(const result& made, const settings& with, const signature& form, const host& by) {
  if (!made.reply) return report(with_names(failure_of(made.reply), by), with, made.ms);
  if (with.as_json) {
    const msgpack::object_handle value = ipc::unpack(made.reply.raw());
    fmt::print("{}\n", compact({{"outcome", "ok"},
                                {"result", from_msgpack(value.get(), bytes_as::base64)},
                                {"report", nullptr},
                                {"time_ms", rounded(made.ms)}}));
  } else if (const bool nothing = made.reply.raw().size() == 1 && made.reply.raw()[0] == 0xc0;
             !nothing || !form.streamed_results) {
    print_result(made.reply, with);
  }
  return exit_ok;
}

// To stderr: where the report of that worker's end lies.
void print_report_file(const std::string& directory, pid_t pid) {
  const std::string end = "-" + std::to_string(pid) + ".json";
  for (const auto& file : crash_reports_in(directory)) {
    if (!file.string().ends_with(end)) continue;
    fmt::print(stderr, "  report: {}\n", file.string());
    return;
  }
}

}  // namespace

int run_call(int argc, char** argv) {
  settings with;
  if (const auto done = read_command_line(with, argc, argv)) return *done;
  const std::filesystem::path file = find_plugin(with.worker.plugin);
  load_options options = with.worker.for_load();
  if (with.explain) options.policy->explain();
  if (with.learn) options.policy->learn().at_least(sandbox_level::none);

  if (!with.crash_dir.empty()) options.keep_requests = options.limits.frame;

  interrupts signals;
  denial_book denials;
  host_options for_host = with.worker.for_host();
  if (with.explain || with.learn) for_host.on_violation = [&](const violation& what) { denials.add(what); };
  for_host.crash_dir = with.crash_dir;
  pid_t crashed = -1;
  const int status = [&] {
    host host(for_host);
    try {
      const plugin target = host.load(file, options);
      const plugin_info info = target.describe();
      const method_info& method = find_method(info, with.method);
      packed_arguments arguments = make_arguments(method, with.words, with.input);
      const signature form = parse_signature(method.signature).value_or(signature{});
      if (form.streamed_results && with.output)
        throw usage_error("--out: '" + method.name + "' streams its results, which are printed one by one");
      if (form.streamed_arguments && with.input == "-")
        throw usage_error("--in -: '" + method.name + "' reads a stream of arguments from the standard input");
      const result made = call(target, with, form, std::move(arguments), signals);
      if (made.reply.report()) crashed = made.reply.report()->pid;
      return report(made, with, form, host);
    } catch (const argument_error& error) {
      throw usage_error(error.what());
    } catch (const call_error& error) {
      if (error.report()) crashed = error.report()->pid;
      return report(with_names(failure_of(error), host), with, 0);
    }
  }();  // the host is gone, and all that its workers reported has come
  if (crashed > 0 && !with.crash_dir.empty()) print_report_file(with.crash_dir, crashed);
  if (with.explain) denials.explain();
  if (with.learn) denials.learn(file.stem().string());
  return status;
}

}  // namespace bulkhead::cli
