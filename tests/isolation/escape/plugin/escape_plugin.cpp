// A plugin whose methods are attempts to break out; see attempts.h.
#include "attempts.h"
#include "shared.h"
#include <bulkhead/sdk.hpp>

#include <cstring>
#include <string>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

BULKHEAD_MANIFEST(license, "license=MIT");
BULKHEAD_MANIFEST(description, "description=Tries to break out, in every way known");

struct escape_facts escape_facts;

namespace {

// Those for a plugin that is granted nothing, or for one that is granted what `setting` says.
std::vector<escape_attempt> attempts(const std::string& setting) {
  std::vector<escape_list> lists;
  if (setting == "grants") lists = {escape_links(), escape_pairs(), escape_disk()};
  if (setting.ends_with("passed")) lists = {escape_shared_memory()};
  if (setting.ends_with("returned")) lists = {escape_returned_memory()};
  if (setting == "strict")
    lists = {escape_files(),     escape_descriptors(), escape_network(),
             escape_processes(), escape_kernel(),      escape_memory()};
  std::vector<escape_attempt> all;
  for (const escape_list& list : lists) all.insert(all.end(), list.first, list.first + list.count);
  return all;
}

void copy(char* to, std::size_t room, const std::string& text) {
  std::strncpy(to, text.c_str(), room - 1);
  to[room - 1] = 0;
}

}  // namespace

BULKHEAD_PLUGIN("escape", "1.0.0") {
  plugin.method("facts",
                [](std::vector<int> numbers, std::vector<std::string> texts) {
                  escape_facts.host_pid = numbers.at(0);
                  escape_facts.fork_server_pid = numbers.at(1);
                  escape_facts.sibling_pid = numbers.at(2);
                  escape_facts.port = numbers.at(3);
                  copy(escape_facts.abstract, sizeof escape_facts.abstract, texts.at(0));
                  copy(escape_facts.secret, sizeof escape_facts.secret, texts.at(1));
                  copy(escape_facts.target, sizeof escape_facts.target, texts.at(2));
                },
                "What an attacker might know", {"numbers", "texts"});
  plugin.method("list",
                [](const std::string& setting) {
                  std::vector<std::vector<std::string>> all;
                  for (const escape_attempt& each : attempts(setting))
                    all.push_back({each.family, each.name, each.stops});
                  return all;
                },
                "Family, name and expected stops of each attempt", {"setting"});
  plugin.method("attempt",
                [](const std::string& setting, int which) {
                  const escape_attempt chosen = attempts(setting).at(static_cast<std::size_t>(which));
                  return chosen.run(chosen.detail);
                },
                "Makes one attempt", {"setting", "which"});
  plugin.method("take", [](int kind, bulkhead::handle fd) { escape_take(kind, fd.release()); },
                "A descriptor to try attempts on", {"kind", "fd"});
  plugin.method("make_memory",
                [](bool seal) {
                  const int fd = escape_make_memory();
                  if (fd < 0 || (seal && escape_seal() < 0)) throw bulkhead::error("can't make memory");
                  return bulkhead::handle(::dup(fd));
                },
                "Memory that it goes on having", {"seal"});
  plugin.method(
      "leave_open",
      [] {
        for (int fd = 6; fd < 256; ++fd)
          if (::fcntl(fd, F_GETFD) < 0) ::dup2(0, fd);
      },
      "As if its birth had left descriptors open");
  plugin.method("raw", [](int table, int number) { return escape_raw(static_cast<escape_table>(table), number); },
                "One system call by its number", {"table", "number"});
}
