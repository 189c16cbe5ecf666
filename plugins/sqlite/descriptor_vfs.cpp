// See descriptor_vfs.hpp. Read-only; whoever passed the descriptor sees to it that nobody writes to the database meanwhile
// (it is opened as immutable, so nothing is locked).
#include "descriptor_vfs.hpp"

#include <sqlite3.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

#include <sys/stat.h>
#include <unistd.h>

namespace sqlite {
namespace {

struct file {
  sqlite3_file base;
  int fd;
};

int fd_of(sqlite3_file* of) { return reinterpret_cast<file*>(of)->fd; }

int close_file(sqlite3_file*) { return SQLITE_OK; }

int read_file(sqlite3_file* of, void* into, int size, sqlite3_int64 offset) {
  int done = 0;
  while (done < size) {
    const ssize_t count =
        ::pread(fd_of(of), static_cast<char*>(into) + done, static_cast<std::size_t>(size - done), offset + done);
    if (count < 0) return SQLITE_IOERR_READ;
    if (count == 0) break;
    done += static_cast<int>(count);
  }
  if (done == size) return SQLITE_OK;
  std::memset(static_cast<char*>(into) + done, 0, static_cast<std::size_t>(size - done));  // as SQLite asks for
  return SQLITE_IOERR_SHORT_READ;
}

int write_file(sqlite3_file*, const void*, int, sqlite3_int64) { return SQLITE_READONLY; }
int truncate_file(sqlite3_file*, sqlite3_int64) { return SQLITE_READONLY; }
int sync_file(sqlite3_file*, int) { return SQLITE_OK; }

int size_of_file(sqlite3_file* of, sqlite3_int64* size) {
  struct stat found {};
  if (::fstat(fd_of(of), &found) != 0) return SQLITE_IOERR_FSTAT;
  *size = found.st_size;
  return SQLITE_OK;
}

int lock_file(sqlite3_file*, int) { return SQLITE_OK; }
int reserved(sqlite3_file*, int* out) {
  *out = 0;
  return SQLITE_OK;
}
int control(sqlite3_file*, int, void*) { return SQLITE_NOTFOUND; }
int sector_size(sqlite3_file*) { return 4096; }
int characteristics(sqlite3_file*) { return SQLITE_IOCAP_IMMUTABLE; }

constexpr sqlite3_io_methods methods = {1,         close_file,   read_file,       write_file, truncate_file,
                                        sync_file, size_of_file, lock_file,       lock_file,  reserved,
                                        control,   sector_size,  characteristics, nullptr,    nullptr,
                                        nullptr,   nullptr,      nullptr,         nullptr};

int open(sqlite3_vfs*, const char* name, sqlite3_file* made, int flags, int* out_flags) {
  made->pMethods = nullptr;
  constexpr const char* prefix = "/fd/";
  if (!name || !(flags & SQLITE_OPEN_MAIN_DB) || std::strncmp(name, prefix, std::strlen(prefix)) != 0)
    return SQLITE_CANTOPEN;
  reinterpret_cast<file*>(made)->fd = std::atoi(name + std::strlen(prefix));
  made->pMethods = &methods;
  if (out_flags) *out_flags = SQLITE_OPEN_READONLY | SQLITE_OPEN_MAIN_DB;
  return SQLITE_OK;
}

int remove(sqlite3_vfs*, const char*, int) { return SQLITE_IOERR_DELETE; }
int access(sqlite3_vfs*, const char*, int, int* out) {
  *out = 0;  // no journal, no log
  return SQLITE_OK;
}
int full_path(sqlite3_vfs*, const char* name, int size, char* out) {
  sqlite3_snprintf(size, out, "%s", name);
  return SQLITE_OK;
}

// The rest (time, randomness) is that of the default.
sqlite3_vfs* make() {
  static sqlite3_vfs made = *sqlite3_vfs_find(nullptr);
  made.pNext = nullptr;
  made.szOsFile = sizeof(file);
  made.zName = "bulkhead-descriptor";
  made.xOpen = open;
  made.xDelete = remove;
  made.xAccess = access;
  made.xFullPathname = full_path;
  sqlite3_vfs_register(&made, 0);
  return &made;
}

}  // namespace

const char* descriptor_vfs() {
  static sqlite3_vfs* const registered = make();
  return registered->zName;
}

descriptor_path::descriptor_path(int fd) { std::snprintf(text, sizeof text, "/fd/%d", fd); }

}  // namespace sqlite
