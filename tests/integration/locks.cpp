// Which locks calls have in common. The linker wraps pthread_mutex_lock() (--wrap), to which std::mutex and Asio's come: each
// thread that makes calls counts what it locks, by address.
#include "fixture.hpp"

#include <array>
#include <atomic>
#include <barrier>
#include <unordered_map>

#include <pthread.h>

namespace {

using lock_counts = std::unordered_map<const void*, long>;
constinit thread_local lock_counts* counted = nullptr;

}  // namespace

extern "C" {
int __real_pthread_mutex_lock(pthread_mutex_t*);
int __wrap_pthread_mutex_lock(pthread_mutex_t* mutex) {
  if (counted) ++(*counted)[mutex];
  return __real_pthread_mutex_lock(mutex);
}
}

namespace bulkhead::testing {
namespace {

constexpr int calls_each = 20'000, batch = 100;
constexpr long all_calls = 2L * calls_each;

template <class F>
lock_counts locked_by(F&& work) {
  lock_counts locks;
  counted = &locks;
  try {
    work();
  } catch (...) {
    counted = nullptr;
    throw;
  }
  counted = nullptr;
  return locks;
}

// Of those that both of two threads took: how often they did together. Each thread does `work(which)` once unseen before.
template <class F>
lock_counts locked_by_both(F work) {
  std::array<lock_counts, 2> of;
  std::atomic<int> failed{0};
  std::barrier together(2);
  {
    std::vector<std::jthread> threads;
    for (std::size_t which = 0; which < 2; ++which)
      threads.emplace_back([&, which] {
        try {
          work(which, calls_each / 10);
        } catch (const std::exception&) {
          ++failed;
        }
        together.arrive_and_wait();
        try {
          of[which] = locked_by([&] { work(which, calls_each); });
        } catch (const std::exception&) {
          ++failed;
        }
      });
  }
  CHECK(failed == 0);
  CHECK(!of[0].empty());  // else nothing is seen
  CHECK(!of[1].empty());
  lock_counts common;
  for (const auto& [mutex, count] : of[0])
    if (const auto other = of[1].find(mutex); other != of[1].end()) common[mutex] = count + other->second;
  return common;
}

void call_again_and_again(const plugin& on, int calls) {
  for (int i = 0; i < calls; ++i)
    if (on.call<int>("add", i, 1) != i + 1) throw std::logic_error("another call's result");
}

}  // namespace

TEST_CASE("synchronous calls of two plugins share no lock") {
  host host;
  const std::array plugins{host.load(plugin_path("echo")), host.load(plugin_path("echo"))};
  const auto begun = std::chrono::steady_clock::now();
  const auto common =
      locked_by_both([&](std::size_t which, int calls) { call_again_and_again(plugins[which], calls); });
  const auto took = std::chrono::ceil<std::chrono::milliseconds>(std::chrono::steady_clock::now() - begun);
  long taken = 0;
  for (const auto& [mutex, count] : common) taken += count;
  // The timers', by each of both threads at most once in a millisecond.
  CHECK(taken <= all_calls / 50 + std::min<long>(2 * took.count(), all_calls / 2));
}

TEST_CASE("synchronous calls of one plugin share its pool's lock, and take it twice each") {
  host host;
  const plugin echo = host.load(plugin_path("echo"), {.instances = 2});
  const auto asked = locked_by([&] { static_cast<void>(echo.status()); });
  REQUIRE(asked.size() == 1);
  const auto common = locked_by_both([&](std::size_t, int calls) { call_again_and_again(echo, calls); });
  const auto pool = common.find(asked.begin()->first);
  REQUIRE(pool != common.end());
  CHECK(pool->second >= all_calls);
  CHECK(pool->second <= 2 * all_calls + all_calls / 10);
}

TEST_CASE("asynchronous calls of two plugins begin without a lock of their host") {
  host host;
  const std::array plugins{host.load(plugin_path("echo")), host.load(plugin_path("echo"))};
  std::atomic<int> wrong{0};
  const auto common = locked_by_both([&](std::size_t which, int calls) {
    for (int begun = 0; begun < calls; begun += batch) {
      mailbox<int> last;
      std::atomic<int> left{batch};
      for (int i = 0; i < batch; ++i)
        plugins[which].async_call<int>("add", std::tuple{i, 1}, [&, i](boost::system::error_code, int sum) {
          if (sum != i + 1) ++wrong;
          if (--left == 0) last.put(sum);
        });
      if (!last.wait_for(1)) std::abort();  // what has not ended refers to what is here
    }
  });
  CHECK(wrong == 0);
  // Memory for calls comes in bundles that all threads share: a lock for it is taken once for many calls.
  for (const auto& [mutex, count] : common) CHECK(count < all_calls / 2);
}

}  // namespace bulkhead::testing
