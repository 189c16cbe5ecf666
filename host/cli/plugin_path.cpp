// See plugin_path.hpp.
#include "plugin_path.hpp"

#include "command.hpp"

#include <cstdlib>
#include <set>
#include <sstream>
#include <vector>

namespace bulkhead::cli {
namespace {

std::vector<std::filesystem::path> places() {
  std::vector<std::filesystem::path> found;
  if (const char* list = std::getenv("BULKHEAD_PLUGIN_PATH")) {
    std::istringstream folders(list);
    for (std::string folder; std::getline(folders, folder, ':');)
      if (!folder.empty()) found.emplace_back(folder);
  }
  std::error_code ignored;
  const auto program = std::filesystem::read_symlink("/proc/self/exe", ignored).parent_path();
  found.push_back((program / BULKHEAD_PLUGINS_FROM_PROGRAM).lexically_normal());  // installed
  found.push_back(program.parent_path() / "plugins");                             // built
  return found;
}

}  // namespace

std::filesystem::path find_plugin(const std::string& plugin) {
  std::error_code ignored;
  if (plugin.find('/') != std::string::npos) {
    if (!std::filesystem::exists(plugin, ignored)) throw usage_error("there is no file " + plugin);
    return plugin;
  }
  const std::string file = plugin.ends_with(".so") ? plugin : plugin + ".so";
  std::string searched;
  for (const auto& folder : places()) {
    if (std::filesystem::exists(folder / file, ignored)) return folder / file;
    searched += "\n  " + folder.string();
  }
  std::string hint = "\nset BULKHEAD_PLUGIN_PATH, or give a path";
  if (std::filesystem::exists(file, ignored)) hint = "\nfor the file in this folder, write ./" + file;
  throw usage_error("there is no plugin " + file + "; searched:" + searched + hint);
}

std::vector<std::string> installed_plugins() {
  std::set<std::string> names;
  std::error_code ignored;
  for (const auto& folder : places())
    for (const auto& entry : std::filesystem::directory_iterator(folder, ignored))
      if (entry.path().extension() == ".so") names.insert(entry.path().stem());
  return {names.begin(), names.end()};
}

}  // namespace bulkhead::cli
