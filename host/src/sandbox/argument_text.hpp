// The numbers that a denied call was made with, as people write them.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>

namespace bulkhead::sandbox {

struct name_of_value {
  std::uint64_t value;
  const char* name;
};

std::string hexadecimal(std::uint64_t value);
std::string integer(std::uint64_t value);
// Names joined by '|', and what has none; `none` if it is 0.
std::string bits(std::uint64_t value, std::initializer_list<name_of_value> names, const std::string& none);

// "1, SIGKILL" for kill: by names where they say more than numbers. The call's by this machine's own table.
std::string call_arguments(const std::string& call, const std::uint64_t (&arguments)[6]);

}  // namespace bulkhead::sandbox
