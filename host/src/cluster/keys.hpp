// What an event is about, in the 64 bits that epoll gives back: a kind, and a number that is never used again.
#pragma once

#include <cstdint>

namespace bulkhead::keys {

inline constexpr std::uint64_t wake = 1, listener = 2;
inline constexpr std::uint64_t seat = std::uint64_t{1} << 62, connection = std::uint64_t{1} << 63;
inline constexpr std::uint64_t number = seat - 1;

}  // namespace bulkhead::keys
