// Calls of the application's code, one at a time and in order, on an executor that others run.
#include "serial_queue.hpp"

#include <boost/asio/io_context.hpp>
#include <boost/asio/thread_pool.hpp>
#include <catch2/catch.hpp>

#include <atomic>
#include <numeric>
#include <stdexcept>
#include <vector>

using bulkhead::serial_queue;

TEST_CASE("jobs run one at a time and in order, however many threads there are") {
  std::vector<int> ran;  // tsan would see two at once
  std::atomic<int> running{0};
  bool overlapped = false;
  boost::asio::thread_pool threads(4);
  serial_queue queue([&] { return threads.get_executor(); });
  for (int i = 0; i < 1000; ++i)
    CHECK(queue.post([&, i] {
      if (++running > 1) overlapped = true;
      ran.push_back(i);
      --running;
    }));
  threads.join();
  std::vector<int> all(1000);
  std::iota(all.begin(), all.end(), 0);
  CHECK(ran == all);
  CHECK_FALSE(overlapped);
}

TEST_CASE("the executor is asked for once, when there is a job, which it runs") {
  boost::asio::io_context context;
  int asked = 0, ran = 0;
  serial_queue queue([&] {
    ++asked;
    return context.get_executor();
  });
  CHECK(asked == 0);
  for (int i = 0; i < 2; ++i) queue.post([&] { ++ran; });
  CHECK(ran == 0);
  context.run();
  CHECK(ran == 2);
  CHECK(asked == 1);
}

TEST_CASE("a job that throws does not lose the next") {
  boost::asio::io_context context;
  serial_queue queue([&] { return context.get_executor(); });
  std::vector<int> ran;
  queue.post([&] { ran.push_back(1); });
  queue.post([] { throw std::runtime_error("not this one"); });
  queue.post([&] { ran.push_back(3); });
  CHECK_THROWS_WITH(context.run(), "not this one");
  context.run();
  CHECK(ran == std::vector{1, 3});
}

TEST_CASE("a queue may be closed by a job of its own, what it has taken still runs, and it may outlive the context") {
  std::vector<int> ran;
  std::optional<boost::asio::io_context> context(std::in_place);
  serial_queue queue([&] { return context->get_executor(); });
  queue.post([&] {
    queue.close();
    ran.push_back(1);
    CHECK_FALSE(queue.post([&] { ran.push_back(2); }));
  });
  queue.post([&] { ran.push_back(3); });
  context->run();
  context.reset();
  CHECK_FALSE(queue.post([&] { ran.push_back(4); }));
  CHECK(ran == std::vector{1, 3});
}
