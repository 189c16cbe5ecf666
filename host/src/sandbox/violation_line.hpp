// A denied system call, and the line that tells the host of it (see violation_text.hpp). Written by a signal handler in the
// worker and by the fork server, so all of this is async-signal-safe.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include <linux/audit.h>

namespace bulkhead::sandbox {

#if defined(__x86_64__)
inline constexpr std::uint32_t native_arch = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
inline constexpr std::uint32_t native_arch = AUDIT_ARCH_AARCH64;
#else
inline constexpr std::uint32_t native_arch = 0;
#endif

struct denied_call {
  std::uint32_t arch = 0;
  int number = -1;
  unsigned long arguments[6]{};

  // By this machine's own table: no x32, no i386.
  bool native() const { return native_arch && arch == native_arch && !(number & 0x40000000); }
  // What it fails with. New calls have callers that fall back to older ones: only for ENOSYS.
  int error() const;
  // Of an open: whether it writes or makes files.
  bool writes() const;
  bool makes() const;
};

// Where in the caller's memory the path or the socket address is that a call names, of two paths the one that is made;
// `most` is 0 when there is none.
struct named_object {
  unsigned long at = 0;
  std::size_t most = 0;
  bool address = false;  // bytes, a path ends with a zero
};
named_object object_of(const denied_call& call);

class violation_line {
 public:
  void text(const char* what);
  void hex(unsigned long value);
  void encoded(char c);
  // At most so many characters; "-" for none.
  void word(const char* what, std::size_t most);
  // All up to the method. `mode`: ' ' for denied with `error`, 'k' for killed, 'l' for learned.
  void begin(const denied_call& call, int error, char mode);

  std::string_view finish();

 private:
  char text_[4000];  // a pipe takes a line of PIPE_BUF whole
  std::size_t used_ = 0;
};

}  // namespace bulkhead::sandbox
