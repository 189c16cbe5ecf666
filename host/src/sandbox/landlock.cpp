// See landlock.hpp. The constants of newer versions are spelled out here: the headers of Debian 12 know ABI 2 only.
#include "sandbox/landlock.hpp"

#include "sandbox/granted_paths.hpp"
#include "sandbox/library_roots.hpp"

#include <cerrno>

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace bulkhead::sandbox {
namespace {

// linux/landlock.h as of ABI 7
struct ruleset_attributes {
  std::uint64_t files, tcp, scopes;
};
struct [[gnu::packed]] path_rule {
  std::uint64_t access;
  std::int32_t parent;
};
struct port_rule {
  std::uint64_t access, port;
};
constexpr int rule_path = 1, rule_port = 2;
constexpr std::uint32_t get_version = 1;
constexpr std::uint64_t fs_execute = 1, fs_write_file = 2, fs_read_file = 4, fs_read_dir = 8, fs_refer = 1 << 13,
                        fs_truncate = 1 << 14, fs_ioctl_dev = 1 << 15;
constexpr std::uint64_t fs_abi1 = (1 << 13) - 1;
constexpr std::uint64_t fs_of_files = fs_execute | fs_write_file | fs_read_file | fs_truncate | fs_ioctl_dev;
constexpr std::uint64_t fs_special =
    (1 << 6) | (1 << 9) | (1 << 10) | (1 << 11);  // devices, sockets, pipes: never made
constexpr std::uint64_t tcp_bind = 1, tcp_connect = 2;
constexpr std::uint64_t scope_abstract_sockets = 1, scope_signals = 2;

std::uint64_t handled_files(int abi) {
  return fs_abi1 | (abi >= 2 ? fs_refer : 0) | (abi >= 3 ? fs_truncate : 0) | (abi >= 5 ? fs_ioctl_dev : 0);
}

std::string enforces(int abi) {
  std::string text = "ABI " + std::to_string(abi) + ": files";
  if (abi < 3) text += " (but not truncation)";
  text += abi >= 4 ? ", TCP ports" : "";
  text += abi >= 6 ? ", signals, abstract sockets" : "";
  if (abi < 6) text += "; the rest needs a newer kernel (ABI 6 came with Linux 6.12)";
  return text;
}

}  // namespace

int landlock::kernel_abi() {
  const long version = ::syscall(SYS_landlock_create_ruleset, nullptr, 0, get_version);
  return version > 0 ? static_cast<int>(version) : 0;
}

landlock::landlock(const policy::values& granted, const std::string& library, int library_fd) {
  status_.name = name();
  if (granted.learn || granted.without.contains(name())) {
    status_.detail = granted.learn ? "left out while learning" : "left out by the policy";
    return;
  }
  abi_ = std::min(kernel_abi(), granted.landlock_abi);
  if (abi_ <= 0) {
    status_.detail =
        errno == EOPNOTSUPP
            ? "the kernel has it, but not switched on: boot with lsm=landlock,... or set CONFIG_LSM"
            : "this kernel has none (Linux 5.13 or later with CONFIG_SECURITY_LANDLOCK), or a filter denies it";
    return;
  }
  const std::uint64_t files = handled_files(abi_);
  ruleset_attributes attributes{files, 0, 0};
  if (abi_ >= 4) {
    attributes.tcp = (granted.connect.contains(0) ? 0 : tcp_connect) | (granted.bind.contains(0) ? 0 : tcp_bind);
  }
  if (abi_ >= 6) attributes.scopes = scope_abstract_sockets | scope_signals;
  const std::size_t size = abi_ >= 6 ? 24 : abi_ >= 4 ? 16 : 8;
  rules_.reset(static_cast<int>(
      checked(::syscall(SYS_landlock_create_ruleset, &attributes, size, 0u), "landlock_create_ruleset")));

  const auto allow = [&](const unique_fd& place, std::uint64_t access) {
    if (!place) return;  // not there: then there is nothing to grant
    struct stat status {};
    if (::fstat(place.get(), &status) == 0 && !S_ISDIR(status.st_mode)) access &= fs_of_files;
    const path_rule rule{access & files, place.get()};
    checked(::syscall(SYS_landlock_add_rule, rules_.get(), rule_path, &rule, 0u), "landlock_add_rule");
  };
  const auto beneath = [&](const std::string& path, std::uint64_t access) {
    allow(unique_fd(::open(path.c_str(), O_PATH | O_CLOEXEC)), access);
  };
  const std::uint64_t read = fs_read_file | fs_read_dir | (granted.subprocesses ? fs_execute : 0);
  const std::uint64_t write = read | fs_write_file | fs_truncate;
  const std::uint64_t create = (fs_abi1 & ~(fs_special | fs_execute)) | fs_refer | write;
  for (const std::string& path : library_roots()) beneath(path, fs_read_file | fs_read_dir | fs_execute);
  for (const char* device : harmless_devices) beneath(device, fs_read_file | fs_write_file);
  if (!library.empty()) {
    beneath(library, fs_read_file | fs_execute);
  } else if (library_fd >= 0) {
    const path_rule rule{(fs_read_file | fs_execute) & files, library_fd};
    // A memfd has no path, so no rule is possible, and none is needed (EBADFD).
    ::syscall(SYS_landlock_add_rule, rules_.get(), rule_path, &rule, 0u);
  }
  if (granted.all_files) beneath("/", read);
  if (granted.private_tmp) beneath("/tmp", create & ~fs_execute);
  granted_paths paths(granted);
  for (const std::string& path : granted.read) allow(paths.open(path), read);
  for (const std::string& path : granted.write) allow(paths.open(path), write);
  for (const std::string& path : granted.create) allow(paths.open(path), create);
#ifdef BULKHEAD_SANITIZED
  beneath("/proc/self", read);  // its report of a crash
#endif
  if (abi_ >= 4) {
    const auto port = [&](std::uint16_t number, std::uint64_t access) {
      const port_rule rule{access, number};
      if (access & attributes.tcp)
        checked(::syscall(SYS_landlock_add_rule, rules_.get(), rule_port, &rule, 0u), "landlock_add_rule");
    };
    for (const auto number : granted.connect) port(number, tcp_connect);
    for (const auto number : granted.bind) port(number, tcp_bind);
  }
  status_.in_force = true;
  status_.detail = enforces(abi_) + paths.left_out();
}

void landlock::move_descriptor(int lowest) {
  if (rules_) rules_.reset(checked(::fcntl(rules_.get(), F_DUPFD_CLOEXEC, lowest), "fcntl(F_DUPFD_CLOEXEC)"));
}

void landlock::apply() {
  if (!status_.in_force) return;
  checked(::syscall(SYS_landlock_restrict_self, rules_.get(), 0u), "landlock_restrict_self");
  rules_.reset();
}

}  // namespace bulkhead::sandbox
