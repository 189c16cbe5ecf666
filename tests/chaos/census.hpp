// What a process holds, as the kernel sees it; and whether that grows.
#pragma once

#include <string>
#include <vector>

#include <sys/types.h>

namespace chaos {

struct census {
  std::size_t descriptors = 0, threads = 0, mappings = 0, memfds = 0, zombies = 0;
  // Memory of its own: files, the text of programs among them, are paged in as it runs on, and are not counted.
  double resident_kib = 0;
  double allocated_kib = 0;  // of the heap: what is kept, whereas pages stay resident for a while after it
  std::size_t server_descriptors = 0;
  double server_resident_kib = 0;

  static census take(pid_t server);  // of this process, and of its fork server
  // Whether it holds more of anything than `before`, memory aside.
  bool exceeds(const census& before) const;
  std::string text() const;
};

// A straight line through points, by least squares.
struct trend {
  double slope = 0, error = 0;  // its standard error
  static trend through(const std::vector<double>& x, const std::vector<double>& y);
};

}  // namespace chaos
