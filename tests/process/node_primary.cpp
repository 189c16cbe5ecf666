// What Node's own cluster expects of its primary, and what Node expects of a child that it passes sockets to: with real Node.
#include "node_fixture.hpp"

#include <netinet/tcp.h>
#include <sys/stat.h>

using namespace bulkhead;
using namespace bulkhead::testing;
using json = nlohmann::json;

namespace {

// As the kernel has it: tcp_diag(7). Listeners are this process's.
int backlog_of(std::uint16_t port) {
  for (const auto& each : std::filesystem::directory_iterator("/proc/self/fd")) {
    const int fd = std::stoi(each.path().filename());
    tcp_info info{};
    socklen_t size = sizeof info;
    if (classify(fd) == handle_kind::tcp_listener && port_of(fd) == port &&
        ::getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &size) == 0)
      return static_cast<int>(info.tcpi_sacked);
  }
  return -1;
}

}  // namespace

TEST_CASE("a server of a Node parent counts the connections that its child holds, and closes once they are closed") {
  launcher launch;
  const auto done =
      launch.exec_file("node", {scripts + "/sockets_parent.js", program("node_child")}, {.process = {.timeout = 60s}});
  INFO(done.err);
  REQUIRE(!done.error);
  const json result = json::parse(done.out);
  CHECK(result["seen"] == json{3, 2, "not with two", "not with one", "closed", {{"echo", "and you?"}}});
  CHECK(result["signal"] == nullptr);
}

TEST_CASE("the backlog that a worker of Node's cluster asks for is its listener's") {
  launcher launch;
  watched_cluster watched;
  const node_cluster site(launch, cluster_script,
                          watched.options(1, GENERATE(schedule::round_robin, schedule::shared), "backlog"));
  CHECK(backlog_of(watched.port(1)) == 7);
}

TEST_CASE("the first worker of Node's cluster that has data for its server gives them to all others") {
  launcher launch;
  watched_cluster watched;
  node_cluster site(launch, cluster_script,
                    watched.options(1, GENERATE(schedule::round_robin, schedule::shared), "late_data"));
  for (std::size_t workers = 1; workers < 3; ++workers) {
    REQUIRE(watched.seen->listening.wait_for(workers));
    site.reload();
  }
  REQUIRE(watched.seen->messages.wait_for(3));
  CHECK(watched.seen->messages.values() == std::vector<std::pair<unsigned, json>>{{1, {{"data", nullptr}}},
                                                                                  {2, {{"data", {{"from", 2}}}}},
                                                                                  {3, {{"data", {{"from", 2}}}}}});
}

TEST_CASE("a worker of Node's cluster that may not listen keeps the data that it had for its server") {
  launcher launch;
  watched_cluster watched;
  auto options = watched.options(1, schedule::round_robin, "data");
  options.may_listen = [](auto&&...) { return false; };
  const node_cluster site(launch, cluster_script, options);
  REQUIRE(watched.seen->messages.wait_for(2));
  CHECK(watched.seen->messages.values()[0].second == json{{"data", {{"from", 1}}}});
  CHECK(watched.seen->messages.values()[1].second == json{{"code", "EACCES"}});
}

TEST_CASE("a worker of Node's cluster that is busy gets one connection, and those that are free get all others") {
  launcher launch;
  watched_cluster watched;
  const scratch_folder folder;
  const std::string fifo = folder / "fifo";
  REQUIRE(::mkfifo(fifo.c_str(), 0600) == 0);
  const unique_fd gate(::open(fifo.c_str(), O_RDWR | O_CLOEXEC));
  node_cluster site(launch, cluster_script, watched.options(2, schedule::round_robin));
  const std::uint16_t port = watched.port(2);
  CHECK(site.send(1, {{"block", fifo}}));
  REQUIRE(watched.seen->messages.wait_for(1));
  std::vector<http_client> clients;
  for (int i = 0; i < 8; ++i) clients.emplace_back(port);
  CHECK(eventually([&] { return site.stats().passed == 7; }));
  REQUIRE(::write(gate.get(), "x", 1) == 1);
  CHECK(eventually([&] { return site.stats().passed == 8; }));
  std::map<std::string, int> answers;
  for (http_client& each : clients)
    if (const auto answer = each.get("/")) ++answers[answer->body];
  CHECK(answers == std::map<std::string, int>{{"1", 1}, {"2", 7}});
}
