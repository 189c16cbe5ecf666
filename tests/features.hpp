// What a machine may lack that tests run on.
#pragma once

#include <bulkhead/ipc/system.hpp>

#include <catch2/catch.hpp>

#include <cstdlib>
#include <string>
#include <string_view>
#include <system_error>

#include <netinet/in.h>
#include <sys/socket.h>

namespace bulkhead::testing {

// Says so, or fails where BULKHEAD_TEST_REQUIRE has it ("cgroups,ipv6"): then it is there, and what fails is ours.
inline void lacks(std::string_view feature, const std::string& why) {
  const char* const required = std::getenv("BULKHEAD_TEST_REQUIRE");
  if (required && std::string_view(required).find(feature) != std::string_view::npos)
    FAIL("no " << feature << " here: " << why);
  WARN("no " << feature << " here: " << why);
}

inline bool has_ipv6() {
  const unique_fd socket(::socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in6 where{};
  where.sin6_family = AF_INET6;
  where.sin6_addr = in6addr_loopback;
  if (::bind(socket.get(), reinterpret_cast<sockaddr*>(&where), sizeof where) == 0) return true;
  lacks("ipv6", std::generic_category().message(errno));
  return false;
}

}  // namespace bulkhead::testing
