// Many workers and many threads at once, and what one more worker costs the host.
#include "fixture.hpp"

#include <set>

#include <sys/resource.h>

namespace bulkhead::testing {

TEST_CASE("64 threads call few workers and many, and one more worker costs a host six descriptors and no thread") {
#ifdef BULKHEAD_SANITIZED
  constexpr unsigned many = 24;
#else
  constexpr unsigned many = 200;
#endif
  constexpr unsigned few = 8;
  constexpr int threads = 64, calls = 20;
  rlimit files{};
  REQUIRE(::getrlimit(RLIMIT_NOFILE, &files) == 0);
  files.rlim_cur = files.rlim_max;
  REQUIRE(::setrlimit(RLIMIT_NOFILE, &files) == 0);

  host host({.spawns = any_number_of_spawns});
  const auto load = [&](unsigned instances) {
    load_options options;
    options.instances = instances;
    options.deadline = 60s;
    options.start_timeout = 60s;
    options.dispatch.kind = dispatch::kind::round_robin;
    return host.load(plugin_path("chaos"), options);
  };
  const plugin small = load(few);
  const std::size_t descriptors = entries("/proc/self/fd"), tasks = entries("/proc/self/task");
  const plugin large = load(many);
  // Its channel and what wakes who waits there, its process, its log, what its sandbox reports, its black box; the rest is
  // the plugin's, and the threads are those for handlers.
  CHECK(entries("/proc/self/fd") <= descriptors + 6 * many + 4);
  CHECK(entries("/proc/self/task") <= tasks + 4);
  std::set<std::string> names;
  for (unsigned i = 0; i < many; ++i) names.insert(large.call<std::string>("name"));
  CHECK(names.size() == many);  // each has answered

  std::atomic<int> right{0};
  {
    std::vector<std::jthread> callers;
    for (int t = 0; t < threads; ++t)
      callers.emplace_back([&, t] {
        for (int i = 0; i < calls; ++i) {
          const reply got = (i % 2 ? small : large).try_call("echo", t * calls + i);
          right += got && got.as<int>() == t * calls + i;
        }
      });
  }
  CHECK(right == threads * calls);
  CHECK(small.status().serving == few);
  CHECK(large.status().serving == many);
}

}  // namespace bulkhead::testing
