// The doorbells of lanes: who rings whom and when, bells that are missed, and those that ring for nothing.
#include "connection.hpp"
#include "lane_pair.hpp"

#include <thread>

namespace bulkhead::testing {
namespace {

using io = ipc::transport::io;

}  // namespace

TEST_CASE("a peer that rings more often than it was asked, or says anything on the socket, is found out") {
  lane_pair pair;
  auto host = pair.host();
  SECTION("unasked") {
    const std::uint8_t bell = 0xc0;
    REQUIRE(::send(pair.worker_socket, &bell, 1, 0) == 1);
  }
  SECTION("twice for one time it was asked") {
    CHECK(host->watch(true, false).in);
    REQUIRE(::send(pair.worker_socket, "\xc0\xc0", 2, 0) == 2);
  }
  SECTION("something else") {
    CHECK(host->watch(true, false).in);
    REQUIRE(::send(pair.worker_socket, "\x93", 1, 0) == 1);
  }
  CHECK(read_once(*host, io::violation).empty());
}

TEST_CASE("a peer that rings whenever it is asked, and says nothing, is found out, whoever listens") {
  lane_pair pair;
  const auto host = pair.host(sleepy);
  const auto ring = [&] { return ::send(pair.worker_socket, "\xc0", 1, MSG_NOSIGNAL) == 1; };
  SECTION("an event loop") {
    for (int i = 0; i < 1000 && !host->wait(true, false, {}); ++i) {
      host->watch(true, false);
      REQUIRE(ring());
      host->on_event();
    }
  }
  SECTION("a reader that sleeps") {
    const ipc::lane_memory said(pair.down.get(), false);
    std::jthread peer([&](const std::stop_token& stop) {
      for (std::uint32_t heard = 0; !stop.stop_requested(); std::this_thread::yield()) {
        const std::uint32_t word = said.control().reader_waits;
        if ((word & ipc::lane_wait_mask) == ipc::by_socket && std::exchange(heard, word) != word) ring();
      }
    });
    CHECK(host->wait(true, false, ipc::clock::now() + 10s));
  }
  CHECK(read_once(*host, io::violation).empty());
  CHECK(std::string(host->violation()) == "doorbells with nothing behind them");
}

TEST_CASE("a peer that rings for each byte, and for room each time it has made some, may do so for ever") {
  lane_pair pair;
  const auto host = pair.host();
  const auto worker = pair.worker();
  for (int i = 0; i < 300; ++i) {
    host->watch(true, false);
    REQUIRE(worker->write(bytes_t(1, 7), {}, {}).bytes == 1);
    host->on_event();
    REQUIRE(read_once(*host).size() == 1);
  }
  for (int i = 0; i < 300; ++i) {
    REQUIRE(host->write(bytes_t(lane_pair::ring, 7), {}, {}).bytes == lane_pair::ring);
    CHECK_FALSE(host->watch(false, true).out);
    REQUIRE(read_once(*worker).size() == lane_pair::ring);
    host->on_event();
  }
  CHECK(read_once(*host, io::would_block).empty());
}

TEST_CASE("a reader asleep on a lane is woken by its own side, again and again") {
  lane_pair pair;
  auto host = pair.host(sleepy);
  for (int i = 0; i < 300; ++i) {
    std::jthread waker([&] { host->wake(); });
    REQUIRE(host->wait(true, false, ipc::clock::now() + 20s));
  }
}

TEST_CASE("an event loop is told of bytes that are there, and of those that come") {
  lane_pair pair;
  auto host = pair.host();
  auto worker = pair.worker();
  host->wake();  // which is for those who wait
  CHECK_FALSE(host->watch(true, false).out);
  pollfd socket{host->native_handle(), POLLIN, 0};
  CHECK(::poll(&socket, 1, 0) == 0);
  REQUIRE(worker->write(bytes_t(10, 7), {}, {}).bytes == 10);
  REQUIRE(worker->write(bytes_t(10, 7), {}, {}).bytes == 10);
  CHECK(::poll(&socket, 1, 10'000) == 1);  // once for both
  host->on_event();
  CHECK(::poll(&socket, 1, 0) == 0);
  CHECK(host->watch(true, false).out);
  CHECK(read_once(*host).size() == 20);
}

TEST_CASE("a writer that waits for room in a large ring is rung for once, when half of it is free") {
  constexpr std::size_t size = std::size_t{1} << 20;
  lane_pair pair(size);
  auto host = pair.host();
  auto worker = pair.worker();
  pollfd socket{pair.host_socket, POLLIN, 0};
  bytes_t chunk(64 << 10);
  std::vector<unique_fd> handles;
  for (int round = 0; round < 2; ++round) {
    REQUIRE(host->write(bytes_t(size, 7), {}, {}).bytes == size);
    REQUIRE(host->write(bytes_t(size, 7), {}, {}).status == io::would_block);
    CHECK_FALSE(host->watch(false, true).out);
    std::size_t rung_at = 0;
    for (std::size_t taken = 0; taken < size;) {
      const auto got = worker->read(chunk, handles, false);
      REQUIRE(got.status == io::ok);
      taken += got.bytes;
      if (rung_at == 0 && ::poll(&socket, 1, 0) == 1) rung_at = taken;
    }
    CHECK(rung_at == size / 2 + chunk.size());
    CHECK(::recv(pair.host_socket, chunk.data(), chunk.size(), MSG_PEEK | MSG_DONTWAIT) == 1);
    host->on_event();
    CHECK(host->watch(false, true).out);
    host->watch(false, false);
  }
}

TEST_CASE("a peer that sleeps already is woken by what is written, before it is flushed") {
  lane_pair pair;
  const auto host = pair.host();
  const ipc::lane_memory said(pair.down.get(), false);
  pollfd doorbell{pair.worker_socket, POLLIN, 0};
  const auto how = GENERATE(ipc::by_futex, ipc::by_socket);
  pair.scribbled.control().reader_waits = ipc::lane_wait_mask + 1 | how;
  REQUIRE(host->write(bytes_t(10, 7), {}, {}).bytes == 10);
  CHECK(said.control().bell == (how == ipc::by_futex ? 1 : 0));
  CHECK(::poll(&doorbell, 1, 0) == (how == ipc::by_socket ? 1 : 0));
}

TEST_CASE("a peer that fell asleep after something was written is woken when that is flushed, once") {
  lane_pair pair;
  const auto host = pair.host();
  const ipc::lane_memory said(pair.down.get(), false);
  const auto& bell = said.control().bell;
  std::uint32_t sleeps = 0;
  const auto sleep = [&] {
    pair.scribbled.control().reader_waits = ++sleeps * (ipc::lane_wait_mask + 1) | ipc::by_futex;
  };
  const auto write = [&] { REQUIRE(host->write(bytes_t(10, 7), {}, {}).bytes == 10); };
  write();
  write();
  sleep();
  CHECK(bell == 0);
  host->flush();
  CHECK(bell == 1);
  write();  // it was woken and has not said yet that it is awake
  CHECK(bell == 1);
  sleep();
  host->flush();
  CHECK(bell == 2);
  sleep();
  host->flush();  // nothing was written since
  CHECK(bell == 2);
}

TEST_CASE("a reader asleep at its socket looks once more, so a bell that was missed costs little") {
  bool noticed = false;
  for (int i = 0; i < 5 && !noticed; ++i) {  // it is not in time if this thread gets no CPU for long
    lane_pair pair;
    const auto host = pair.host(sleepy);
    const ipc::lane_memory said(pair.down.get(), false);
    std::jthread missed([&] {
      const auto limit = ipc::clock::now() + 2s;
      const auto word = [&] { return said.control().reader_waits.load(); };
      while ((word() & ipc::lane_wait_mask) != ipc::by_socket && ipc::clock::now() < limit) std::this_thread::yield();
      ::poll(nullptr, 0, 2);  // it has looked after it said so
      pair.scribbled.ring()[0] = 7;
      pair.scribbled.control().tail = 1;
    });
    const auto begun = ipc::clock::now();
    noticed = host->wait(true, false, begun + 4s) && ipc::clock::now() - begun < 2s;
  }
  CHECK(noticed);
}

struct counted_end final : ipc::async_completion {
  explicit counted_end(int& count) : ended(count) {}
  void complete(ipc::completion&&) override { ++ended; }
  int& ended;
};

// A channel on an event loop that does nothing by itself, and the peer that answers its calls.
struct looping {
  lane_pair pair;
  idle_loop loop;
  recorder seen;
  std::unique_ptr<ipc::transport> worker = pair.worker();
  int ended = 0;  // calls
  ipc::channel channel;

  explicit looping(const ipc::lane_options& options = {.spin = 10ms}) : channel(pair.host(options), {}, seen, &loop) {
    channel.open();
  }
  std::uint32_t call() {
    std::unique_ptr<ipc::async_completion> end = std::make_unique<counted_end>(ended);
    const auto started = channel.start(request("m"), {}, ipc::never, nullptr, &end);
    REQUIRE(started.code == outcome::ok);
    return started.id;
  }
  void event() {
    loop.armed = false;  // once
    channel.on_event(true, false);
  }
};

TEST_CASE("while answers keep coming the event loop looks again and the peer need not ring") {
  const bool spins = GENERATE(true, false);
  looping host(spins ? ipc::lane_options{.spin = 10ms} : sleepy);
  auto& [pair, loop, seen, worker, ended, channel] = host;
  REQUIRE(loop.armed);
  const auto first = host.call(), second = host.call();
  REQUIRE(worker->write(answer(first, 1), {}, {}).status == io::ok);
  pollfd socket{pair.host_socket, POLLIN, 0};
  REQUIRE(::poll(&socket, 1, 10'000) == 1);  // it was asked to ring
  host.event();
  CHECK(ended == 1);
  CHECK(loop.armed == !spins);
  CHECK(loop.looks == (spins ? 1 : 0));
  if (!spins) return;
  REQUIRE(worker->write(answer(second, 1), {}, {}).status == io::ok);
  CHECK(::poll(&socket, 1, 0) == 0);
  const auto third = host.call();
  channel.look_again();
  CHECK(ended == 2);
  CHECK_FALSE(loop.armed);
  while (!loop.armed) channel.look_again();  // nothing comes for longer than it is worth
  REQUIRE(worker->write(answer(third, 1), {}, {}).status == io::ok);
  REQUIRE(::poll(&socket, 1, 10'000) == 1);
  host.event();
  CHECK(ended == 3);
  CHECK(loop.armed);  // no call is open
}

TEST_CASE("calls are flushed together by an event loop that looks again, but at once where a thread waits") {
  looping host;
  auto& [pair, loop, seen, worker, ended, channel] = host;
  const ipc::lane_memory said(pair.down.get(), false);
  const auto first = host.call();
  host.call();
  REQUIRE(worker->write(answer(first, 1), {}, {}).status == io::ok);
  host.event();
  REQUIRE(loop.looks == 1);
  const bool waits = GENERATE(false, true);
  ipc::waiter waiter;
  host.call();
  if (waits) REQUIRE(channel.start(request("m"), {}, ipc::never, &waiter, nullptr).code == outcome::ok);
  pair.scribbled.control().reader_waits = ipc::lane_wait_mask + 1 | ipc::by_futex;  // it has not seen them
  CHECK(said.control().bell == 0);
  channel.look_again();
  CHECK(said.control().bell == (waits ? 0 : 1));
}

TEST_CASE("a thread that waits reads in the place of an event loop that meant to look again") {
  looping host;
  auto& [pair, loop, seen, worker, ended, channel] = host;
  const auto first = host.call(), second = host.call();
  REQUIRE(worker->write(answer(first, 1), {}, {}).status == io::ok);
  host.event();
  REQUIRE(loop.looks == 1);
  ipc::waiter waiter;
  const auto mine = channel.start(request("m"), {}, ipc::never, &waiter, nullptr);
  REQUIRE(worker->write(answer(mine.id, 7), {}, {}).status == io::ok);
  REQUIRE(channel.wait(waiter, ipc::clock::now() + 10s) == ipc::channel::wait_result::done);
  REQUIRE(worker->write(answer(second, 1), {}, {}).status == io::ok);
  for (int i = 0; i < 1000 && ended < 2 && !loop.armed; ++i) channel.look_again();
  if (loop.armed) host.event();
  CHECK(ended == 2);
}

}  // namespace bulkhead::testing
