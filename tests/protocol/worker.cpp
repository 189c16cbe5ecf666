// bulkhead-worker as any parent may start it: by exec, with a channel in its environment.
#include "connection.hpp"

#include <csignal>

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>

namespace bulkhead::testing {
namespace {

// The worker's process, ended with the test.
struct started_worker {
  pid_t pid = -1;
  unique_fd channel;

  explicit started_worker(const std::string& plugin, std::vector<std::string> environment = {},
                          const std::string& preload = "") {
    int pair[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    channel.reset(pair[0]);
    ::fcntl(pair[0], F_SETFD, FD_CLOEXEC);
    if (environment.empty()) environment = {"BULKHEAD_CHANNEL_FD=" + std::to_string(pair[1]), "BULKHEAD_PROTOCOL=1"};
    if (!preload.empty()) environment.push_back("LD_PRELOAD=" + preload);
    std::vector<char*> envp;
    for (auto& entry : environment) envp.push_back(entry.data());
    envp.push_back(nullptr);
    std::string program = BULKHEAD_TEST_PROGRAMS "/bulkhead-worker", file = plugin;
    char* argv[] = {program.data(), file.data(), nullptr};
    REQUIRE(::posix_spawn(&pid, program.c_str(), nullptr, nullptr, argv, envp.data()) == 0);
    ::close(pair[1]);
  }
  ~started_worker() {
    if (pid > 0) {
      ::kill(pid, SIGKILL);
      wait();
    }
  }
  int wait() {
    int status = 0;
    ::waitpid(std::exchange(pid, -1), &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
  }
  void say(const bytes_t& bytes) { REQUIRE(::send(channel.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL) > 0); }
  bytes_t hear() {
    bytes_t frame;
    ipc::scanner scan;
    for (std::uint8_t byte = 0;;) {
      REQUIRE(::recv(channel.get(), &byte, 1, 0) == 1);
      frame.push_back(byte);
      std::size_t used = 0;
      if (scan.feed({&byte, 1}, used) == ipc::scanner::status::complete) return frame;
    }
  }
};

const std::string echo = BULKHEAD_TEST_PLUGINS "/echo.so";

}  // namespace

TEST_CASE("a worker started by any parent speaks as the page says") {
  started_worker worker(echo);
  worker.say(vector_named("hello"));
  const bytes_t hello = worker.hear();
  const auto greeted = ipc::parse_message(hello);
  REQUIRE(greeted);
  CHECK(greeted->id == 0);
  CHECK(ipc::unpack(greeted->result).get().as<std::map<std::string, msgpack::object>>().at("protocol").as<int>() == 1);

  const bytes_t ready = worker.hear();
  CHECK(ipc::parse_message(ready)->method == "$/ready");

  worker.say(vector_named("ping"));
  CHECK(worker.hear() == vector_named("answer_nil"));

  bytes_t add = request("add", value(std::vector<int>{1, 2}));
  ipc::set_request_id(add, 4294967295u);
  worker.say(add);
  CHECK(worker.hear() == answer(4294967295u, 3));

  bytes_t later = request("$/later");
  ipc::set_request_id(later, 11);
  worker.say(later);
  CHECK(worker.hear() == vector_named("unknown_request"));

  bytes_t unknown = ipc::begin_notification("$/unheard-of").take();
  unknown.push_back(0x90);
  worker.say(unknown);  // ignored
  worker.say(vector_named("drain"));
  CHECK(ipc::parse_message(worker.hear())->id == 10);
  worker.say(vector_named("shutdown"));
  CHECK(worker.wait() == 0);
}

TEST_CASE("a worker sends no event while those that are not acknowledged have as many bytes as a message may have") {
  started_worker worker(BULKHEAD_TEST_PLUGINS "/chaos.so");
  ipc::buffer hello = ipc::begin_request("$/hello");
  ipc::packer(hello).pack_array(1).pack_map(3).pack("protocol").pack(1).pack("event_credit").pack(1024);
  ipc::packer(hello).pack("frame_limit").pack(4096);
  worker.say(hello.take());
  worker.hear();
  worker.hear();
  constexpr std::size_t before = 3, all = 12;  // of 2,000 bytes
  bytes_t emit = request("emit", value(std::tuple(std::string("e"), std::string(2000, 'x'), all)));
  ipc::set_request_id(emit, 1);
  worker.say(emit);
  for (std::size_t heard = 1; heard <= all; ++heard) {
    CHECK(ipc::parse_message(worker.hear())->method == "$/event");
    if (heard < before) continue;
    pollfd more{worker.channel.get(), POLLIN, 0};
    if (heard < all) CHECK(::poll(&more, 1, 0) == 0);
    ipc::buffer credit = ipc::begin_notification("$/credit");
    ipc::packer(credit).pack_array(1).pack(1);
    worker.say(credit.take());
  }
  CHECK(worker.hear() == bytes_t{0x94, 0x01, 0x01, 0xc0, 0xc0});
}

TEST_CASE("a worker leaves when its channel ends") {
  started_worker worker(echo);
  worker.say(vector_named("hello"));
  worker.hear();
  worker.channel.reset();
  CHECK(worker.wait() == 0);
}

TEST_CASE("a worker says why it can't start before it leaves") {
  started_worker worker("/dev/null");
  worker.say(vector_named("hello"));
  worker.hear();
  const bytes_t leaving = worker.hear();
  const auto said = ipc::parse_message(leaving);
  REQUIRE(said);
  CHECK(said->method == "$/leaving");
  CHECK(worker.wait() == 1);
}

TEST_CASE("a worker without a channel, or with a protocol it does not know, says so and exits with 64") {
  const auto environment = GENERATE(values<std::vector<std::string>>({{"NOTHING=1"},
                                                                      {"BULKHEAD_CHANNEL_FD=77", "BULKHEAD_PROTOCOL=1"},
                                                                      {"BULKHEAD_CHANNEL_FD=x", "BULKHEAD_PROTOCOL=1"},
                                                                      {"BULKHEAD_CHANNEL_FD=0", "BULKHEAD_PROTOCOL=2"},
                                                                      {"BULKHEAD_CHANNEL_FD=0"}}));
  started_worker worker(echo, environment);
  CHECK(worker.wait() == 64);
}

#ifdef BULKHEAD_COUNTED_MALLOC
// Of a method whose parameters are of plain types; others take what msgpack-c needs to unpack into objects.
TEST_CASE("a worker allocates nothing for a call once it is warm") {
  started_worker worker(BULKHEAD_TEST_PLUGINS "/counting.so", {}, BULKHEAD_COUNTED_MALLOC);
  worker.say(vector_named("hello"));
  worker.hear();
  worker.hear();
  std::uint32_t id = 0;
  const auto call = [&](const std::string& method, const auto& arguments) {
    bytes_t frame = request(method, value(arguments));
    ipc::set_request_id(frame, ++id);
    ipc::buffer deadline = ipc::begin_notification("$/deadline");
    ipc::packer(deadline).pack_array(2).pack(id).pack(20'000);
    worker.say(deadline.take());
    worker.say(frame);
    const bytes_t answered = worker.hear();
    const auto parsed = ipc::parse_message(answered);
    REQUIRE(parsed->error[0] == 0xc0);
    return bytes_t(parsed->result.begin(), parsed->result.end());
  };
  const auto allocations = [&] {
    return ipc::unpack(call("allocations", std::vector<int>())).get().as<std::uint64_t>();
  };
  const auto some = [&](int calls) {
    const std::uint64_t before = allocations();
    for (int i = 0; i < calls; ++i) {
      CHECK(call("add", std::vector{i % 50, 7}) == value(i % 50 + 7));
      CHECK(call("add_by_a_name_of_some_length", std::vector{i % 50, 7}) == value(i % 50 + 7));
      call("text", std::tuple(std::string("sixteen bytes..."), 0.5));
    }
    return allocations() - before;
  };
  CHECK(some(100) > 0);
  CHECK(some(100) == 0);
}
#endif

}  // namespace bulkhead::testing
