// The limits of a channel, and what crosses them.
#include "connection.hpp"

#include <deque>
#include <optional>
#include <thread>

#include <fcntl.h>
#include <sys/eventfd.h>

namespace bulkhead::testing {
namespace {

// An event loop that only writes down what was asked of it.
struct idle_loop final : ipc::channel::wakeups {
  void arm(bool reading, bool writing) override { armed = {reading, writing}; }
  void schedule(ipc::time_point when) override { next = std::min(next, when); }
  std::pair<bool, bool> armed;
  ipc::time_point next = ipc::never;
};

// A channel whose peer has said the first bytes of a message, for the rest of which its loop is asked to come back.
struct begun_message {
  explicit begun_message(std::chrono::milliseconds frame_time) {
    limits.frame_time = frame_time;
    c.emplace(limits, 0, &loop);
    c->say({frame.data(), 5});
    c->channel->on_event(true, false);
    REQUIRE(loop.next != ipc::never);
  }
  ipc::limits limits;
  idle_loop loop;
  std::optional<connection> c;
  const bytes_t frame = vector_named("event");
};

std::size_t open_descriptors() {
  std::size_t count = 0;
  for (int fd = 0; fd < 1024; ++fd) count += ::fcntl(fd, F_GETFD) >= 0;
  return count;
}

}  // namespace

TEST_CASE("each line of the page that must be refused is the end of the channel") {
  for (const auto& [name, bytes] : vectors("refused")) {
    INFO(name);
    connection c;
    ipc::waiter open;  // id 0, then 1: some of the lines would be its answer
    REQUIRE(c.channel->start(request("m"), {}, ipc::never, &open, nullptr).code == outcome::ok);
    c.say(bytes);
    c.until_closed();
    CHECK_FALSE(c.seen.violation.empty());
    CHECK(c.seen.messages.empty());
  }
}

TEST_CASE("one call more than may be queued is overloaded, and there is room again after an answer") {
  ipc::limits limits;
  limits.queued_calls = 4;
  connection c(limits);
  ipc::waiter waiters[6];
  std::uint32_t first = 0;
  for (int i = 0; i < 4; ++i) {
    const auto started = c.channel->start(request("m"), {}, ipc::never, &waiters[i], nullptr);
    CHECK(started.code == outcome::ok);
    if (i == 0) first = started.id;
  }
  CHECK(c.channel->start(request("m"), {}, ipc::never, &waiters[4], nullptr).code == outcome::overloaded);
  c.say(answer(first, 1));
  REQUIRE(c.channel->wait(waiters[0], ipc::never) == ipc::channel::wait_result::done);
  CHECK(c.channel->start(request("m"), {}, ipc::never, &waiters[5], nullptr).code == outcome::ok);
}

TEST_CASE("bytes that the peer does not read are limited, and nothing blocks") {
  ipc::limits limits;
  limits.queued_bytes = std::size_t{1} << 20;
  idle_loop loop;
  connection c(limits, 0, &loop);
  const bytes_t large = request("m", value(std::vector<std::string>{std::string(200'000, 'x')}));
  outcome last = outcome::ok;
  std::vector<std::unique_ptr<ipc::waiter>> waiters;
  for (int i = 0; i < 100 && last == outcome::ok; ++i) {
    waiters.push_back(std::make_unique<ipc::waiter>());
    last = c.channel->start(large, {}, ipc::never, waiters.back().get(), nullptr).code;
  }
  CHECK(last == outcome::overloaded);
  CHECK(loop.armed.second);  // the loop was asked to say when there is room
  CHECK_FALSE(c.channel->send(large));
  c.channel->fail_all([](const auto&) { return ipc::completion::failed(outcome::not_sent, ""); });
}

TEST_CASE("what the peer must have goes past the limit on bytes, up to one of its own") {
  ipc::limits limits;
  limits.queued_bytes = 64 << 10;
  limits.frame = 128 << 10;
  idle_loop loop;
  connection c(limits, 0, &loop);
  const bytes_t large = request("m", value(std::string(50'000, 'x'))), small = request("m");
  while (c.channel->send(large)) continue;
  CHECK_FALSE(c.channel->send(bytes_t(limits.queued_bytes)));
  const std::size_t before = c.channel->unsent();
  CHECK(before <= limits.queued_bytes);
  CHECK(c.channel->send_vital(small));
  CHECK(c.channel->unsent() == before + small.size());
  while (c.channel->send_vital(large)) REQUIRE(c.channel->unsent() < (4 << 20));
  CHECK(c.channel->unsent() > ipc::channel::vital_bytes);
}

TEST_CASE("what could not be written at once is written when there is room, in order") {
  idle_loop loop;
  connection c({}, 0, &loop);
  constexpr int count = 40;
  for (int i = 0; i < count; ++i) {
    ipc::buffer note = ipc::begin_notification("n");
    ipc::packer(note).pack_array(2).pack(i).pack(std::string(50'000, 'x'));
    REQUIRE(c.channel->send(note.take()));
  }
  CHECK(loop.armed.second);
  std::thread reader([&] {
    for (int i = 0; i < count; ++i) {
      const bytes_t frame = c.hear();
      const auto params = ipc::unpack(ipc::parse_message(frame)->params);
      if (params.get().as<std::vector<msgpack::object>>()[0].as<int>() != i) FAIL("out of order");
    }
  });
  while (std::exchange(loop.armed, {}).second) c.channel->on_event(false, true);
  reader.join();
}

TEST_CASE("a message that is not complete in time ends the channel, trickling or not") {
  const bool trickling = GENERATE(false, true);
  ipc::limits limits;
  limits.frame_time = 50ms;
  connection c(limits);
  c.say(bytes_t{0x93, 0x02, 0xa1, 'n', 0x91, 0xc6, 0, 0xf0, 0, 0});  // [2, "n", [15 MiB of bytes
  std::atomic<bool> stop{false};
  std::thread drip([&] {
    ipc::socket_transport writer{unique_fd(::dup(c.peer.get()))};
    const std::uint8_t zero = 0;
    while (trickling && !stop) {
      writer.write({&zero, 1}, {}, {});
      std::this_thread::yield();
    }
  });
  c.until_closed();
  stop = true;
  drip.join();
  CHECK(c.seen.violation.find("frame time limit") != std::string::npos);
}

TEST_CASE("an event loop is asked to come back for a message that is not complete") {
  begun_message begun(50ms);
  auto& [limits, loop, c, frame] = begun;
  c->channel->tick(loop.next - 1ms, 1s);
  CHECK_FALSE(c->channel->closed());
  c->channel->tick(loop.next + limits.frame_time, 1s);
  CHECK(c->channel->closed());
}

TEST_CASE(
    "nothing is made of what comes after the end of the channel, be it the rest of the message that took too long") {
  begun_message begun(20ms);
  auto& [limits, loop, c, frame] = begun;
  c->channel->tick(loop.next + limits.frame_time, 1s);
  REQUIRE(c->channel->closed());
  c->say(ipc::byte_span(frame).subspan(5));
  CHECK(c->channel->tick(loop.next + 2 * limits.frame_time, 1s).next == ipc::never);
  CHECK(c->seen.messages.empty());
  CHECK(c->seen.closed == 1);
}

TEST_CASE("a message is not too slow for what came while its reader was stopped") {
  ipc::limits limits;
  limits.frame_time = 20ms;
  idle_loop loop;
  connection c(limits, 0, &loop);
  const auto stopped = [&] {
    while (ipc::clock::now() <= loop.next) std::this_thread::yield();
  };
  SECTION("its end") {
    const bytes_t frame = vector_named("event");
    c.say({frame.data(), 5});
    c.channel->on_event(true, false);
    stopped();
    c.say(ipc::byte_span(frame).subspan(5));
    c.channel->tick(ipc::clock::now(), 1s);
    CHECK_FALSE(c.channel->closed());
    CHECK(c.seen.messages.size() == 1);
  }
  SECTION("as much of it as there was room for: it has as much time once more") {
    c.say(bytes_t{0x93, 0x02, 0xa1, 'n', 0x91, 0xc6, 0, 0xf0, 0, 0});  // [2, "n", [15 MiB of bytes
    c.channel->on_event(true, false);
    stopped();
    c.say(bytes_t(std::size_t{64} << 10));
    loop.next = c.channel->tick(ipc::clock::now(), 1s).next;
    CHECK_FALSE(c.channel->closed());
    REQUIRE(loop.next != ipc::never);
    stopped();
    c.say(bytes_t(1));
    c.channel->tick(ipc::clock::now(), 1s);
    CHECK(c.channel->closed());
    CHECK(c.seen.violation.find("frame time limit") != std::string::npos);
  }
}

TEST_CASE("a call given up and never answered is overdue after the grace") {
  idle_loop loop;
  connection c({}, 0, &loop);
  ipc::waiter waiter;
  const auto mine = c.channel->start(request("m"), {}, ipc::never, &waiter, nullptr);
  REQUIRE(c.channel->abandon(mine.id, outcome::timeout, "late"));
  const auto now = ipc::clock::now();
  const auto soon = c.channel->tick(now, 1s);
  CHECK_FALSE(soon.overdue);
  CHECK(soon.next <= now + 1s);
  CHECK(c.channel->tick(now + 1s, 1s).overdue);
}

TEST_CASE("a call given up behind as many as the peer runs at once has its grace when it has its turn") {
  idle_loop loop;
  connection c({}, 0, &loop);
  const unsigned at_once = GENERATE(1u, 2u);
  std::deque<ipc::waiter> running;  // one that takes long, the others are answered soon
  std::vector<std::uint32_t> ids;
  for (unsigned i = 0; i <= at_once; ++i)
    ids.push_back(c.channel->start(request("m"), {}, ipc::never, &running.emplace_back(), nullptr).id);
  REQUIRE(c.channel->abandon(ids.back(), outcome::timeout, "late"));
  auto now = ipc::clock::now();
  for (int i = 0; i < 5; ++i, now += 1s) {
    const auto tick = c.channel->tick(now, 1s, at_once);
    CHECK_FALSE(tick.overdue);
    CHECK(tick.next <= now + 1s);
  }
  c.say(answer(ids.front(), 1));
  c.channel->on_event(true, false);
  CHECK_FALSE(c.channel->tick(now, 1s, at_once).overdue);
  CHECK_FALSE(c.channel->tick(now + 999ms, 1s, at_once).overdue);
  CHECK(c.channel->tick(now + 1s, 1s, at_once).overdue);
}

TEST_CASE("a call that the peer went past is no excuse for those behind it, though it is not answered yet") {
  idle_loop loop;
  connection c({}, 0, &loop);
  ipc::waiter long_one, next, call;
  c.channel->start(request("m"), {}, ipc::never, &long_one, nullptr);
  const auto answered = c.channel->start(request("m"), {}, ipc::never, &next, nullptr);
  const auto mine = c.channel->start(request("m"), {}, ipc::never, &call, nullptr);
  c.say(answer(answered.id, 1));
  c.channel->on_event(true, false);
  REQUIRE(c.channel->abandon(mine.id, outcome::timeout, "late"));
  const auto now = ipc::clock::now();
  CHECK_FALSE(c.channel->tick(now, 1s).overdue);
  CHECK(c.channel->tick(now + 1s, 1s).overdue == mine.id);
}

TEST_CASE("what the protocol asks of a peer that hangs is no excuse for the calls behind it") {
  idle_loop loop;
  connection c({}, 0, &loop);
  ipc::waiter ping, call;
  c.channel->start(request("$/ping"), {}, ipc::never, &ping, nullptr);
  const auto mine = c.channel->start(request("m"), {}, ipc::never, &call, nullptr);
  REQUIRE(c.channel->abandon(mine.id, outcome::timeout, "late"));
  const auto now = ipc::clock::now();
  CHECK_FALSE(c.channel->tick(now, 1s).overdue);
  CHECK(c.channel->tick(now + 1s, 1s).overdue);
}

TEST_CASE("calls and frames past the limits are refused before anything is sent") {
  ipc::limits limits;
  limits.frame = 1000;
  limits.handles = 2;
  connection c(limits);
  ipc::waiter waiter;
  auto handles = [](std::size_t count) {
    std::vector<unique_fd> made;
    for (std::size_t i = 0; i < count; ++i) made.emplace_back(::eventfd(0, 0));
    return made;
  };
  CHECK(c.channel->start(bytes_t(1001, 0x90), {}, ipc::never, &waiter, nullptr).code == outcome::rejected);
  CHECK(c.channel->start(request("m"), handles(3), ipc::never, &waiter, nullptr).code == outcome::rejected);
  limits.handles = 1000;  // more than the system passes at once
  connection generous(limits);
  CHECK(generous.channel->start(request("m"), handles(17), ipc::never, &waiter, nullptr).code == outcome::rejected);
  std::uint8_t byte = 0;
  CHECK(::recv(c.peer.get(), &byte, 1, MSG_DONTWAIT) < 0);
}

TEST_CASE("descriptors that no message names, or that nobody asked for, are never kept") {
  const unique_fd event(::eventfd(0, 0));
  const auto before = open_descriptors();
  SECTION("a host takes none") {
    connection c;
    for (int i = 0; i < 50; ++i) {
      c.say(vector_named("log"), {event.get(), event.get(), event.get()});
      c.channel->poll();
    }
    CHECK(c.seen.messages.size() == 50);
    CHECK(open_descriptors() <= before + 3);
  }
  SECTION("a message that names a descriptor which did not come is a violation") {
    connection c({}, 16);
    c.say(vector_named("call_with_handle"));
    c.until_closed();
    CHECK(c.seen.violation.find("descriptors") != std::string::npos);
  }
  CHECK(open_descriptors() == before);
}

TEST_CASE("a message brings as many descriptors as the channel takes, and not one more") {
  const unsigned most = GENERATE(1u, 2u, 3u, 15u);
  const unique_fd event(::eventfd(0, 0));
  connection c({}, most);
  c.say(vector_named("log"), std::vector<int>(most, event.get()));
  c.channel->poll();
  CHECK(c.seen.messages.size() == 1);
  CHECK_FALSE(c.channel->closed());
  c.say(vector_named("log"), std::vector<int>(most + 1, event.get()));
  c.channel->poll();
  CHECK(c.seen.violation.find("more file descriptors") != std::string::npos);
  CHECK(c.seen.messages.size() == 1);
}

TEST_CASE("large messages both ways at once do not block each other") {
  auto [left, right] = ipc::socket_transport::make_pair();
  recorder a_seen, b_seen;
  ipc::channel a(std::make_unique<ipc::socket_transport>(std::move(left)), {}, a_seen, nullptr);
  ipc::channel b(std::make_unique<ipc::socket_transport>(std::move(right)), {}, b_seen, nullptr);
  auto note = [] {
    ipc::buffer out = ipc::begin_notification("n");
    ipc::packer(out).pack_array(1).pack(std::string(4 << 20, 'x'));
    return out.take();
  };
  auto reader = [](ipc::channel& channel, recorder& seen) {
    return channel.run([&] { return seen.messages.size() == 4; }, ipc::clock::now() + 20s);
  };
  std::thread read_a([&] { reader(a, a_seen); }), read_b([&] { reader(b, b_seen); });
  std::thread write_a([&] {
    for (int i = 0; i < 4; ++i) a.send(note());
  });
  for (int i = 0; i < 4; ++i) b.send(note());
  write_a.join();
  read_a.join();
  read_b.join();
  CHECK(a_seen.messages.size() == 4);
  CHECK(b_seen.messages.size() == 4);
}

}  // namespace bulkhead::testing
