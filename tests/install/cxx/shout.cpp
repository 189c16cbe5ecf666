#include <bulkhead/sdk.hpp>

#include <cctype>
#include <cstdlib>

namespace {

std::string loud(std::string text) {
  for (char& each : text) each = static_cast<char>(std::toupper(each));
  return text;
}

}  // namespace

BULKHEAD_PLUGIN("shout", "1.0.0") {
  plugin.method("shout", loud);
  plugin.method("greet", [](bulkhead::context& cx) {
    cx.throw_if_cancelled();
    try {
      return "HELLO, " + loud(cx.call_host<std::string>("who"));
    } catch (const bulkhead::cancelled_error&) {
      throw;
    } catch (const bulkhead::error&) {
      return std::string("HELLO, YOU");
    }
  });
  plugin.method("die", [] { std::abort(); });
}
