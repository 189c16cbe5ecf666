// A file system for SQLite with one file in it: an open descriptor, read with pread(). In a worker there is no path to a
// database, and no folder for journals or temporary files.
#pragma once

namespace sqlite {

// The name of the file system, registered at the first call. Files in it are opened by open_path().
const char* descriptor_vfs();
// "/fd/7": what stands for a descriptor there. It stays the caller's, and has to stay open.
struct descriptor_path {
  explicit descriptor_path(int fd);
  char text[32];
};

}  // namespace sqlite
