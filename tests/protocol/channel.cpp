// The channel as a peer of requests and answers: each call ends exactly once, whatever the other side does.
#include "connection.hpp"

#include <atomic>
#include <future>
#include <latch>
#include <thread>

#include <sys/eventfd.h>

namespace bulkhead::testing {

using wait_result = ipc::channel::wait_result;

namespace {

ipc::channel::started start(connection& c, ipc::waiter& waiter, const std::string& method = "m") {
  return c.channel->start(request(method), {}, ipc::never, &waiter, nullptr);
}

// Has no room at first, and stays in wait() until it is let go; then all is written, and the end has come.
class full_transport final : public ipc::transport {
 public:
  struct events {
    std::atomic<int> writes{0};
    std::latch asleep{1}, go_on{1};
  };
  explicit full_transport(events& seen) : seen_(seen) {}

  io_result read(std::span<std::uint8_t>, std::vector<unique_fd>&, bool) noexcept override { return {io::closed, 0}; }
  io_result write(bytes first, bytes second, std::span<const int>) noexcept override {
    if (seen_.writes++ == 0) return {io::would_block, 0};
    return {io::ok, first.size() + second.size()};
  }
  bool wait(bool, bool for_writing, ipc::time_point) noexcept override {
    asked_for_room = for_writing;
    seen_.asleep.count_down();
    seen_.go_on.wait();
    return true;
  }
  void wake() noexcept override {}
  void shutdown() noexcept override {}
  int native_handle() const noexcept override { return -1; }

  std::atomic<bool> asked_for_room{false};

 private:
  events& seen_;
};

struct idle_loop final : ipc::channel::wakeups {
  void arm(bool, bool) override {}
  void schedule(ipc::time_point) override {}
};

// Whether another thread can use the channel while this one's end of a call is destroyed.
struct asking_end final : ipc::async_completion {
  asking_end(ipc::channel& of, std::future<std::size_t>& asked, bool& answered)
      : of_(of), asked_(asked), answered_(answered) {}
  ~asking_end() override {
    asked_ = std::async(std::launch::async, [&of = of_] { return of.unsent(); });
    answered_ = asked_.wait_for(10s) == std::future_status::ready;
  }
  void complete(ipc::completion&&) override {}

