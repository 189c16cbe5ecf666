// What an application would load without isolation: a shared library with a function in it.
#include <cstdint>
#include <cstring>

extern "C" __attribute__((visibility("default"))) std::size_t plain_echo(const std::uint8_t* data, std::size_t size,
                                                                         std::uint8_t* result) {
  std::memcpy(result, data, size);
  return size;
}
