// What a plugin's sandbox lets it do. A policy reads as a sentence, and grants by name what it needs:
//
//   policy{}.allow_read("/usr/share/fonts").memory_limit(256 << 20).cpu_limit(2s).threads(4)
//
// Whatever is not granted is denied. The same grants have a text form, one a line ("read:/usr/share/fonts"), which is
// that of a plugin's manifest requests and of what `bulkhead call --learn` prints; from TOML, see from_toml().
#pragma once

#include <bulkhead/export.hpp>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace BULKHEAD_PUBLIC bulkhead {

// How much stands between a plugin and the machine; each level holds all that the ones before it do.
enum class sandbox_level {
  none,      // a process of its own
  limited,   // + resource limits, no capabilities, no new privileges, no descriptors but its own
  confined,  // + system calls filtered; files, network and other processes out of reach, each by one mechanism at least
  full,      // + every layer there is: all namespaces, all of Landlock (ABI 6) and seccomp together
};
// Its name.
std::string_view to_string(sandbox_level level);

// One layer of a worker's sandbox, as it was when the worker was made.
struct sandbox_layer {
  std::string name;       // limits, privileges, namespaces, root, pid, landlock, seccomp, channel, cgroup
  bool in_force = false;  // whether it stands
  std::string detail;     // what it enforces; or why it is not in force, and the remedy
};

// What stands between a worker and the machine.
struct sandbox_report {
  sandbox_level level = sandbox_level::none;  // what the layers amount to
  std::vector<sandbox_layer> layers;          // in the order in which a worker meets them
};

// A denied system call or file access, as the worker or the fork server reported it; a hostile plugin may forge those of
// its own.
struct violation {
  std::string plugin;              // its name
  int pid = -1;                    // of the process that made the call, as the host sees it
  std::string program;             // what runs in it, if the plugin has started it; empty for the worker itself
  std::string method;              // in progress on the dispatch thread; may be empty
  std::string system_call;         // "openat"; "x32:12" or "i386:11" for calls by another table
  int system_call_number = -1;     // in its table
  std::string arguments;           // decoded: "AF_INET, SOCK_STREAM, 0"
  std::string result;              // "EPERM", "killed", or in learning mode "allowed"
  std::string grant;               // the line that would allow it: "connect:443"; empty when nothing does
  std::vector<std::string> stack;  // "libfoo.so+0x1234", innermost first
};

// What a plugin's sandbox grants. A value: any thread may copy it. Functions that add something return the policy, so that
// it reads as a sentence, and throw std::invalid_argument for what makes no sense.
class policy {
 public:
  // The default is strict: compute only. No files but the libraries it is made of, no network, no processes.
  policy() = default;
  // The same, by name.
  static policy strict() { return {}; }
  static policy
  files();  // + a private /tmp of 64 MiB (none without a root of its own), and reading what programs expect: zoneinfo,
            // locales, certificates
  static policy network();  // + files(); outgoing TCP, and what name resolution reads
  static policy program();  // for host::launch: sees all files that the worker's user may read, runs programs

  // Files. Directories stand for all beneath them. Paths are absolute; symbolic links are followed when it starts, but not
  // where the plugin may write, for they could be its own: a path with one there is not granted. Neither is one that is not
  // there then, but a worker that starts later may find it. The report says of both, the log of the latter, once.
  policy& allow_read(const std::filesystem::path& path);
  policy& allow_write(const std::filesystem::path& path);   // read, write, truncate what exists
  policy& allow_create(const std::filesystem::path& path);  // + make, rename and remove within
  // TCP ports; 0 stands for all. Needs Landlock ABI 4 to be held to the port.
  policy& allow_connect(std::uint16_t port);
  policy& allow_bind(std::uint16_t port);  // to listen on
  policy& allow_handles();                 // may send file descriptors to the host
  policy& allow_subprocesses();            // fork, exec of what it may read
  // A group of system calls, or one by name: "udp", "memory-files", "mlock" …; see docs/security.md.
  policy& allow_syscalls(const std::string& group_or_name);
  // A variable of its environment, which is empty but for these.
  policy& environment(const std::string& name, const std::string& value);

  // Limits; 0: none.
  policy& memory_limit(std::size_t bytes);           // address space; and where cgroups can be made, what it and all
                                                     // that it starts hold together
  policy& cpus(double count);                        // CPU time per second, of it and all that it starts: a cgroup's
  policy& cpu_limit(std::chrono::nanoseconds time);  // CPU time of the worker's whole life
  policy& default_memory_limit(std::size_t bytes);   // of the address space alone
  policy& threads(unsigned count);                   // and processes
  policy& file_size_limit(std::size_t bytes);        // of each file that it writes
  policy& descriptors(unsigned count);               // open at once, from 64 on; 256 unless said

