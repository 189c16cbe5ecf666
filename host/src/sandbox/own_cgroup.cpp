// See own_cgroup.hpp. The files and their meaning: proc_pid_mountinfo(5), cgroups(7), Documentation/admin-guide/cgroup-v2.rst
// and scheduler/sched-bwc.rst of the kernel.
#include "sandbox/own_cgroup.hpp"

#include <algorithm>
#include <fstream>
#include <sstream>

namespace bulkhead::sandbox {
namespace {

namespace fs = std::filesystem;

std::string words(std::string list) {
  std::replace(list.begin(), list.end(), ',', ' ');
  return list;
}

// Of one cgroup. (Names are put together by hand: libstdc++ 12 ends the process where operator/ of paths has no memory.)
std::optional<double> quota_in(const fs::path& directory, bool unified) {
  const auto read = [&](const char* name) { return contents(directory.native() + '/' + name); };
  std::istringstream in(unified ? read("cpu.max") : read("cpu.cfs_quota_us") + ' ' + read("cpu.cfs_period_us"));
  double quota = 0, period = 0;
  if (!(in >> quota >> period) || quota <= 0 || period <= 0) return std::nullopt;  // "max", or -1
  return quota / period;
}

}  // namespace

std::string contents(const fs::path& file) {
  std::ifstream in(file);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

bool has_word(const std::string& text, const std::string& word) {
  std::istringstream in(text);
  for (std::string each; in >> each;)
    if (each == word) return true;
  return false;
}

fs::path cgroup_mount::directory(const std::string& name) const {
  const fs::path below = fs::path(name).lexically_relative(root);
  return below.empty() || *below.begin() == ".." ? point : (point / below).lexically_normal();
}

std::vector<cgroup_mount> cgroup_mounts(const std::string& type, const fs::path& files) {
  std::vector<cgroup_mount> found;
  std::ifstream in(files / "proc/self/mountinfo");
  for (std::string line; std::getline(in, line);) {
    const std::size_t dash = line.find(" - ");
    if (dash == std::string::npos) continue;
    std::istringstream before(line), after(line.substr(dash + 3));
    std::string skipped, root, point, kind, source, options;
    before >> skipped >> skipped >> skipped >> root >> point;
    after >> kind >> source >> options;
    if (kind == type) found.push_back({root, files / fs::path(point).relative_path(), options});
  }
  return found;
}

bool has_controller(const cgroup_mount& mount, const std::string& controller) {
  return has_word(words(mount.options), controller);
}

std::string own_cgroup(const std::string& controller, const fs::path& files) {
  std::ifstream in(files / "proc/self/cgroup");
  for (std::string line; std::getline(in, line);) {
    const std::size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string names = line.substr(first + 1, second - first - 1);
    if (controller.empty() ? names.empty() : has_word(words(names), controller)) return line.substr(second + 1);
  }
  return "/";
}

std::optional<double> cpu_quota(const fs::path& files) {
  std::optional<double> least;
  const auto look = [&](const cgroup_mount& mount, bool unified) {
    for (fs::path each = mount.directory(own_cgroup(unified ? "" : "cpu", files));; each = each.parent_path()) {
      if (const auto quota = quota_in(each, unified)) least = std::min(*quota, least.value_or(*quota));
      if (each == mount.point || each == each.parent_path()) return;
    }
  };
  for (const cgroup_mount& each : cgroup_mounts("cgroup2", files)) look(each, true);
  for (const cgroup_mount& each : cgroup_mounts("cgroup", files))
    if (has_controller(each, "cpu")) look(each, false);
  return least;
}

}  // namespace bulkhead::sandbox
