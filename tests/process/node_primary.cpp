// What Node's own cluster expects of its primary, and what Node expects of a child that it passes sockets to: with real Node.
#include "node_fixture.hpp"

#include <netinet/tcp.h>
#include <sys/stat.h>
#include <sys/un.h>

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

sockaddr_un at_path(const std::string& path) {
  sockaddr_un where{};
  where.sun_family = AF_UNIX;
  path.copy(where.sun_path, sizeof where.sun_path - 1);
  return where;
}

http_client client_of(const std::string& path) {
  const auto where = at_path(path);
  return http_client(reinterpret_cast<const sockaddr*>(&where), sizeof where);
}

unique_fd listener_at(const std::string& path) {
  unique_fd made(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  const auto where = at_path(path);
  REQUIRE(::bind(made.get(), reinterpret_cast<const sockaddr*>(&where), sizeof where) == 0);
  REQUIRE(::listen(made.get(), 8) == 0);
  return made;
}

// A cluster whose workers listen on a path.
struct cluster_on_path : watched_cluster {
  const scratch_folder folder;
  const std::string path = folder / "socket";
  node_cluster_options options(unsigned workers, schedule how, const std::string& what = "path") const {
    auto out = watched_cluster::options(workers, how, what);
    out.arguments[1] = path;
    return out;
  }
};

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

// --- paths --------------------------------------------------------------------------------------------------------------

TEST_CASE("workers of Node's cluster serve on a path, by either schedule, and their successors do") {
  const auto how = GENERATE(schedule::round_robin, schedule::shared);
  launcher launch;
  cluster_on_path watched;
  node_cluster site(launch, cluster_script, watched.options(2, how));
  CHECK(watched.port(2) == 0);
  CHECK(watched.seen->addresses.values() == std::vector<std::string>{watched.path, watched.path});
  std::vector<http_client> clients;
  for (int i = 0; i < 6; ++i) clients.push_back(client_of(watched.path));
  std::map<std::string, int> answers;
  for (http_client& each : clients)
    if (const auto answer = each.get("/", "Connection: close\r\n")) ++answers[answer->body];
  CHECK(answers["1"] + answers["2"] == 6);
  if (how == schedule::round_robin) CHECK(answers.size() == 2);
  site.reload();
  REQUIRE(watched.seen->ended.wait_for(2));
  const auto answer = client_of(watched.path).get("/");
  REQUIRE(answer);
  CHECK((answer->body == "3" || answer->body == "4"));
  site.stop();
  CHECK(!std::filesystem::exists(watched.path));
}

TEST_CASE("a path that all workers of Node's cluster have closed is gone, and they stay") {
  const auto how = GENERATE(schedule::round_robin, schedule::shared);
  launcher launch;
  cluster_on_path watched;
  auto options = watched.options(2, how);
  options.patience = 100ms;
  node_cluster site(launch, cluster_script, options);
  watched.port(2);
  CHECK(site.send(1, "close"));
  REQUIRE(watched.seen->messages.wait_for(1));
  CHECK(std::filesystem::exists(watched.path));
  CHECK(site.send(2, "close"));
  REQUIRE(watched.seen->messages.wait_for(2));
  CHECK(eventually([&] { return !std::filesystem::exists(watched.path); }));
  CHECK(site.stats().workers.size() == 2);
}

TEST_CASE("a socket that nobody listens on any more is replaced by the one of Node's cluster, and nothing else is") {
  launcher launch;
  cluster_on_path watched;
  SECTION("one left behind") {
    listener_at(watched.path);
    REQUIRE(std::filesystem::is_socket(watched.path));
    const node_cluster site(launch, cluster_script, watched.options(1, schedule::round_robin));
    watched.port(1);
    CHECK(client_of(watched.path).get("/"));
  }
  SECTION("one in use") {
    const unique_fd used = listener_at(watched.path);
    const node_cluster site(launch, cluster_script, watched.options(1, schedule::round_robin));
    CHECK(watched.refusal() == json{{"code", "EADDRINUSE"}});
    CHECK_NOTHROW(client_of(watched.path));
  }
  SECTION("a file") {
    write_file(watched.path, "");
    const node_cluster site(launch, cluster_script, watched.options(1, schedule::round_robin));
    CHECK(watched.refusal() == json{{"code", "EADDRINUSE"}});
    CHECK(std::filesystem::is_regular_file(watched.path));
  }
}

TEST_CASE("workers of Node's cluster may listen on a path if they are let") {
  launcher launch;
  cluster_on_path watched;
  auto options = watched.options(1, schedule::shared);
  const bool let = GENERATE(true, false);
  options.may_listen = [&](const std::string& address, std::uint16_t port) {
    return (address == watched.path && port == 0) == let;
  };
  const node_cluster site(launch, cluster_script, options);
  if (let) CHECK(watched.port(1) == 0);
  else CHECK(watched.refusal() == json{{"code", "EACCES"}});
}

TEST_CASE("workers of Node's cluster that run as somebody else make no sockets on paths unless they are let") {
  launcher launch;
  cluster_on_path watched;
  auto options = watched.options(1, schedule::round_robin);
  options.process.gid = ::getegid();
  const node_cluster site(launch, cluster_script, options);
  CHECK(watched.refusal() == json{{"code", "EACCES"}});
  CHECK(!std::filesystem::exists(watched.path));
}

TEST_CASE("a path of Node's cluster is open to all users if its workers say so") {
  launcher launch;
  cluster_on_path watched;
  const node_cluster site(launch, cluster_script, watched.options(1, schedule::round_robin, "path_for_all"));
  watched.port(1);
  struct stat file {};
  REQUIRE(::stat(watched.path.c_str(), &file) == 0);
  CHECK((file.st_mode & 0666) == 0666);
}
