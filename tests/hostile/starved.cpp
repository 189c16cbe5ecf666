// A host that the system refuses descriptors for a while: what it has to send waits, and nobody is lost for it.
#include "faults.hpp"
#include "fixture.hpp"

#include <fcntl.h>

namespace bulkhead::testing {

TEST_CASE("a descriptor that the system does not take on now is sent later, in its turn and without haste") {
  for (const bool lanes : {true, false}) {
    load_options options;
    options.lanes.enabled = lanes;
    options.deadline = 20s;
    host host;
    auto plugin = host.load(plugin_path("chaos"), options);
    const pid_t pid = plugin.workers().at(0).pid;
    const unique_fd null(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    mailbox<outcome> ends;
    refused_descriptors = 0;
    const auto begun = std::chrono::steady_clock::now();
    no_descriptors_sent = true;
    plugin.async_call<reply>("hold", std::tuple{pass_fd{null.get()}}, outcome_to(ends));
    plugin.async_call<reply>("echo", std::tuple{1}, outcome_to(ends));
    CHECK(eventually([] { return refused_descriptors >= 5; }));
    no_descriptors_sent = false;
    CHECK(refused_descriptors.load() <= 5 + (std::chrono::steady_clock::now() - begun) / 5ms);
    CHECK(ends.wait_for(2));
    CHECK(ends.values() == std::vector(2, outcome::ok));

    no_descriptors_sent = true;  // the caller, who reads by himself
    std::thread later([before = refused_descriptors.load()] {
      eventually([&] { return refused_descriptors >= before + 2; });
      no_descriptors_sent = false;
    });
    CHECK(plugin.try_call("hold", pass_fd{null.get()}).outcome() == outcome::ok);
    later.join();
    CHECK(plugin.workers().at(0).pid == pid);
  }
}

}  // namespace bulkhead::testing
