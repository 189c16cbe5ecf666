// Lanes: the same bytes in shared memory, and what a hostile peer can do to them.
#include "connection.hpp"
#include "lane_pair.hpp"

#include <random>
#include <thread>

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

namespace bulkhead::testing {
namespace {

using io = ipc::transport::io;

// A channel on the host's end, and a peer on a thread that answers each request with its own parameters.
struct echoed {
  lane_pair pair;
  recorder seen;
  ipc::channel channel;
  std::thread peer;

  explicit echoed(const ipc::lane_options& options, int calls) : channel(pair.host(options), {}, seen, nullptr) {
    peer = std::thread([this, calls, end = pair.worker(options)]() mutable {
      struct echo final : ipc::channel::receiver {
        ipc::channel* to = nullptr;
        int left = 0;
        void on_request(const ipc::message& request, std::vector<unique_fd>) override {
          to->send(ipc::make_response(request.id, request.params).take());
          --left;
        }
        void on_notification(const ipc::message&, std::vector<unique_fd>) override {}
        void on_closed(const std::string&) override {}
      } echo;
      ipc::channel mine(std::move(end), {}, echo, nullptr);
      echo.to = &mine;
      echo.left = calls;
      mine.run([&] { return echo.left == 0; });
    });
  }
  ~echoed() { peer.join(); }

