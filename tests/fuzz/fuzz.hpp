// What fuzzers share: promises that end the program when they are not kept, and an input that is read as a script of steps.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <utility>

inline void must(bool holds) {
  if (!holds) std::abort();
}

// Gives zeros when there is no more.
class script {
 public:
  script(const std::uint8_t* data, std::size_t size) : at_(data), end_(data + size) {}
  bool done() const { return at_ == end_; }
  std::uint8_t byte() { return done() ? 0 : *at_++; }
  template <class T = std::uint64_t>
  T number(int bytes) {
    T value = 0;
    for (int i = 0; i < bytes; ++i) value = value << 8 | byte();
    return value;
  }
  // As many bytes as the next one says, or all that are left.
  std::span<const std::uint8_t> some() {
    std::size_t size = byte();  // before what is left is looked at
    size = std::min(size, static_cast<std::size_t>(end_ - at_));
    return {std::exchange(at_, at_ + size), size};
  }

 private:
  const std::uint8_t* at_;
  const std::uint8_t* const end_;
};
