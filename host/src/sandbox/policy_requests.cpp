// What becomes of a policy when a plugin's manifest asks for something: what it gets, what is refused, what it did not
// ask for.
#include <bulkhead/policy.hpp>

#include <algorithm>
#include <sstream>
#include <stdexcept>

namespace bulkhead {
namespace {

bool lies_in(const std::string& path, const std::string& top) { return top == "/" || path.starts_with(top + "/"); }

// Whether `path` is one of `granted` or lies beneath one.
bool covered(const std::set<std::string>& granted, const std::string& path) {
  return std::any_of(granted.begin(), granted.end(),
                     [&](const std::string& top) { return path == top || lies_in(path, top); });
}

bool covered(const std::set<std::uint16_t>& granted, std::uint16_t port) {
  return granted.contains(0) || granted.contains(port);
}

// Whether one request, in text form, is within what `most` grants.
bool allows(const policy::values& most, const policy::values& asked) {
  const auto paths = [&](const std::set<std::string>& wanted, auto... granted) {
    return std::all_of(wanted.begin(), wanted.end(),
                       [&](const std::string& path) { return (covered(*granted, path) || ...); });
  };
  const auto ports = [](const std::set<std::uint16_t>& wanted, const std::set<std::uint16_t>& granted) {
    return std::all_of(wanted.begin(), wanted.end(), [&](std::uint16_t port) { return covered(granted, port); });
  };
  const policy::values unlimited;
  return (most.all_files || paths(asked.read, &most.read, &most.write, &most.create)) &&
         paths(asked.write, &most.write, &most.create) && paths(asked.create, &most.create) &&
         ports(asked.connect, most.connect) && ports(asked.bind, most.bind) && (!asked.handles || most.handles) &&
         (!asked.subprocesses || most.subprocesses) &&
         std::includes(most.syscalls.begin(), most.syscalls.end(), asked.syscalls.begin(), asked.syscalls.end()) &&
         (most.memory == 0 || asked.memory <= most.memory) &&
         (asked.threads == unlimited.threads || most.threads == 0 || asked.threads <= most.threads);
}

std::optional<policy> parsed(const std::string& request) {
  // Only what a plugin may ask for; the rest is the host's business.
  static constexpr std::string_view keys[] = {"read",     "write",  "create",  "connect", "bind",
                                              "syscalls", "memory", "threads", "handles", "subprocesses"};
  const std::string_view key = std::string_view(request).substr(0, request.find(':'));
  if (std::find(std::begin(keys), std::end(keys), key) == std::end(keys)) return std::nullopt;
  try {
    return policy{}.add(request);
  } catch (const std::invalid_argument&) {
    return std::nullopt;
  }
}

}  // namespace

policy policy::intersect(const std::vector<std::string>& requests) const {
  policy made = *this;
  values& v = made.values_;
  v.read.clear();
  v.write.clear();
  v.create.clear();
  v.connect.clear();
  v.bind.clear();
  v.syscalls.clear();
  v.handles = v.subprocesses = v.all_files = false;
  for (const std::string& request : requests) {
    const auto asked = parsed(request);
    const std::string_view key = std::string_view(request).substr(0, request.find(':'));
    if (!asked || key == "memory" || key == "threads") continue;  // limits are the host's to set
    if (!allows(values_, asked->granted())) continue;
    made.add(request);
    for (const auto* grants : {&values_.read, &values_.write, &values_.create})
      for (const std::string& top : *grants)
        for (const auto* paths : {&asked->granted().read, &asked->granted().write, &asked->granted().create})
          for (const std::string& path : *paths)
            if (top != "/" && lies_in(path, top)) v.within.insert(top);
  }
  return made;
}

std::vector<std::string> policy::refused(const std::vector<std::string>& requests) const {
  std::vector<std::string> list;
  for (const std::string& request : requests) {
    const auto asked = parsed(request);
    if (!asked || !allows(values_, asked->granted())) list.push_back(request);
  }
  return list;
}

std::vector<std::string> policy::unasked(const std::vector<std::string>& requests) const {
  const std::string kept = "\n" + intersect(requests).to_text();
  std::vector<std::string> list;
  std::istringstream grants(to_text());
  for (std::string line; std::getline(grants, line);)
    if (kept.find("\n" + line + "\n") == std::string::npos) list.push_back(line);
  return list;
}

}  // namespace bulkhead
