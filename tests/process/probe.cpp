// A child for the tests of spawn: prints what it was asked for about itself, a line each.
#include <cstdio>
#include <cstring>
#include <string>

#include <dirent.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    const std::string what = argv[i];
    if (what == "argv0") std::printf("%s\n", argv[0]);
    if (what == "ids") std::printf("%d %d %d\n", int(::getuid()), int(::getgid()), ::getgroups(0, nullptr));
    if (what == "group") std::printf("%d %d %d\n", int(::getpid()), int(::getpgrp()), int(::getsid(0)));
    if (what == "parent") std::printf("%d\n", int(::getppid()));
    if (what == "count") std::printf("%d\n", argc);
    if (what == "files") {
      rlimit files{};
      ::getrlimit(RLIMIT_NOFILE, &files);
      std::printf("%d\n", int(files.rlim_cur));
    }
    if (what == "descriptors") {
      for (int fd = 0; fd < 1024; ++fd)
        if (struct stat status{}; ::fstat(fd, &status) == 0) std::printf("%d ", fd);
      std::printf("\n");
    }
    std::fflush(stdout);
  }
}