 private:
  ipc::channel& of_;
  std::future<std::size_t>& asked_;
  bool& answered_;
};

int number(const ipc::completion& done) { return ipc::unpack(done.result()).get().as<int>(); }

}  // namespace

TEST_CASE("answers find their calls in whatever order they come") {
  connection c;
  ipc::waiter first, second;
  const auto one = start(c, first), two = start(c, second);
  c.say(answer(two.id, 2));
  c.say(answer(one.id, 1));
  CHECK(c.channel->wait(first, ipc::never) == wait_result::done);
  CHECK(c.channel->wait(second, ipc::never) == wait_result::done);
  CHECK(number(first.result) == 1);
  CHECK(number(second.result) == 2);
  CHECK(c.channel->outstanding() == 0);
}

TEST_CASE("an answer to a call never made ends the channel") {
  connection c;
  ipc::waiter waiter;
  const auto mine = start(c, waiter);
  const std::uint32_t forged = GENERATE_COPY(mine.id + 1, mine.id + (1u << 12), mine.id ^ 0x80000000u, 4294967295u);
  c.say(answer(forged, 1));
  CHECK(c.channel->wait(waiter, ipc::never) == wait_result::closed);
  CHECK(c.seen.violation.find("not in progress") != std::string::npos);
  CHECK(c.seen.closed == 1);
}

TEST_CASE("a second answer to the same call ends the channel") {
  connection c;
  ipc::waiter waiter;
  const auto mine = start(c, waiter);
  c.say(answer(mine.id, 1));
  REQUIRE(c.channel->wait(waiter, ipc::never) == wait_result::done);
  CHECK(number(waiter.result) == 1);
  c.say(answer(mine.id, 2));
  c.until_closed();
  CHECK(c.seen.violation.find("not in progress") != std::string::npos);
}

TEST_CASE("the id of an ended call does not come again soon") {
  connection c;
  std::set<std::uint32_t> ids;
  for (int i = 0; i < 1000; ++i) {
    ipc::waiter waiter;
    const auto mine = start(c, waiter);
    c.hear();
    CHECK(ids.insert(mine.id).second);
    c.say(answer(mine.id, i));
    REQUIRE(c.channel->wait(waiter, ipc::never) == wait_result::done);
  }
}

TEST_CASE("a late answer to a call given up is dropped and counted, and another one is a violation") {
  connection c;
  ipc::waiter late, next;
  const auto given_up = start(c, late);
  CHECK(c.channel->wait(late, ipc::clock::now()) == wait_result::deadline);
  REQUIRE(c.channel->abandon(given_up.id, outcome::timeout, "no answer"));
  CHECK(late.result.code == outcome::timeout);
  CHECK(c.channel->outstanding() == 1);  // its place is kept for the answer
  c.hear();
  const bytes_t cancel = c.hear();
  CHECK(ipc::parse_message(cancel)->method == "$/cancel");

  const auto other = start(c, next);
  c.say(answer(given_up.id, 7));
  c.say(answer(other.id, 8));
  REQUIRE(c.channel->wait(next, ipc::never) == wait_result::done);
  CHECK(number(next.result) == 8);
  CHECK(c.channel->late_answers() == 1);
  CHECK(c.channel->outstanding() == 0);
  c.say(answer(given_up.id, 7));
  c.until_closed();
  CHECK(c.seen.violation.find("not in progress") != std::string::npos);
}

TEST_CASE("a call is given up from another thread while its caller reads") {
  connection c;
  ipc::waiter waiter;
  waiter.interruptible = true;
  const auto mine = start(c, waiter);
  std::thread other([&] {
    c.hear();  // the request is out
    c.channel->abandon(mine.id, outcome::cancelled, "changed my mind");
  });
  CHECK(c.channel->wait(waiter, ipc::clock::now() + 20s) == wait_result::done);
  other.join();
  CHECK(waiter.result.code == outcome::cancelled);
  CHECK(waiter.result.failure.message == "changed my mind");
  CHECK_FALSE(c.channel->abandon(mine.id, outcome::cancelled, "again"));
}

TEST_CASE("what is kept for an asynchronous call is destroyed without the channel's lock") {
  connection c;
  std::future<std::size_t> asked;
  bool answered = false;
  std::unique_ptr<ipc::async_completion> end = std::make_unique<asking_end>(*c.channel, asked, answered);
  const auto mine = c.channel->start(request("m"), {}, ipc::never, nullptr, &end);
  REQUIRE(mine.code == outcome::ok);
  SECTION("answered") {
    c.say(answer(mine.id, 1));
    c.channel->poll();
  }
  SECTION("given up") { c.channel->abandon(mine.id, outcome::cancelled, "changed my mind"); }
  SECTION("failed") {
    c.channel->fail_all([](const auto&) { return ipc::completion::failed(outcome::worker_lost, ""); });
  }
  CHECK(answered);
}

TEST_CASE("a method with a long name counts as a call, whatever the first letters of its name are") {
  connection c;
  ipc::waiter reserved, long_name;
  REQUIRE(start(c, reserved, "$/ping").code == outcome::ok);
  REQUIRE(start(c, long_name, "/" + std::string(35, 'x')).code ==
          outcome::ok);  // 36 is '$', where names of few bytes begin
  std::vector<std::uint64_t> sequences;
  c.channel->fail_all([&](const ipc::channel::open_call& call) {
    sequences.push_back(call.sequence);
    return ipc::completion::failed(outcome::worker_lost, "");
  });
  CHECK(sequences == std::vector<std::uint64_t>{0, 1});
}

TEST_CASE("a call that could not be started is none of those that the peer counts") {
  connection c;
  ipc::waiter failed, next;
  const auto before = [](std::uint32_t) -> ipc::buffer { throw std::bad_alloc(); };
  CHECK_THROWS_AS(c.channel->start(request("m"), {}, ipc::never, &failed, nullptr, before), std::bad_alloc);
  CHECK(c.channel->outstanding() == 0);
  REQUIRE(start(c, next).code == outcome::ok);
  std::vector<std::uint64_t> sequences;
  c.channel->fail_all([&](const ipc::channel::open_call& call) {
    sequences.push_back(call.sequence);
    return ipc::completion::failed(outcome::worker_lost, "");
  });
  CHECK(sequences == std::vector<std::uint64_t>{1});
}

TEST_CASE("while a caller waits for room the event loop leaves the writing to it") {
  recorder seen;
  idle_loop loop;
  full_transport::events events;
  auto made = std::make_unique<full_transport>(events);
  full_transport& transport = *made;
  ipc::channel channel(std::move(made), {}, seen, &loop);
  channel.open();
  ipc::waiter waiter;
  REQUIRE(channel.start(request("m"), {}, ipc::never, &waiter, nullptr).code == outcome::ok);
  auto waited = std::async(std::launch::async, [&] { return channel.wait(waiter, ipc::never); });
  events.asleep.wait();
  CHECK(transport.asked_for_room);
  channel.on_event(false, true);
  CHECK(events.writes == 1);
  CHECK(channel.unsent() > 0);
  events.go_on.count_down();
  CHECK(waited.get() == wait_result::closed);
  CHECK(events.writes == 2);
  CHECK(channel.unsent() == 0);
  channel.fail_all([](const auto&) { return ipc::completion::failed(outcome::worker_lost, ""); });
}

TEST_CASE("eight threads call at once and each gets its own answers") {
  connection c;
  constexpr int threads = 8, calls = 500;
  std::thread peer([&] {  // echoes the request's own parameter
    for (int i = 0; i < threads * calls; ++i) {
      const bytes_t frame = c.hear();
      const auto request = ipc::parse_message(frame);
      c.say(ipc::make_response(request->id, request->params).take());
    }
  });
  std::atomic<int> wrong{0};
  std::vector<std::thread> callers;
  for (int t = 0; t < threads; ++t)
    callers.emplace_back([&, t] {
      for (int i = 0; i < calls; ++i) {
        ipc::waiter waiter;
        const std::vector<int> mine = {t * calls + i};
        const auto started = c.channel->start(request("m", value(mine)), {}, ipc::never, &waiter, nullptr);
        if (started.code != outcome::ok || c.channel->wait(waiter, ipc::never) != wait_result::done ||
            ipc::unpack(waiter.result.result()).get().as<std::vector<int>>() != mine)
          ++wrong;
      }
    });
  for (auto& caller : callers) caller.join();
  peer.join();
  CHECK(wrong == 0);
  CHECK(c.channel->outstanding() == 0);
}

TEST_CASE("when the peer goes away every open call ends with what its owner decides, once") {
  connection c;
  ipc::waiter waiters[3];
  for (auto& waiter : waiters) REQUIRE(start(c, waiter).code == outcome::ok);
  c.peer.reset();
  CHECK(c.channel->wait(waiters[0], ipc::never) == wait_result::closed);
  CHECK(c.seen.closed == 1);
  CHECK(c.seen.violation.empty());
  std::vector<std::uint64_t> order;
  c.channel->fail_all([&](const ipc::channel::open_call& call) {
    order.push_back(call.sequence);
    CHECK(call.written);
    return ipc::completion::failed(outcome::worker_lost, "gone");
  });
  CHECK(order == std::vector<std::uint64_t>{1, 2, 3});
  for (auto& waiter : waiters) {
    CHECK(c.channel->wait_closed(waiter, ipc::never));
    CHECK(waiter.result.code == outcome::worker_lost);
  }
  ipc::waiter refused;
  CHECK(start(c, refused).code == outcome::not_sent);
}

TEST_CASE("requests and notifications of the peer arrive in order and whole") {
  connection c;
  bytes_t both = vector_named("host_call");
  for (const char* next : {"log", "event", "progress"}) {
    const bytes_t more = vector_named(next);
    both.insert(both.end(), more.begin(), more.end());
  }
  for (const std::uint8_t byte : both) {
    c.say({&byte, 1});
    c.channel->poll();
  }
  REQUIRE(c.seen.messages.size() == 4);
  CHECK(c.seen.messages[0].kind == ipc::message_kind::request);
  CHECK(c.seen.messages[0].method == "lookup");
  CHECK(c.seen.messages[1].method == "$/log");
  CHECK(c.seen.messages[2].method == "$/event");
  CHECK(c.seen.messages[3].method == "$/progress");
}

TEST_CASE("descriptors arrive with the message that names them, in their order") {
  connection c({}, 16);
  const unique_fd one(::eventfd(1, 0)), two(::eventfd(2, 0)), three(::eventfd(3, 0));
  c.say(vector_named("call_with_two_handles"), {one.get(), two.get()});
  c.say(vector_named("call"));
  c.say(vector_named("call_with_handle"), {three.get()});
  c.channel->run([&] { return c.seen.messages.size() == 3; }, ipc::clock::now() + 10s);
  REQUIRE(c.seen.messages.size() == 3);
  auto count = [](const unique_fd& fd) {
    std::uint64_t number = 0;
    CHECK(::read(fd.get(), &number, sizeof number) == sizeof number);
    return number;
  };
  REQUIRE(c.seen.messages[0].handles.size() == 2);
  CHECK(count(c.seen.messages[0].handles[0]) == 1);
  CHECK(count(c.seen.messages[0].handles[1]) == 2);
  CHECK(c.seen.messages[1].handles.empty());
  REQUIRE(c.seen.messages[2].handles.size() == 1);
  CHECK(count(c.seen.messages[2].handles[0]) == 3);
}

}  // namespace bulkhead::testing
