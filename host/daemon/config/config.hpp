// What `bulkhead run` is told by its configuration file; docs/daemon.md lists the keys. A whole file is read and checked
// before anything comes of it.
#pragma once

#include <bulkhead/host.hpp>

#include <filesystem>
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

namespace bulkhead::daemon {

// Where a plugin comes from and how it is loaded. Two that are `same()` need no change when the file is read again.
struct plugin_config {
  std::string name;
  std::filesystem::path file;
  load_options options;
  std::string settings;  // all that makes up `options`, as text; in a group, of all its plugins and the group itself
  std::string group{};   // empty: none
  bool same(const plugin_config& other) const { return file == other.file && settings == other.settings; }
};

// Plugins that are loaded, and replaced, together.
struct group_config {
  std::string name;
  group_options options;
  std::vector<std::string> plugins{};  // in the order in which they are loaded
};

struct client_limits {
  unsigned connections = 256;
  unsigned calls = 64;                               // of one client, without an outcome
  std::size_t frame = std::size_t{16} << 20;         // bytes of one message, in and out
  std::size_t call_bytes = std::size_t{64} << 20;    // arguments of one client's calls without an outcome
  std::size_t queued_bytes = std::size_t{64} << 20;  // that a client has not read yet; then it loses its connection
};

struct config {
  std::filesystem::path socket;
  std::vector<unsigned> allow_users{};  // beside the daemon's own user and root
  std::string metrics{};                // "127.0.0.1:9464" or "unix:/path"; empty: none
  bool json_log = false;
  log_level level = log_level::info;
  std::chrono::nanoseconds drain = std::chrono::seconds(10);
  client_limits clients{};
  host_options host{};
  std::map<std::string, plugin_config> plugins{};
  std::vector<group_config> groups{};
  std::string fixed{};  // what takes a new daemon to change, as text
};

// what(): all mistakes, a line each, as "FILE:LINE: …".
class config_error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Reads and checks `file`, and that its plugins' files are there. Throws config_error.
config read_config(const std::filesystem::path& file);

// $RUNTIME_DIRECTORY (systemd's), else $XDG_RUNTIME_DIR/bulkhead, else /run/bulkhead; "daemon.sock" in it. For the
// daemon and the commands that speak to it.
std::filesystem::path default_socket();

// --- parts of read_config -------------------------------------------------------------------------------------------

class table_reader;
// Reads what a host may be given into `out`.
void read_host_options(table_reader& from, host_options& out, const std::filesystem::path& base);
void read_intensity(table_reader& from, restart_intensity& out);
// Reads what load_options has into `out`, over what is there. `base`: what relative paths are seen from.
void read_load_options(table_reader& from, load_options& out, const std::filesystem::path& base);

}  // namespace bulkhead::daemon
