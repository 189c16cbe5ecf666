#include <bulkhead/sdk.hpp>

#include <cctype>
#include <cstdlib>

BULKHEAD_PLUGIN("shout", "1.0.0") {
  plugin.method("shout", [](std::string text) {
    for (char& each : text) each = static_cast<char>(std::toupper(each));
    return text;
  });
  plugin.method("die", [] { std::abort(); });
}
