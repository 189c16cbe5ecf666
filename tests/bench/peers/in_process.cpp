// No isolation: a function of a shared library, loaded by Boost.DLL into the caller's own process.
#include "peer.hpp"

#define BOOST_DLL_USE_STD_FS  // Boost.Filesystem would have to be linked
#include <boost/dll/shared_library.hpp>
#include <boost/version.hpp>

#include <unistd.h>

namespace {

class in_process final : public peer::link {
 public:
  explicit in_process(std::size_t largest) : result_(largest) {}
  peer::bytes_view call(peer::bytes_view payload) override {
    return {result_.data(), echo_(payload.data(), payload.size(), result_.data())};
  }
  bool many(peer::bytes_view payload, std::size_t count, std::size_t) override {
    for (std::size_t i = 0; i < count; ++i)
      if (call(payload).size() != payload.size()) return false;
    return true;
  }
  pid_t worker() const override { return ::getpid(); }

 private:
  using function = std::size_t(const std::uint8_t*, std::size_t, std::uint8_t*);
  boost::dll::shared_library library_{BULKHEAD_BENCH_PLAIN_ECHO};
  function* echo_ = &library_.get<function>("plain_echo");
  std::vector<std::uint8_t> result_;
};

}  // namespace

int main() {
  return peer::obey({.name = "Boost.DLL, in-process", .version = BOOST_LIB_VERSION, .connect = [](std::size_t largest) {
                       return std::make_unique<in_process>(largest);
                     }});
}
