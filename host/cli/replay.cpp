// bulkhead replay: makes the call again in which a worker died: the same plugin, by its hash, the same method, the same
// arguments. In a worker under the same policy, or in this process, where a debugger can watch.
#include "command.hpp"
#include "crash_text.hpp"
#include "debugger.hpp"
#include "exit_codes.hpp"
#include "outcome_text.hpp"
#include "streamed_call.hpp"
#include "units.hpp"
#include <bulkhead/host.hpp>

#include <fmt/format.h>

namespace bulkhead::cli {
namespace {

struct replay_settings {
  std::string file;
  bool gdb = false, in_process = false, as_json = false;
  std::vector<std::string> environment;
  std::chrono::nanoseconds deadline = load_options{}.deadline;
};

bool has_handles(const msgpack::object& value) {
  const auto any = [](const auto* begin, std::uint32_t size, auto&& test) {
    return std::any_of(begin, begin + size, test);
  };
  switch (value.type) {
    case msgpack::type::EXT: return value.via.ext.type() == ipc::ext_handle;
    case msgpack::type::ARRAY: return any(value.via.array.ptr, value.via.array.size, has_handles);
    case msgpack::type::MAP:
      return any(value.via.map.ptr, value.via.map.size,
                 [](const msgpack::object_kv& each) { return has_handles(each.key) || has_handles(each.val); });
    default: return false;
  }
}

// What is wrong with a report that can't be played again; throws std::runtime_error.
void check(const crash_report& report) {
  if (report.sha256.empty())
    throw std::runtime_error("the worker was a program of its own: only plugins can be replayed");
  if (report.method.empty()) return;  // it died in another phase: loading it is enough
  if (report.request.empty())
    throw std::runtime_error(
        "the report has no request to replay. Hosts keep it when load_options::keep_requests is "
        "large enough for it, 'bulkhead call --crash-dir' up to 16 MiB");
  if (has_handles(ipc::unpack(report.request).get()))
    throw std::runtime_error("the call had file descriptors among its arguments, which are gone");
}

[[noreturn]] void run_debugger(const replay_settings& with) {
  std::vector<std::string> words = {"replay", "--in-process", with.file};
  for (const std::string& each : with.environment) words.insert(words.end(), {"--env", each});
  run_in_gdb(words);
}

// Of the method as the plugin describes it; one that it does not describe does not stream.
signature form_of(const plugin& target, const std::string& method) {
  for (const method_info& each : target.describe().methods)
    if (each.name == method) return parse_signature(each.signature).value_or(signature{});
  return {};
}

// The streamed results are dropped.
reply call_again(const plugin& target, const std::string& method, packed_arguments arguments, bool streamed) {
  if (streamed) return target.open_packed(method, std::move(arguments), {}).finish();
  return target.call_packed(method, std::move(arguments), {});
}

// `note`: what the replay lacks; null if nothing.
int show_failure(const failure& what, bool as_json, const json& note) {
  if (as_json)
    fmt::print("{}\n", compact({{"outcome", to_string(what.outcome)},
                                {"error", error_json(what)},
                                {"report", report_json(what.report)},
                                {"note", note}}));
  else print_failure(what);
  return exit_code(what.outcome);
}

int replay(const crash_report& report, const replay_settings& with) {
  load_options options;
  options.sha256 = report.sha256;
  options.deadline = with.deadline;
  options.environment = with.environment;
  options.policy = policy::from_text(report.policy);
  if (with.in_process) options.isolation = isolation::none;
  if (with.in_process)
    for (std::string& each : options.environment) ::putenv(each.data());
  host host;
  json note;
  try {
    const plugin target = host.load(report.file, options);
    if (report.method.empty()) {
      fmt::print("It starts: what it died of in phase {} does not happen now.\n", to_string(report.phase));
      return exit_ok;
    }
    const signature form = form_of(target, report.method);
    if (form.streamed_arguments) {
      note = fmt::format(
          "'{}' takes a stream of arguments, which is not kept: it gets an empty one, and may end otherwise",
          report.method);
      if (!with.as_json) fmt::print(stderr, "note: {}\n", note.get<std::string>());
    }
    packed_arguments arguments;
    arguments.params.append(report.request);
    const reply made = call_again(target, report.method, std::move(arguments), streams(form));
    if (!made) return show_failure(with_names(failure_of(made), host), with.as_json, note);
    const msgpack::object_handle result = ipc::unpack(made.raw());
    if (with.as_json)
      fmt::print(
          "{}\n",
          compact({{"outcome", "ok"}, {"result", from_msgpack(result.get(), bytes_as::base64)}, {"note", note}}));
    else
      fmt::print("It does not crash now: '{}' returns {}\n", report.method,
                 compact(from_msgpack(result.get(), bytes_as::summary)));
    return exit_ok;
  } catch (const call_error& error) {
    failure what = with_names(failure_of(error), host);
    if (what.outcome == outcome::rejected && what.message.find("SHA-256") != std::string::npos)
      what.message += "; it has changed since the crash, and what it does now says nothing of that";
    return show_failure(what, with.as_json, note);
  }
}

}  // namespace

int run_replay(int argc, char** argv) {
  CLI::App app(
      "Makes the call again in which a worker died: the same plugin, method and arguments, in a worker under\n"
      "the same policy.",
      "bulkhead replay");
  app.footer(
      "\nA method that streams is opened again. Arguments that were streamed to it are not kept: it gets none, and a note\n"
      "says so.\n\n" +
      std::string(exit_codes_help));
  replay_settings with;
  app.add_option("FILE", with.file, "the crash report; its request lies beside it")->required();
  auto* in_process = app.add_flag("--in-process", with.in_process,
                                  "in this process, with no sandbox: for plugins that you trust, under a debugger");
  app.add_flag("--gdb", with.gdb, "the same under gdb, which shows the stack when it crashes")->excludes(in_process);
  app.add_option("--env", with.environment, "a variable for the plugin; reports do not have them; repeatable")
      ->type_name("NAME=VALUE")
      ->allow_extra_args(false);
  add_duration(app, "--deadline", with.deadline, "how long the call may take: 500ms, 5s, 2m (default 30s)");
  app.add_flag("--json", with.as_json, "print one JSON object: outcome, result or error, report, note");
  if (const auto done = parse(app, argc, argv)) return *done;
  const crash_report report = read_crash_report(with.file);
  check(report);
  if (with.gdb) run_debugger(with);
  if (!with.as_json) fmt::print(stderr, "then: it {}\n", report.summary());
  return replay(report, with);
}

}  // namespace bulkhead::cli