  bool call(const bytes_t& argument) {
    ipc::waiter waiter;
    const auto started =
        channel.start(request("echo", value(std::vector<bytes_t>{argument})), {}, ipc::never, &waiter, nullptr);
    return started.code == outcome::ok &&
           channel.wait(waiter, ipc::clock::now() + 60s) == ipc::channel::wait_result::done &&
           ipc::unpack(waiter.result.result()).get().as<std::vector<bytes_t>>().at(0) == argument;
  }
};

bool shared_writable(int fd) {
  void* const mapped = ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (mapped != MAP_FAILED) ::munmap(mapped, 4096);
  return mapped != MAP_FAILED;
}

std::uint64_t count_of(const unique_fd& event) {
  std::uint64_t count = 0;
  CHECK(::read(event.get(), &count, sizeof count) == sizeof count);
  return count;
}

// A descriptor, several times, as it goes ahead of the message in the ring.
void send_ahead(int socket, int fd, std::size_t times) {
  const std::vector<int> all(times, fd);
  ipc::socket_transport out{unique_fd(::dup(socket))};
  REQUIRE(out.write(bytes_t{0xc0}, {}, all).status == io::ok);
}

}  // namespace

TEST_CASE("messages smaller and larger than the ring cross a lane unharmed, spinning or asleep") {
  const auto options = GENERATE(ipc::lane_options{}, sleepy);
  constexpr int rounds = 40;
  echoed lane(options, rounds * 4);
  std::mt19937 random(1);
  for (int i = 0; i < rounds; ++i)
    for (const std::size_t size : {std::size_t{0}, std::size_t{16}, std::size_t{4000} + i, std::size_t{50'000}}) {
      bytes_t data(size);
      for (auto& each : data) each = static_cast<std::uint8_t>(random());
      REQUIRE(lane.call(data));
    }
}

TEST_CASE("several threads call over one lane and each gets its own answers") {
  constexpr int threads = 4, calls = 200;
  echoed lane(GENERATE(ipc::lane_options{}, sleepy), threads * calls);
  std::atomic<int> wrong{0};
  {
    std::vector<std::jthread> callers;
    for (int t = 0; t < threads; ++t)
      callers.emplace_back([&, t] {
        for (int i = 0; i < calls; ++i) wrong += !lane.call(value(t * calls + i));
      });
  }
  CHECK(wrong == 0);
}

TEST_CASE("descriptors go by the socket and arrive with the message in the ring that names them") {
  lane_pair pair;
  recorder seen;
  auto worker = pair.worker();
  ipc::channel channel(pair.host({}, 16), {}, seen, nullptr);
  const unique_fd one(::eventfd(1, 0)), two(::eventfd(2, 0)), three(::eventfd(3, 0));
  const int both[] = {one.get(), two.get()}, last[] = {three.get()};
  REQUIRE(worker->write(vector_named("call"), {}, {}).status == io::ok);
  REQUIRE(worker->write(vector_named("call_with_two_handles"), {}, both).status == io::ok);
  REQUIRE(worker->write(vector_named("call"), {}, {}).status == io::ok);
  REQUIRE(worker->write(vector_named("call_with_handle"), {}, last).status == io::ok);
  channel.run([&] { return seen.messages.size() == 4; }, ipc::clock::now() + 10s);
  REQUIRE(seen.messages.size() == 4);
  REQUIRE(seen.messages[1].handles.size() == 2);
  CHECK(count_of(seen.messages[1].handles[0]) == 1);
  CHECK(count_of(seen.messages[1].handles[1]) == 2);
  REQUIRE(seen.messages[3].handles.size() == 1);
  CHECK(count_of(seen.messages[3].handles[0]) == 3);
}

TEST_CASE("one that waits hears its answer though the socket is full of descriptors that its peer does not take") {
  lane_pair pair;
  idle_loop loop;
  recorder seen;
  auto worker = pair.worker();
  ipc::channel channel(pair.host(sleepy), {}, seen, &loop);
  const int least = 0;
  REQUIRE(::setsockopt(pair.host_socket, SOL_SOCKET, SO_SNDBUF, &least, sizeof least) == 0);
  while (channel.unsent() == 0) {
    std::vector<unique_fd> handles;
    handles.emplace_back(::eventfd(0, 0));
    REQUIRE(channel.send(vector_named("call_with_handle"), std::move(handles)));
  }
  ipc::waiter waiter;
  const auto mine = channel.start(request("m"), {}, ipc::never, &waiter, nullptr);
  REQUIRE(mine.code == outcome::ok);
  const bool asleep = GENERATE(false, true);
  const ipc::lane_memory said(pair.down.get(), false);
  const auto reply = [&] { worker->write(answer(mine.id, 7), {}, {}); };
  std::jthread peer;
  if (!asleep) reply();
  else
    peer = std::jthread([&](const std::stop_token& stop) {
      while (said.control().reader_waits == 0 && !stop.stop_requested()) std::this_thread::yield();
      reply();
    });
  CHECK(channel.wait(waiter, ipc::clock::now() + 10s) == ipc::channel::wait_result::done);
  CHECK(channel.unsent() > 0);
  peer.request_stop();
}

TEST_CASE("a message's descriptors may come while the message before it is read") {
  lane_pair pair;
  idle_loop loop;
  recorder seen;
  auto worker = pair.worker();
  ipc::channel channel(pair.host({}, 16), {}, seen, &loop);
  channel.open();
  const unique_fd one(::eventfd(1, 0)), two(::eventfd(2, 0));
  const int first[] = {one.get()};
  REQUIRE(worker->write(vector_named("call_with_handle"), {}, first).status == io::ok);
  send_ahead(pair.worker_socket, two.get(), 1);
  channel.poll();
  CHECK(seen.messages.size() == 1);
  REQUIRE(worker->write(vector_named("call_with_handle"), {}, {}).status == io::ok);
  channel.poll();
  CHECK(seen.violation.empty());
  REQUIRE(seen.messages.size() == 2);
  for (std::uint64_t i = 0; i < 2; ++i) {
    REQUIRE(seen.messages[i].handles.size() == 1);
    CHECK(count_of(seen.messages[i].handles[0]) == i + 1);
  }
}

TEST_CASE("a peer that sends descriptors and no message that takes them is found out, whoever looks") {
  lane_pair pair;
  auto host = pair.host(sleepy, 16);
  const unique_fd file(::eventfd(0, 0));
  const int times = GENERATE(2, 5, 20);  // a few, and more than are taken in at a time
  for (int i = 0; i < times; ++i) send_ahead(pair.worker_socket, file.get(), 16);
  SECTION("a reader that sleeps") { CHECK(host->wait(true, false, ipc::clock::now() + 10s)); }
  SECTION("one that reads") {}
  SECTION("an event loop") { host->on_event(); }
  CHECK(read_once(*host, io::violation).empty());
  CHECK(std::string(host->violation()).find("descriptors that no message refers to") != std::string::npos);
}

TEST_CASE("descriptors of many messages that wait in the ring, and of one that is yet to come, are no violation") {
  lane_pair pair;
  recorder seen;
  auto worker = pair.worker();
  ipc::channel channel(pair.host({}, 16), {}, seen, nullptr);
  const unique_fd file(::eventfd(0, 0));
  const int handles[] = {file.get()};
  constexpr std::size_t messages = 50;
  for (std::size_t i = 0; i < messages; ++i)
    REQUIRE(worker->write(vector_named("call_with_handle"), {}, handles).status == io::ok);
  send_ahead(pair.worker_socket, file.get(), 16);
  channel.run([&] { return seen.messages.size() == messages; }, ipc::clock::now() + 10s);
  channel.poll();
  CHECK(seen.messages.size() == messages);
  CHECK_FALSE(channel.closed());
  CHECK(seen.violation.empty());
  CHECK(channel.take_leftover_handles().size() == 16);
}

TEST_CASE("a cursor that makes no sense ends the lane and moves no byte") {
  lane_pair pair;
  auto& theirs = pair.scribbled.control();
  auto host = pair.host();
  auto worker = pair.worker();
  REQUIRE(worker->write(bytes_t(100, 1), {}, {}).bytes == 100);
  REQUIRE(read_once(*host).size() == 100);
  REQUIRE(host->write(bytes_t(200, 2), {}, {}).bytes == 200);
  SECTION("it has written more than the ring holds") { theirs.tail = 100 + lane_pair::ring + 1; }
  SECTION("it has written less than before") { theirs.tail = 99; }
  SECTION("it has written the other way round") { theirs.tail = 0x80000000u; }
  SECTION("it has read more than was written") {
    theirs.head = 201;
    CHECK(host->write(bytes_t(lane_pair::ring, 3), {}, {}).status == io::closed);
  }
  SECTION("it has read less than before") {
    REQUIRE(read_once(*worker).size() == 200);
    REQUIRE(host->write(bytes_t(lane_pair::ring, 3), {}, {}).bytes == lane_pair::ring);
    theirs.head = 199;
    CHECK(host->write(bytes_t(1, 3), {}, {}).status == io::closed);
  }
  CHECK(host->wait(true, false, ipc::clock::now() + 10s));
  CHECK(read_once(*host, io::violation).empty());
  CHECK(std::string(host->violation()).find("cursor") != std::string::npos);
}

TEST_CASE("what was sent before the end of the peer arrives, then the end") {
  lane_pair pair;
  auto host = pair.host();
  {
    auto worker = pair.worker();
    REQUIRE(worker->write(bytes_t(10, 7), {}, {}).bytes == 10);
  }
  CHECK(read_once(*host).size() == 10);
  CHECK(host->wait(true, false, ipc::clock::now() + 10s));
  read_once(*host, io::closed);
}

TEST_CASE("a lane's memory can't be resized, punched or mapped for writing once it is sealed") {
  const unique_fd fd = ipc::lane_memory::make(4096);
  CHECK_FALSE(ipc::lane_memory::sealed(fd.get()));
  CHECK(::ftruncate(fd.get(), 4096) != 0);
  CHECK(shared_writable(fd.get()));
  const ipc::lane_memory before(fd.get(), true);
  ipc::lane_memory::seal(fd.get());
  CHECK(ipc::lane_memory::sealed(fd.get()));
  CHECK_FALSE(shared_writable(fd.get()));
  CHECK(::fallocate(fd.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, 4096) != 0);
  CHECK(::pwrite(fd.get(), "x", 1, 0) != 1);
  const ipc::lane_memory reading(fd.get(), false);
  CHECK(::mprotect(&reading.control(), 4096, PROT_READ | PROT_WRITE) != 0);
  CHECK(::madvise(&before.control(), 4096, MADV_REMOVE) != 0);
  before.control().tail = 7;
  CHECK(reading.control().tail == 7);
}

TEST_CASE("a ring's size is a power of two within its limits") {
  const std::size_t size = GENERATE(0, 1, 2048, 4097, 3 << 12, (16 << 20) + 1, 32 << 20);
  CHECK_THROWS_AS(ipc::lane_memory::make(size), std::invalid_argument);
}

// Whatever the memory holds while it is read, the host's end neither crashes nor hangs, and what it passes on is whole
// messages or the end. BULKHEAD_SCRIBBLE_SECONDS=N goes on for so long (default 1).
TEST_CASE("a peer that scribbles over all of its memory while it is used ends its own lane only", "[scribble]") {
  const char* given = std::getenv("BULKHEAD_SCRIBBLE_SECONDS");
  const auto end = ipc::clock::now() + std::chrono::seconds(given ? std::atoi(given) : 1);
  std::mt19937 random(std::random_device{}());
  const bytes_t valid = vector_named("log"), valid_request = vector_named("host_call");
  std::size_t rounds = 0, messages = 0, violations = 0;
  while (ipc::clock::now() < end) {
    lane_pair pair;
    recorder seen;
    ipc::channel channel(pair.host(ipc::lane_options{.spin = 20us}), {}, seen, nullptr);
    const auto seed = static_cast<unsigned>(random());
    // Cursors are mostly left plausible, for others end the lane at once.
    std::jthread scribbler([&, seed](const std::stop_token& stop) {
      std::mt19937 source(seed);
      const auto mine = [&] { return static_cast<std::uint32_t>(source()); };
      auto& control = pair.scribbled.control();
      std::uint8_t* const bytes = pair.scribbled.ring();
      const bool wild = mine() % 4 == 0;
      for (std::uint32_t i = 0; i < 4000 && !stop.stop_requested(); ++i) {
        const bytes_t& message = mine() % 2 ? valid : valid_request;
        for (std::size_t j = 0; j < message.size(); ++j) bytes[(control.tail + j) % lane_pair::ring] = message[j];
        if (mine() % 8 == 0) bytes[mine() % lane_pair::ring] = static_cast<std::uint8_t>(mine());
        control.tail += static_cast<std::uint32_t>(message.size());
        control.bell += 1;
        if (mine() % 16 == 0) control.head += mine() % 64;
        if (mine() % 4 == 0) control.reader_waits = mine();
        if (mine() % 4 == 0) control.writer_waits = mine();
        if (mine() % 4 == 0) control.one_cpu = mine();
        if (wild && mine() % 64 == 0) control.tail = mine();
        if (wild && mine() % 64 == 0) control.head = mine();
        if (mine() % 2048 == 0)
          for (std::size_t j = 0; j < lane_pair::ring; ++j) bytes[j] = static_cast<std::uint8_t>(mine());
        while (!stop.stop_requested() && control.tail - pair.worker_down.control().head > lane_pair::ring / 2)
          std::this_thread::yield();
      }
    });
    const auto limit = ipc::clock::now() + 100ms;
    while (!channel.closed() && ipc::clock::now() < limit) {
      ipc::waiter waiter;
      const auto started = channel.start(request("m"), {}, ipc::never, &waiter, nullptr);
      channel.wait(waiter, ipc::clock::now() + 1ms);
      if (started.code == outcome::ok) channel.abandon(started.id, outcome::timeout, "");
      if (started.code == outcome::overloaded) break;
    }
    scribbler.request_stop();
    scribbler.join();
    channel.fail_all([](const auto&) { return ipc::completion::failed(outcome::worker_lost, ""); });
    ++rounds;
    messages += seen.messages.size();
    violations += !seen.violation.empty();
  }
  CAPTURE(rounds, messages);
  CHECK(messages > 0);
  CHECK(violations > 0);
}

}  // namespace bulkhead::testing
