// See violation_line.hpp.
#include "sandbox/violation_line.hpp"

#include "sandbox/violation_text.hpp"

#include <cerrno>

#include <fcntl.h>
#include <sys/syscall.h>

namespace bulkhead::sandbox {
namespace {

unsigned long open_flags(const denied_call& call) {
#ifdef SYS_open
  if (call.number == SYS_open) return call.arguments[1];
#endif
  return call.arguments[2];
}

}  // namespace

int denied_call::error() const {
  if (!native()) return ENOSYS;
  switch (number) {
    case SYS_openat2:
    case SYS_epoll_pwait2:
    case SYS_io_uring_setup:
    case SYS_io_uring_enter:
    case SYS_io_uring_register:
    case SYS_copy_file_range:
    case SYS_mlock2:
    case SYS_clone3: return ENOSYS;
    default: return number > 450 ? ENOSYS : EPERM;
  }
}

bool denied_call::writes() const {
  return open_flags(*this) & (O_ACCMODE | O_CREAT | O_TRUNC | (O_TMPFILE & ~O_DIRECTORY));
}

bool denied_call::makes() const { return open_flags(*this) & O_CREAT; }

named_object object_of(const denied_call& call) {
  constexpr std::size_t path = 400, address = 28;
  switch (call.number) {
#ifdef SYS_open
    case SYS_open:
    case SYS_creat:
    case SYS_mkdir:
    case SYS_unlink:
    case SYS_rmdir:
    case SYS_chmod:
#endif
    case SYS_truncate:
    case SYS_execve:
    case SYS_chdir: return {call.arguments[0], path};
#ifdef SYS_open
    case SYS_rename:
    case SYS_link:
    case SYS_symlink:
#endif
    case SYS_openat:
    case SYS_mkdirat:
    case SYS_unlinkat:
    case SYS_fchmodat:
    case SYS_execveat: return {call.arguments[1], path};
    case SYS_symlinkat: return {call.arguments[2], path};
#ifdef SYS_renameat
    case SYS_renameat:
#endif
    case SYS_renameat2:
    case SYS_linkat: return {call.arguments[3], path};
    case SYS_connect:
    case SYS_bind: return {call.arguments[1], call.arguments[2] < address ? call.arguments[2] : address, true};
    default: return {};
  }
}

void violation_line::text(const char* what) {
  while (*what && used_ < sizeof text_ - 1) text_[used_++] = *what++;
}

void violation_line::hex(unsigned long value) {
  char digits[16];
  int count = 0;
  do digits[count++] = "0123456789abcdef"[value & 15];
  while ((value >>= 4) && count < 16);
  while (count > 0 && used_ < sizeof text_ - 1) text_[used_++] = digits[--count];
}

void violation_line::encoded(char c) {
  const auto byte = static_cast<unsigned char>(c);
  if (byte > ' ' && byte < 0x7f && byte != '%') {
    if (used_ < sizeof text_ - 1) text_[used_++] = c;
  } else {
    text("%");
    if (byte < 16) text("0");
    hex(byte);
  }
}

void violation_line::word(const char* what, std::size_t most) {
  if (!*what) text("-");
  for (std::size_t i = 0; i < most && what[i]; ++i) encoded(what[i]);
}

void violation_line::begin(const denied_call& call, int error, char mode) {
  text(violation_mark.data());
  hex(call.arch);
  text(" ");
  hex(static_cast<unsigned>(call.number));
  for (const unsigned long each : call.arguments) {
    text(" ");
    hex(each);
  }
  text(" ");
  hex(static_cast<unsigned long>(error));
  text(mode == 'k' ? "k " : mode == 'l' ? "l " : " ");
}

std::string_view violation_line::finish() {
  text_[used_++] = '\n';  // always room: the others leave the last byte free
  return {text_, used_};
}

}  // namespace bulkhead::sandbox
