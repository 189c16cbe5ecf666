// What plugins ask for, by the hash of their file: each probed once, and none behind another.
#include "sandbox/manifest_requests.hpp"

#include <catch2/catch.hpp>

#include <future>

namespace bulkhead::sandbox {

using namespace std::chrono_literals;
using requests = manifest_requests::requests;

TEST_CASE("a file is probed once, and one that its probe died of stays refused") {
  manifest_requests known;
  int probes = 0;
  const auto probe = [&] {
    ++probes;
    return requests{"network"};
  };
  const auto dies = [&]() -> requests {
    ++probes;
    throw manifest_requests::died_of_it("killed a worker");
  };
  const auto fails = [&]() -> requests {
    ++probes;
    throw std::runtime_error("no worker could be had");
  };
  CHECK_THROWS_WITH(known.of("a", fails), "no worker could be had");
  CHECK(known.of("a", probe) == requests{"network"});  // that was not the file's fault
  CHECK(known.of("a", dies) == requests{"network"});
  CHECK_THROWS_AS(known.of("b", dies), manifest_requests::died_of_it);
  CHECK_THROWS_WITH(known.of("b", probe), "killed a worker");
  CHECK(probes == 3);
}

TEST_CASE("a probe that hangs holds up those of its own file only") {
  manifest_requests known;
  std::promise<void> other_done;
  std::promise<void> begun;
  auto hanging = std::async(std::launch::async, [&] {
    return known.of("a", [&] {
      begun.set_value();
      const bool in_time = other_done.get_future().wait_for(20s) == std::future_status::ready;
      return requests{in_time ? "first" : "late"};
    });
  });
  begun.get_future().wait();
  auto same = std::async(std::launch::async, [&] { return known.of("a", [] { return requests{"second"}; }); });
  CHECK(known.of("b", [] { return requests{"other"}; }) == requests{"other"});
  other_done.set_value();
  CHECK(hanging.get() == requests{"first"});
  CHECK(same.get() == requests{"first"});
}

TEST_CASE("what was not asked for longest is forgotten in the end") {
  manifest_requests known;
  int probes = 0;
  const auto ask = [&](int file) {
    known.of(std::to_string(file), [&] {
      ++probes;
      return requests{};
    });
  };
  for (int file = 0; file < 2000; ++file) {
    ask(file);
    ask(0);
  }
  CHECK(probes == 2000);
  ask(1999);
  CHECK(probes == 2000);
  ask(1);
  CHECK(probes == 2001);
}

}  // namespace bulkhead::sandbox
