// Memory that is both written and run, and the tricks with shared memory that seals alone do not stop.
#include "attempts.h"

#include <cstdint>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace {

constexpr std::size_t page = 4096;

long map_with(std::uintptr_t protection) {
  void* got = ::mmap(nullptr, page, static_cast<int>(protection), MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (got == MAP_FAILED) return escape_result(-1);
  ::munmap(got, page);
  return 0;
}

long protect_with(std::uintptr_t protection) {
  void* got = ::mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (got == MAP_FAILED) return escape_result(-1);
  const long result = escape_result(::mprotect(got, page, static_cast<int>(protection)));
  ::munmap(got, page);
  return result;
}

long protect_by_key(std::uintptr_t protection) {
  void* got = ::mmap(nullptr, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (got == MAP_FAILED) return escape_result(-1);
  const long result = escape_result(::syscall(SYS_pkey_mprotect, got, page, protection, -1));
  ::munmap(got, page);
  return result;
}

long map_zero(std::uintptr_t) {
  void* got = ::mmap(nullptr, page, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
  return got == MAP_FAILED ? escape_result(-1) : 0;
}

long punch(std::uintptr_t fd) {
  return escape_result(::fallocate(static_cast<int>(fd), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, page));
}
long grow(std::uintptr_t fd) { return escape_result(::ftruncate(static_cast<int>(fd), 1 << 20)); }

long advise(std::uintptr_t advice) {
  void* got = ::mmap(nullptr, page, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (got == MAP_FAILED) return escape_result(-1);
  const long result = escape_result(::madvise(got, page, static_cast<int>(advice)));
  ::munmap(got, page);
  return result;
}

long lock(std::uintptr_t flags) { return escape_result(::syscall(SYS_mlockall, static_cast<long>(flags))); }
long remap_file(std::uintptr_t) {
  void* got = ::mmap(nullptr, 2 * page, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  const long result = escape_result(::syscall(SYS_remap_file_pages, got, page, 0, 1, 0));
  ::munmap(got, 2 * page);
  return result;
}

[[maybe_unused]] long use_up_addresses(std::uintptr_t bytes) {
  void* got = ::mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (got == MAP_FAILED) return escape_result(-1);
  ::munmap(got, bytes);
  return 0;
}

constexpr int all = PROT_READ | PROT_WRITE | PROT_EXEC;

const escape_attempt list[] = {
    {"memory", "map memory to write and run", map_with, all, "seccomp"},
    {"memory", "map memory to write and run, not to read", map_with, PROT_WRITE | PROT_EXEC, "seccomp"},
    {"memory", "make memory runnable as well", protect_with, all, "seccomp"},
    {"memory", "make memory runnable by a key", protect_by_key, all, "seccomp"},
    {"memory", "map the page at zero in place", map_zero, 0, "privileges:EPERM"},
    {"memory", "punch a hole into the black box's place", punch, 4, "seccomp kernel:EBADF|EPERM|ENODEV"},
    {"memory", "punch a hole into the plugin's file", punch, 5, "seccomp kernel:EBADF|EPERM"},
    {"memory", "grow the black box's place", grow, 4, "seccomp kernel:EBADF|EPERM|EINVAL"},
    {"memory", "remove shared pages (MADV_REMOVE)", advise, 9, "seccomp"},
    {"memory", "poison a page (MADV_HWPOISON)", advise, 100, "seccomp privileges:EPERM|EINVAL"},
    {"memory", "merge pages (MADV_MERGEABLE)", advise, 12, "seccomp"},
    {"memory", "collapse pages (MADV_COLLAPSE)", advise, 25, "seccomp"},
    {"memory", "lock all memory", lock, 1, "seccomp limits:EPERM|ENOMEM"},
    {"memory", "lock memory to come", lock, 2, "seccomp limits:EPERM|ENOMEM"},
    {"memory", "shuffle the pages of a mapping", remap_file, 0, "seccomp"},
#ifndef BULKHEAD_SANITIZED
    {"memory", "use 4 GiB of addresses", use_up_addresses, std::uintptr_t{4} << 30, "limits:ENOMEM"},
    {"memory", "use 1 TiB of addresses", use_up_addresses, std::uintptr_t{1} << 40, "limits:ENOMEM"},
#endif
};

}  // namespace

extern "C" escape_list escape_memory() { return {list, sizeof list / sizeof *list}; }
