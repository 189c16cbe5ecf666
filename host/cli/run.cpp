// bulkhead run: the daemon, in the foreground; what it is told is in its configuration file.
#include "command.hpp"
#include "daemon.hpp"
#include "exit_codes.hpp"

#include <fmt/format.h>

namespace bulkhead::cli {

int run_run(int argc, char** argv) {
  std::string file;
  bool check = false;
  CLI::App app(
      "Serves plugins on a Unix socket until it is stopped: SIGTERM or Ctrl-C lets open calls end first, a "
      "second one does not wait. SIGHUP reads the configuration again.",
      "bulkhead run");
  app.footer("\nbulkhead.toml(5) and docs/daemon.md list the keys of the configuration.");
  app.add_option("CONFIG", file, "the configuration, TOML")->required()->type_name("FILE");
  app.add_flag("--check", check, "only say whether the configuration is good");
  if (const auto done = parse(app, argc, argv)) return *done;
  daemon::config settings;
  try {
    settings = daemon::read_config(file);
  } catch (const daemon::config_error& error) {
    fmt::print(stderr, "{}\n", error.what());
    return exit_usage;
  }
  if (check) {
    fmt::print("{}: good; {} plugins, on {}\n", file, settings.plugins.size(), settings.socket.string());
    return exit_ok;
  }
  const daemon::signal_mask signals;
  return daemon::server(std::filesystem::absolute(file), std::move(settings), signals).run();
}

}  // namespace bulkhead::cli
