// See violation_text.hpp.
#include "sandbox/violation_text.hpp"

#include "sandbox/argument_text.hpp"
#include "sandbox/syscall_groups.hpp"
#include "sandbox/violation_line.hpp"
#include <bulkhead/ipc/message.hpp>

#include <charconv>
#include <cstring>

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

namespace bulkhead::sandbox {
namespace {

std::string_view next_word(std::string_view& text) {
  const std::size_t blank = text.find(' ');
  const std::string_view word = text.substr(0, blank);
  text.remove_prefix(blank == std::string_view::npos ? text.size() : blank + 1);
  return word;
}

bool hex(std::string_view word, std::uint64_t& value) {
  const auto [end, error] = std::from_chars(word.data(), word.data() + word.size(), value, 16);
  return error == std::errc() && end == word.data() + word.size();
}

std::string decoded(std::string_view word) {
  if (word == "-") return "";
  std::string out;
  for (std::size_t i = 0; i < word.size(); ++i) {
    std::uint64_t byte = 0;
    if (word[i] == '%' && i + 2 < word.size() && hex(word.substr(i + 1, 2), byte)) {
      out.push_back(static_cast<char>(byte));
      i += 2;
    } else {
      out.push_back(word[i]);
    }
  }
  return out;
}

std::string open_flags(std::uint64_t flags) {
  constexpr const char* modes[] = {"O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE"};
  const std::string rest = bits(flags & ~std::uint64_t{O_ACCMODE},
                                {{O_CREAT, "O_CREAT"},
                                 {O_TRUNC, "O_TRUNC"},
                                 {O_APPEND, "O_APPEND"},
                                 {O_CLOEXEC, "O_CLOEXEC"},
                                 {O_DIRECTORY, "O_DIRECTORY"},
                                 {O_EXCL, "O_EXCL"},
                                 {O_NONBLOCK, "O_NONBLOCK"}},
                                "");
  return modes[flags & O_ACCMODE] + (rest.empty() ? "" : "|" + rest);
}

std::string family(std::uint64_t value) {
  switch (value) {
    case AF_UNIX: return "AF_UNIX";
    case AF_INET: return "AF_INET";
    case AF_INET6: return "AF_INET6";
    case AF_NETLINK: return "AF_NETLINK";
    case AF_PACKET: return "AF_PACKET";
    default: return "family " + integer(value);
  }
}

std::string socket_type(std::uint64_t value) {
  constexpr const char* names[] = {"0", "SOCK_STREAM", "SOCK_DGRAM", "SOCK_RAW", "SOCK_RDM", "SOCK_SEQPACKET"};
  const std::uint64_t kind = value & 0xf;
  return kind < std::size(names) ? names[kind] : integer(value);
}

struct address {
  std::string text;
  std::optional<unsigned> port;
};

address socket_address(const std::string& bytes) {
  sockaddr_storage storage{};
  std::memcpy(&storage, bytes.data(), std::min(bytes.size(), sizeof storage));
  char text[INET6_ADDRSTRLEN]{};
  if (storage.ss_family == AF_INET && bytes.size() >= sizeof(sockaddr_in)) {
    const auto& in = reinterpret_cast<const sockaddr_in&>(storage);
    ::inet_ntop(AF_INET, &in.sin_addr, text, sizeof text);
    return {std::string(text) + ":" + std::to_string(ntohs(in.sin_port)), ntohs(in.sin_port)};
  }
  if (storage.ss_family == AF_INET6 && bytes.size() >= 24) {
    const auto& in = reinterpret_cast<const sockaddr_in6&>(storage);
    ::inet_ntop(AF_INET6, &in.sin6_addr, text, sizeof text);
    return {"[" + std::string(text) + "]:" + std::to_string(ntohs(in.sin6_port)), ntohs(in.sin6_port)};
  }
  return {family(storage.ss_family) + " address", std::nullopt};
}

// Grants that hold more than one call. `child`: whether something that the plugin has started made it.
std::string group_grant(const std::string& name, bool child) {
  if (name == "clone") return "subprocesses";
  for (const char* call : syscall_group("subprocesses"))
    if (name == call && (child || name != "chdir")) return "subprocesses";
  for (const char* call : syscall_group("base"))
    if (name == call) return "";  // it is granted; its arguments were what was denied
  for (const char* group : syscall_group_names()) {
    if (std::string_view(group) == "program") continue;
    for (const char* call : syscall_group(group))
      if (name == call) return "syscalls:" + std::string(group);
  }
  return never_granted(name) || syscall_number(name) < 0 ? "" : "syscalls:" + name;
}

void describe_call(violation& what, const std::uint64_t (&a)[6], const std::string& object, bool learned) {
  const std::string& name = what.system_call;
  const std::string path = ipc::sanitised(object, 400);
  const bool absolute = path.starts_with('/');
  if (name == "open" || name == "openat") {
    const std::uint64_t flags = name == "open" ? a[1] : a[2];
    what.arguments = "\"" + path + "\", " + open_flags(flags);
    if (absolute) {
      const bool makes = flags & O_CREAT, writes = flags & (O_ACCMODE | O_TRUNC);
      what.grant = (makes    ? "create:"
                    : writes ? "write:"
                             : "read:") +
                   (makes ? path.substr(0, std::max<std::size_t>(1, path.rfind('/'))) : path);
    }
  } else if (name == "socket" || name == "socketpair") {
    what.arguments = family(a[0]) + ", " + socket_type(a[1]) + ", " + integer(a[2]);
    const bool inet = a[0] == AF_INET || a[0] == AF_INET6;
    if (a[0] == AF_UNIX) what.grant = "syscalls:unix-sockets";
    else if (inet && (a[1] & 0xf) == SOCK_STREAM) what.grant = "connect:PORT";
    else if (inet && (a[1] & 0xf) == SOCK_DGRAM) what.grant = "syscalls:udp";
  } else if (name == "connect" || name == "bind") {
    const address to = socket_address(object);
    what.arguments = integer(a[0]) + ", " + to.text;
    if (to.port || object.empty()) what.grant = name + ":" + (to.port ? std::to_string(*to.port) : "PORT");
  } else if (name == "mmap" || name == "mprotect") {
    what.arguments =
        hexadecimal(a[0]) + ", " + integer(a[1]) + ", " +
        bits(a[2], {{PROT_READ, "PROT_READ"}, {PROT_WRITE, "PROT_WRITE"}, {PROT_EXEC, "PROT_EXEC"}}, "PROT_NONE");
    what.grant = "syscalls:jit";
  } else if (!path.empty()) {
    what.arguments = "\"" + path + "\"";
    what.grant = group_grant(name, !what.program.empty());
    // That there are children at all was learned when the first was made; this one has to be readable, too.
    if (name == "execve" && learned && absolute) what.grant = "read:" + path;
    if (what.grant == "syscalls:files-write" && absolute)
      what.grant =
          name == "truncate" ? "write:" + path : "create:" + path.substr(0, std::max<std::size_t>(1, path.rfind('/')));
  } else {
    what.arguments = call_arguments(name, a);
    what.grant = group_grant(name, !what.program.empty());
  }
}

// `made`: what is known already.
std::optional<violation> parse(std::string_view line, violation made) {
  const std::size_t mark = line.find(violation_mark);
  if (mark == std::string_view::npos) return std::nullopt;
  line.remove_prefix(mark + violation_mark.size());
  std::uint64_t arch = 0, number = 0, arguments[6]{};
  if (!hex(next_word(line), arch) || !hex(next_word(line), number)) return std::nullopt;
  for (std::uint64_t& each : arguments)
    if (!hex(next_word(line), each)) return std::nullopt;
  std::string_view result = next_word(line);
  const char mode = result.empty() ? ' ' : result.back();
  if (mode == 'k' || mode == 'l') result.remove_suffix(1);
  std::uint64_t error = 0;
  if (!hex(result, error) || error > 4095) return std::nullopt;
  made.method = ipc::sanitised(decoded(next_word(line)), 64);
  const std::string object = decoded(next_word(line));
  while (!line.empty() && made.stack.size() < 8) made.stack.push_back(ipc::sanitised(decoded(next_word(line)), 100));

  const denied_call call{static_cast<std::uint32_t>(arch), static_cast<int>(number), {}};
  made.system_call = system_call_name(call.arch, call.number);
  made.system_call_number = call.number;
  if (call.native()) describe_call(made, arguments, object, mode == 'l');
  const char* name = ::strerrorname_np(static_cast<int>(error));
  made.result = mode == 'k' ? "killed" : mode == 'l' ? "allowed" : name ? name : std::to_string(error);
  return made;
}

}  // namespace

std::string system_call_name(std::uint32_t arch, int number) {
  if (denied_call{arch, number, {}}.native()) return syscall_name(number);
  return (arch == AUDIT_ARCH_X86_64 ? "x32:"
          : arch == AUDIT_ARCH_I386 ? "i386:"
                                    : "foreign:") +
         std::to_string(number & 0x3fffffff);
}

std::optional<violation> parse_violation(std::string_view line) { return parse(line, {}); }

std::optional<violation> parse_report(std::string_view line) {
  std::uint64_t pid = 0;
  if (!hex(next_word(line), pid)) return std::nullopt;
  violation known;
  known.pid = static_cast<int>(pid);
  known.program = ipc::sanitised(decoded(next_word(line)), 300);
  return parse(line, std::move(known));
}

std::string describe(const violation& what) {
  const bool file = what.system_call.starts_with("open");
  std::string text = (file ? "file access " : "system call ") + what.system_call + "(" + what.arguments + ")";
  text += what.result == "allowed"  ? " recorded"
          : what.result == "killed" ? " denied: the worker was killed"
          : what.result == "ENOENT" ? " failed with ENOENT"
                                    : " denied with " + what.result;
  if (!what.method.empty()) text += " in method '" + what.method + "'";
  if (!what.program.empty()) text += " in " + what.program + ", process " + std::to_string(what.pid);
  if (!what.stack.empty()) text += " at " + what.stack.front();
  // What is not granted is not seen by a plugin, no more than what is nowhere.
  if (!what.grant.empty())
    text += std::string(what.result == "ENOENT" ? "; if it is there, the grant " : "; the grant ") + what.grant +
            " would allow it";
  return text;
}

}  // namespace bulkhead::sandbox