  // A denied system call kills the worker instead of returning an error to the plugin; with subprocesses, one of theirs
  // does, too.
  policy& kill_on_denial();
  // The level below which no worker starts. Default: confined. A lower one is the embedder's decision to go without.
  policy& at_least(sandbox_level level);

  // For diagnosis and tests: leaves out limits, privileges, root, pid, landlock or seccomp. The level suffers.
  policy& without(const std::string& layer);
  // The highest Landlock ABI that is used.
  policy& landlock_abi_at_most(int abi);
  // Denied file accesses are reported as well; each open costs some microseconds more.
  policy& explain();
  // Permits everything, without namespaces and Landlock, and reports all that strict would have denied, also to programs
  // that the plugin starts.
  policy& learn();

  // Adds one grant in text form. Throws std::invalid_argument saying what is wrong with it.
  policy& add(std::string_view line);
  // All of it, one line each, sorted: equal policies have equal texts.
  std::string to_text() const;
  // Without the variables of its environment, among which there may be secrets: to be written down.
  std::string text_without_environment() const {
    policy rest = *this;
    rest.values_.environment.clear();
    return rest.to_text();
  }
  // What to_text() wrote; empty lines and those that begin with # are left out. Throws std::invalid_argument.
  static policy from_text(std::string_view text);
  // TOML: `profile = "files"`, then keys as in the text form: `read = ["/a", "/b"]`, `memory = "256 MiB"`, `threads = 4`,
  // `handles = true`. Throws std::invalid_argument with the line.
  static policy from_toml(std::string_view text);

  // What is granted if the plugin asks for `requests`, and this is the most it may have: the intersection. Limits, the
  // environment and a private /tmp stay. The host does this for plugins whose manifest requests anything.
  policy intersect(const std::vector<std::string>& requests) const;
  // Those of the requests that this policy does not grant in full.
  std::vector<std::string> refused(const std::vector<std::string>& requests) const;
  // Those of the grants, in text form, that no request covers in full: intersect() leaves them out or narrows them.
  std::vector<std::string> unasked(const std::vector<std::string>& requests) const;

  // All of it as plain values.
  struct values {
    std::string profile = "strict";     // what it began with
    std::set<std::string> read;         // paths: allow_read()
    std::set<std::string> write;        // paths: allow_write()
    std::set<std::string> create;       // paths: allow_create()
    std::set<std::string> within;       // grants that intersect() narrowed: beneath them no symbolic link is followed
    std::set<std::string> syscalls;     // groups or names: allow_syscalls()
    std::set<std::string> environment;  // "NAME=value"
    std::set<std::string> without;      // layers that are left out
    std::set<std::uint16_t> connect;    // ports; 0: all
    std::set<std::uint16_t> bind;       // ports; 0: all
    bool handles = false;               // allow_handles()
    bool subprocesses = false;          // allow_subprocesses()
    bool all_files = false;             // program(): all that its user may read
    bool private_tmp = false;           // files(): a /tmp of its own
    bool kill = false;                  // kill_on_denial()
    bool explain = false;               // explain()
    bool learn = false;                 // learn()
    std::uint64_t memory = 0;           // bytes; 0: no limit
    std::uint64_t file_size = 0;        // bytes; 0: no limit
    std::uint64_t cpu_ms = 0;           // of CPU time; 0: no limit
    unsigned threads = 64;              // and processes; 0: no limit
    unsigned descriptors = 256;         // open at once
    unsigned milli_cpus = 0;            // thousandths of a CPU; 0: no limit
    bool counted_memory = false;        // not a grant: the limit was set here, and is not the default of load_options
    int landlock_abi = 1000;            // the highest that is used
    sandbox_level required = sandbox_level::confined;  // at_least()
    // Whether all of it is equal.
    bool operator==(const values&) const = default;
    // Whether there is anything that a plugin may ask for in its manifest.
    bool any() const {
      return handles || subprocesses || all_files || needs_network() ||
             !(read.empty() && write.empty() && create.empty() && syscalls.empty());
    }
    // Whether any TCP port is granted.
    bool needs_network() const { return !connect.empty() || !bind.empty(); }
  };
  // All of it as plain values.
  const values& granted() const { return values_; }
  // Whether both grant the same.
  bool operator==(const policy&) const = default;

 private:
  values values_;
};

}  // namespace bulkhead
