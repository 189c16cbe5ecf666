// What a process holds, as the kernel sees it; and whether that grows.
#pragma once

#include <string>
#include <vector>

namespace chaos {

struct census {
  std::size_t descriptors = 0, threads = 0, mappings = 0, memfds = 0, zombies = 0;
  double resident_kib = 0;
  double allocated_kib = 0;  // of the heap: what is kept, whereas pages stay resident for a while after it

  static census take();  // of this process
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
