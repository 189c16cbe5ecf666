// bulkhead logs: the last lines of the daemon's log, and with -f those to come.
#include "command.hpp"
#include "daemon_client.hpp"
#include "exit_codes.hpp"
#include "interrupts.hpp"
#include "log_book.hpp"
#include "outcome_text.hpp"
#include "values/from_msgpack.hpp"

#include <fmt/format.h>

namespace bulkhead::cli {

int run_logs(int argc, char** argv) {
  CLI::App app("Shows the log of a daemon: what its plugins wrote, and what happened to them.", "bulkhead logs");
  std::filesystem::path socket;
  std::string plugin;
  std::size_t count = 100;
  bool follow = false, as_json = false;
  add_socket_option(app, socket);
  app.add_option("PLUGIN", plugin, "only of this plugin");
  app.add_option("-n", count, "how many of the last lines (default 100; at most 2000)");
  app.add_flag("-f", follow, "go on with new lines until Ctrl-C");
  app.add_flag("--json", as_json, "one JSON object a line");
  if (const auto done = parse(app, argc, argv)) return *done;

  const auto print = [as_json](const msgpack::object& value) {
    const json line = from_msgpack(value, bytes_as::summary);
    if (std::puts((as_json ? compact(line) : daemon::to_text(line)).c_str()) < 0 || std::fflush(stdout) != 0)
      std::_Exit(exit_local);  // whoever read this has gone
  };
  interrupts signals;
  daemon_client daemon(socket);
  call_options options;
  if (follow) {
    signals.call_begins();
    options.stop = signals.token();
    options.on_progress = print;
  }
  const reply done = daemon.call("bulkhead.logs", pack_arguments(plugin, count, follow), options);
  if (follow && done.outcome() == outcome::cancelled) return exit_ok;
  if (!done) {
    print_failure(failure_of(done));
    return exit_code(done.outcome());
  }
  const msgpack::object_handle lines = ipc::unpack(done.raw());
  for (const msgpack::object& each : std::span(lines->via.array.ptr, lines->via.array.size)) print(each);
  return exit_ok;
}

}  // namespace bulkhead::cli
