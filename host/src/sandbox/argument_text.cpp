// See argument_text.hpp. Of each call at most one argument has names, which stand in a table.
#include "sandbox/argument_text.hpp"

#include <algorithm>
#include <charconv>
#include <csignal>
#include <cstring>
#include <string_view>

#include <fcntl.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>

namespace bulkhead::sandbox {
namespace {

#define NAMED(what) \
  { what, #what }

constexpr std::initializer_list<name_of_value> clone_flags = {NAMED(CLONE_VM),
                                                              NAMED(CLONE_FS),
                                                              NAMED(CLONE_FILES),
                                                              NAMED(CLONE_SIGHAND),
                                                              NAMED(CLONE_PIDFD),
                                                              NAMED(CLONE_PTRACE),
                                                              NAMED(CLONE_VFORK),
                                                              NAMED(CLONE_PARENT),
                                                              NAMED(CLONE_THREAD),
                                                              NAMED(CLONE_NEWNS),
                                                              NAMED(CLONE_SYSVSEM),
                                                              NAMED(CLONE_SETTLS),
                                                              NAMED(CLONE_PARENT_SETTID),
                                                              NAMED(CLONE_CHILD_CLEARTID),
                                                              NAMED(CLONE_DETACHED),
                                                              NAMED(CLONE_UNTRACED),
                                                              NAMED(CLONE_CHILD_SETTID),
                                                              NAMED(CLONE_NEWCGROUP),
                                                              NAMED(CLONE_NEWUTS),
                                                              NAMED(CLONE_NEWIPC),
                                                              NAMED(CLONE_NEWUSER),
                                                              NAMED(CLONE_NEWPID),
                                                              NAMED(CLONE_NEWNET),
                                                              NAMED(CLONE_IO)};

constexpr std::initializer_list<name_of_value> prctl_options = {NAMED(PR_SET_PDEATHSIG),
                                                                NAMED(PR_SET_DUMPABLE),
                                                                NAMED(PR_SET_KEEPCAPS),
                                                                NAMED(PR_SET_NAME),
                                                                NAMED(PR_GET_NAME),
                                                                NAMED(PR_SET_TIMING),
                                                                NAMED(PR_SET_TSC),
                                                                NAMED(PR_SET_SECCOMP),
                                                                NAMED(PR_GET_SECCOMP),
                                                                NAMED(PR_CAPBSET_READ),
                                                                NAMED(PR_CAPBSET_DROP),
                                                                NAMED(PR_SET_SECUREBITS),
                                                                NAMED(PR_SET_TIMERSLACK),
                                                                NAMED(PR_SET_MM),
                                                                NAMED(PR_SET_CHILD_SUBREAPER),
                                                                NAMED(PR_SET_NO_NEW_PRIVS),
                                                                NAMED(PR_SET_THP_DISABLE),
                                                                NAMED(PR_SET_PTRACER),
                                                                NAMED(PR_CAP_AMBIENT),
                                                                NAMED(PR_SET_SPECULATION_CTRL),
                                                                NAMED(PR_SET_IO_FLUSHER)};

constexpr std::initializer_list<name_of_value> ioctl_requests = {
    NAMED(TIOCSTI),  NAMED(TIOCLINUX),  NAMED(TIOCSCTTY),  NAMED(TIOCNOTTY),   NAMED(TIOCSETD),
    NAMED(TIOCCONS), NAMED(TIOCGWINSZ), NAMED(TIOCSWINSZ), NAMED(TIOCGPGRP),   NAMED(TIOCSPGRP),
    NAMED(TCGETS),   NAMED(TCSETS),     NAMED(TCSETSW),    NAMED(TCSETSF),     NAMED(FIONREAD),
    NAMED(FIONBIO),  NAMED(FIOASYNC),   NAMED(FIOCLEX),    NAMED(SIOCGIFCONF), NAMED(SIOCGIFADDR)};

constexpr std::initializer_list<name_of_value> fcntl_commands = {
    NAMED(F_DUPFD),         NAMED(F_GETFD),      NAMED(F_SETFD),      NAMED(F_GETFL),     NAMED(F_SETFL),
    NAMED(F_GETLK),         NAMED(F_SETLK),      NAMED(F_SETLKW),     NAMED(F_OFD_GETLK), NAMED(F_OFD_SETLK),
    NAMED(F_OFD_SETLKW),    NAMED(F_SETOWN),     NAMED(F_GETOWN),     NAMED(F_SETOWN_EX), NAMED(F_GETOWN_EX),
    NAMED(F_SETSIG),        NAMED(F_GETSIG),     NAMED(F_SETLEASE),   NAMED(F_GETLEASE),  NAMED(F_NOTIFY),
    NAMED(F_DUPFD_CLOEXEC), NAMED(F_SETPIPE_SZ), NAMED(F_GETPIPE_SZ), NAMED(F_ADD_SEALS), NAMED(F_GET_SEALS)};

#undef NAMED

std::string one_of(std::uint64_t value, std::initializer_list<name_of_value> names) {
  for (const auto& each : names)
    if (each.value == value) return each.name;
  return integer(value);
}

std::string signal_text(std::uint64_t value) {
  const char* name = value < NSIG ? ::sigabbrev_np(static_cast<int>(value)) : nullptr;
  return name ? "SIG" + std::string(name) : integer(value);
}

std::string namespaces_text(std::uint64_t value) { return bits(value, clone_flags, "0"); }

// The last byte is no flag, but what the parent is sent at its end.
std::string clone_text(std::uint64_t value) {
  const std::uint64_t flags = value & ~std::uint64_t{CSIGNAL}, signal = value & CSIGNAL;
  if (!flags || !signal) return flags ? bits(flags, clone_flags, "") : signal_text(signal);
  return bits(flags, clone_flags, "") + "|" + signal_text(signal);
}

struct named_argument {
  std::string_view call;
  std::size_t at, count;  // of how many
  std::string (*text)(std::uint64_t);
};

constexpr named_argument named_arguments[] = {
    {"clone", 0, 2, clone_text},
    {"unshare", 0, 1, namespaces_text},
    {"setns", 1, 2, namespaces_text},
    {"prctl", 0, 4, [](std::uint64_t value) { return one_of(value, prctl_options); }},
    {"ioctl", 1, 3, [](std::uint64_t value) { return one_of(value, ioctl_requests); }},
    {"fcntl", 1, 3, [](std::uint64_t value) { return one_of(value, fcntl_commands); }},
    {"kill", 1, 2, signal_text},
    {"tkill", 1, 2, signal_text},
    {"tgkill", 2, 3, signal_text},
    {"rt_sigqueueinfo", 1, 3, signal_text},
    {"rt_tgsigqueueinfo", 2, 4, signal_text},
    {"pidfd_send_signal", 1, 4, signal_text},
    {"rt_sigaction", 0, 4, signal_text},
};

}  // namespace

std::string hexadecimal(std::uint64_t value) {
  char digits[17]{};
  std::to_chars(digits, digits + 16, value, 16);
  return std::string("0x") + digits;
}

std::string integer(std::uint64_t value) {
  const auto small = static_cast<std::int64_t>(value);
  return small > -4096 && small < 65536 ? std::to_string(small) : hexadecimal(value);
}

std::string bits(std::uint64_t value, std::initializer_list<name_of_value> names, const std::string& none) {
  std::string out;
  for (const auto& [bit, name] : names)
    if (value & bit) {
      out += (out.empty() ? "" : "|") + std::string(name);
      value &= ~bit;
    }
  if (value) out += (out.empty() ? "" : "|") + hexadecimal(value);
  return out.empty() ? none : out;
}

std::string call_arguments(const std::string& call, const std::uint64_t (&arguments)[6]) {
  const auto* const named = std::find_if(std::begin(named_arguments), std::end(named_arguments),
                                         [&](const named_argument& each) { return each.call == call; });
  const bool known = named != std::end(named_arguments);
  std::string out;
  for (std::size_t i = 0; i < (known ? named->count : 4); ++i)
    out += (i ? ", " : "") + (known && i == named->at ? named->text(arguments[i]) : integer(arguments[i]));
  return out;
}

}  // namespace bulkhead::sandbox
