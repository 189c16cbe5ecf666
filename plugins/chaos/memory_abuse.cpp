// Uses up what a worker is given: memory, and room in the host's log.
#include "kinds.hpp"

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include <unistd.h>

namespace chaos {

void memory_bomb() {
  constexpr std::size_t step = std::size_t{1} << 20;
  while (void* block = std::malloc(step)) std::memset(block, 0x5a, step);
  std::abort();
}

void stdout_flood() {
  const std::string line = "flood \x1b[31mred\x1b[0m \x1b]0;title\x07 " + std::string(80, '#') + "\n";
  for (std::size_t written = 0; written < (std::size_t{10} << 20); written += line.size())
    std::fwrite(line.data(), 1, line.size(), stdout);
  const std::string long_line((std::size_t{1} << 20), 'x');
  std::fwrite(long_line.data(), 1, long_line.size(), stdout);
  std::fputs("\x1b[2J\nlast line of the flood\n", stdout);
  std::fflush(stdout);
}

void stderr_lines() {
  std::fputs("first line on stderr\nsecond line on stderr\nunfinished line on stderr", stderr);
  std::fflush(stderr);
}

}  // namespace chaos
