// Where plugins are looked for, and what an outcome is as exit status.
#include "commands.hpp"

#include <cstdlib>

namespace bulkhead::cli {

int exit_status(outcome value) {
  switch (value) {
    case outcome::ok: return 0;
    case outcome::plugin_error: return 1;
    case outcome::timeout: return 10;
    case outcome::cancelled: return 11;
    case outcome::not_sent: return 12;
    case outcome::worker_lost: return 13;
    case outcome::protocol: return 14;
    case outcome::overloaded: return 15;
    case outcome::unavailable: return 16;
    case outcome::rejected: return 17;
  }
  return 1;
}

std::filesystem::path find_plugin(const std::string& name) {
  if (name.find('/') != std::string::npos) return name;
  std::vector<std::filesystem::path> folders;
  if (const char* path = ::secure_getenv("BULKHEAD_PLUGIN_PATH")) {
    std::string rest = path;
    for (std::size_t colon = 0; colon != std::string::npos; rest = colon == std::string::npos ? "" : rest.substr(colon + 1)) {
      colon = rest.find(':');
      if (const std::string folder = rest.substr(0, colon); !folder.empty()) folders.emplace_back(folder);
    }
  }
  folders.emplace_back(BULKHEAD_INSTALLED_PLUGINS);
  std::error_code ignored;
  folders.push_back(std::filesystem::read_symlink("/proc/self/exe", ignored).parent_path().parent_path() / "plugins");
  std::string searched;
  for (const auto& folder : folders) {
    const auto file = folder / (name + ".so");
    if (std::filesystem::exists(file, ignored)) return file;
    searched += "\n  " + file.string();
  }
  throw usage_error("no plugin '" + name + "'. Searched:" + searched + "\nGive a path with a slash, or set BULKHEAD_PLUGIN_PATH.");
}

}  // namespace bulkhead::cli
