// SHA-256 (FIPS 180-4), to name a file by its contents.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace bulkhead::sandbox {

class sha256 {
 public:
  void add(std::span<const std::uint8_t> bytes);
  // 64 lower-case hexadecimal digits. Once.
  std::string finish();

 private:
  void block(const std::uint8_t* bytes);

  std::array<std::uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                         0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<std::uint8_t, 64> pending_{};
  std::uint64_t size_ = 0;
};

}  // namespace bulkhead::sandbox
