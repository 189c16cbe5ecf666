// Waits while it is made until the test lets it go on: BULKHEAD_TEST_GATE is a socket in this process.
#include <bulkhead/sdk.hpp>

#include <cstdlib>

#include <sys/socket.h>

BULKHEAD_PLUGIN("gated", "1.0.0") {
  if (const char* const gate = std::getenv("BULKHEAD_TEST_GATE")) {
    char byte = 0;
    ::send(std::atoi(gate), &byte, 1, MSG_NOSIGNAL);
    ::recv(std::atoi(gate), &byte, 1, 0);
  }
  plugin.method("add", [](int a, int b) { return a + b; });
}
