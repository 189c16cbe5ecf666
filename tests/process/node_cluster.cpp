// Node's own cluster under a primary of ours: real Node workers, real clients.
#include "node_fixture.hpp"

#include <atomic>
#include <set>
#include <thread>

using namespace bulkhead;
using namespace bulkhead::testing;
using json = nlohmann::json;

namespace {

std::string who_answers_over_ipv6(std::uint16_t port) {
  sockaddr_in6 where{};
  where.sin6_family = AF_INET6;
  where.sin6_addr = in6addr_loopback;
  where.sin6_port = htons(port);
  const auto answer = http_client(reinterpret_cast<sockaddr*>(&where), sizeof where).get("/", "Connection: close\r\n");
  return answer ? answer->body : "nobody";
}

bool is_refused(std::uint16_t port) {
  try {
    http_client{port};
    return false;
  } catch (const std::system_error&) {
    return true;
  }
}

// Clients that connect anew for each request.
class visitors {
 public:
  explicit visitors(std::uint16_t port) {
    for (std::thread& each : threads_)
      each = std::thread([this, port] {
        while (!over_) try {
            (who_answers(port) == "nobody" ? lost : answers)++;
          } catch (const std::system_error&) {
            ++refused;
          }
      });
  }
  ~visitors() { stop(); }
  void stop() {
    over_ = true;
    for (std::thread& each : threads_)
      if (each.joinable()) each.join();
  }
  std::atomic<unsigned> answers{0}, lost{0}, refused{0};

 private:
  std::atomic<bool> over_{false};
  std::thread threads_[3];
};

}  // namespace

TEST_CASE("a script of Node's cluster serves with all of its workers, by either schedule") {
  const auto how = GENERATE(schedule::round_robin, schedule::shared);
  launcher launch;
  watched_cluster watched;
  node_cluster site(launch, cluster_script, watched.options(3, how));
  const std::uint16_t port = watched.port(3);
  for (const auto& [worker, each] : watched.seen->listening.values()) CHECK(each == port);
  std::map<std::string, int> answers;
  std::vector<http_client> clients;  // all at once, so that nobody can take them all
  for (int i = 0; i < 30; ++i) clients.emplace_back(port);
  for (http_client& each : clients) {
    const auto answer = each.get("/");
    REQUIRE(answer);
    ++answers[answer->body];
  }
  if (how == schedule::round_robin) {
    CHECK(answers.size() == 3);
    CHECK(eventually([&] { return site.stats().passed == 30; }));  // a worker's word may come after its answer
  }
  int all = 0;
  for (const auto& [worker, count] : answers) all += count;
  CHECK(all == 30);
  CHECK(site.send(2, {{"hello", "two"}}));
  REQUIRE(watched.seen->messages.wait_for(1));
  CHECK(watched.seen->messages.values()[0] == std::pair(2u, json{{"echo", {{"hello", "two"}}}}));
  clients.clear();
  site.stop();
  CHECK_THROWS_AS(http_client(port), std::system_error);
  CHECK(watched.seen->ended.wait_for(3));
  CHECK(no_children());
}

TEST_CASE("sockets go both ways between a worker of Node's cluster and the application") {
  const auto how = GENERATE(schedule::round_robin, schedule::shared);
  launcher launch;
  watched_cluster watched;
  auto options = watched.options(2, how);
  mailbox<received> messages;
  options.on_message = [&](unsigned, const json& message, passed_handle handle) {
    messages.put({message, std::make_shared<passed_handle>(std::move(handle))});
  };
  node_cluster site(launch, cluster_script, options);
  watched.port(2);
  const unique_fd waiting = listener(), client = connected_to(port_of(waiting.get()));
  CHECK(site.send(2, "answered", passed_handle(unique_fd(::accept(waiting.get(), nullptr, nullptr)))));
  CHECK(all_of(client.get()) == "answered by 2");

  CHECK(site.send(1, "give"));
  REQUIRE(messages.wait_for(1));
  const received given = messages.values()[0];
  CHECK(given.message == "given");
  CHECK(given.handle->kind() == handle_kind::tcp_socket);
  const std::string_view request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
  CHECK(::send(given.handle->fd(), request.data(), request.size(), MSG_NOSIGNAL) == ssize_t(request.size()));
  pollfd answered{given.handle->fd(), POLLIN, 0};  // Node's sockets do not block
  REQUIRE(::poll(&answered, 1, 20'000) == 1);
  CHECK(all_of(given.handle->fd()).starts_with("HTTP/1.1 200 OK"));
  CHECK(site.send(1, "and then"));  // the channel goes on
  REQUIRE(messages.wait_for(2));
  CHECK(messages.values()[1].message == json{{"echo", "and then"}});
}

TEST_CASE("nobody is refused while workers of Node's cluster are killed, and each is replaced") {
  const auto how = GENERATE(schedule::round_robin, schedule::shared);
  launcher launch;
  watched_cluster watched;
  node_cluster site(launch, cluster_script, watched.options(2, how));
  const std::uint16_t port = watched.port(2);
  visitors load(port);
  for (std::size_t round = 0; round < 2; ++round) {
    ::kill(site.stats().workers.front().pid, SIGKILL);
    REQUIRE(watched.seen->listening.wait_for(3 + round));
  }
  const unsigned before = load.answers;
  while (load.answers < before + 10) std::this_thread::yield();
  load.stop();
  CHECK(load.refused == 0);
  CHECK(load.lost <= 6);  // each of the clients by each of the two ends
  CHECK(site.stats().restarts == 2);
  CHECK(site.stats().workers.size() == 2);
  CHECK(!site.stats().gave_up);
}

TEST_CASE("workers of Node's cluster that leave, or are replaced by new ones, cost no request") {
  const auto how = GENERATE(schedule::round_robin, schedule::shared);
  launcher launch;
  watched_cluster watched;
  node_cluster site(launch, cluster_script, watched.options(2, how));
  visitors load(watched.port(2));
  CHECK(site.send(1, "leave"));
  REQUIRE(watched.seen->listening.wait_for(3));
  REQUIRE(watched.seen->ended.wait_for(1));
  CHECK(watched.seen->ended.values()[0] == std::pair(1u, 0));
  site.reload();
  REQUIRE(watched.seen->listening.wait_for(5));
  REQUIRE(watched.seen->ended.wait_for(3));
  load.stop();
  CHECK(load.refused == 0);
  CHECK(load.lost == 0);
  std::set<unsigned> numbers;
  for (const auto& each : site.stats().workers) numbers.insert(each.number);
  CHECK(numbers == std::set<unsigned>{4, 5});
  CHECK(site.stats().restarts == 1);  // the one that had left so soon
}

TEST_CASE("nobody is refused while the only worker of Node's cluster leaves") {
  const auto how = GENERATE(schedule::round_robin, schedule::shared);
  launcher launch;
  watched_cluster watched;
  node_cluster site(launch, cluster_script, watched.options(1, how));
  const std::uint16_t port = watched.port(1);
  visitors load(port);
  CHECK(site.send(1, "leave"));
  REQUIRE(watched.seen->listening.wait_for(2));
  REQUIRE(watched.seen->ended.wait_for(1));
  const unsigned before = load.answers;
  CHECK(eventually([&] { return load.answers >= before + 10; }));
  load.stop();
  CHECK(load.refused == 0);
  CHECK(load.lost == 0);
  CHECK(watched.seen->listening.values()[1] == std::pair<unsigned, std::uint16_t>(2, port));
}

TEST_CASE("workers of Node's cluster that end too often are given up") {
  launcher launch;
  watched_cluster watched;
  auto options = watched.options(1, schedule::round_robin, "crash");
  options.intensity = {.restarts = 2};
  node_cluster site(launch, cluster_script, options);
  REQUIRE(watched.seen->gave_up.wait_for(1));
  CHECK(watched.seen->gave_up.values()[0] == "workers have ended too often");
  CHECK(watched.seen->ended.values().size() <= 3);
  CHECK(site.stats().restarts == 2);
}

TEST_CASE("workers of Node's cluster that listen and leave at once are given up, too") {
  launcher launch;
  watched_cluster watched;
  auto options = watched.options(1, schedule::round_robin, "come_and_go");
  options.intensity = {.restarts = 2};
  node_cluster site(launch, cluster_script, options);
  REQUIRE(watched.seen->gave_up.wait_for(1));
  CHECK(watched.seen->gave_up.values()[0] == "workers have ended too often");
  REQUIRE(watched.seen->ended.wait_for(3));
  CHECK(watched.seen->listening.values().size() == 3);
  CHECK(site.stats().restarts == 2);
  CHECK(site.stats().workers.empty());
}

#ifndef BULKHEAD_SANITIZED  // whose runtime takes descriptors of its own
TEST_CASE("a cluster of Node's without a descriptor to spare goes on once there is one") {
  launcher launch;
  watched_cluster watched;
  const unique_fd input(::dup(0)), errors(::dup(2));
  {
    const node_cluster site(launch, cluster_script, watched.options(1, schedule::round_robin));
    // Two are left: one for the socket and one for a connection. A duplicate to watch it with never gets so low a number.
    const unique_fd last(::dup(0));
    rlimit usual{};
    ::getrlimit(RLIMIT_NOFILE, &usual);
    const rlimit scarce{static_cast<rlim_t>(last.get()) + 1, usual.rlim_max};
    ::setrlimit(RLIMIT_NOFILE, &scarce);
    ::close(0);
    ::close(2);
    const bool listens = watched.seen->listening.wait_for(1);
    ::setrlimit(RLIMIT_NOFILE, &usual);
    REQUIRE(listens);
    CHECK(who_answers(watched.port(1)) == "1");
  }
  ::dup2(input.get(), 0);
  ::dup2(errors.get(), 2);
}
#endif

TEST_CASE("a handle that nobody wants and whose last close blocks stalls no cluster of Node's") {
  launcher launch;
  watched_cluster watched;
  const scratch_folder folder;
  const auto script = write_file(folder.path / "lingering",
                                 "#!/usr/bin/env python3\n"
                                 "import os, socket, struct, json\n"
                                 "c = socket.socket(fileno=int(os.environ['NODE_CHANNEL_FD']))\n"
                                 "listener = socket.create_server(('127.0.0.1', 0))\n"
                                 "def lingering():\n"
                                 "  s = socket.create_connection(listener.getsockname())\n"
                                 "  s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 100))\n"
                                 "  s.setblocking(False)\n"
                                 "  try:\n"
                                 "    while True: s.send(bytes(65536))\n"
                                 "  except BlockingIOError: return s\n"
                                 "unread = []\n"
                                 "for m in ({'cmd': 'NODE_CLUSTER', 'act': 'online'}, 'unheard'):\n"
                                 "  s = lingering()\n"
                                 "  unread.append(listener.accept()[0])\n"
                                 "  line = json.dumps({'cmd': 'NODE_HANDLE', 'type': 'net.Native', 'msg': m}) + '\\n'\n"
                                 "  socket.send_fds(c, [line.encode()], [s.fileno()])\n"
                                 "  s.close()\n"
                                 "c.sendall(b'{\"cmd\":\"NODE_CLUSTER\",\"act\":\"listening\",\"port\":1}\\n')\n"
                                 "c.makefile('rb').read()\n",
                                 0755);
  auto options = watched.options(1, schedule::round_robin);
  options.on_message = nullptr;
  options.patience = 0s;
  const node_cluster site(launch, script, options);
  CHECK(watched.seen->listening.wait_for(1));
}

TEST_CASE("a connection that one worker of Node's cluster refuses is given to another") {
  launcher launch;
  watched_cluster watched;
  const scratch_folder folder;
  const auto script =
      write_file(folder.path / "picky",  // worker 1 takes no connection
                 "#!/usr/bin/env python3\n"
                 "import os, socket, json\n"
                 "takes = os.environ['NODE_UNIQUE_ID'] != '1'\n"
                 "c = socket.socket(fileno=int(os.environ['NODE_CHANNEL_FD']))\n"
                 "def say(cmd='NODE_CLUSTER', **m): c.sendall(json.dumps(dict(m, cmd=cmd)).encode() + b'\\n')\n"
                 "say(act='queryServer', seq=1, address='127.0.0.1', port=0, addressType=4)\n"
                 "said, fds = b'', []\n"
                 "while True:\n"
                 "  data, came, *_ = socket.recv_fds(c, 65536, 4)\n"
                 "  if not data: break\n"
                 "  fds += came\n"
                 "  *lines, said = (said + data).split(b'\\n')\n"
                 "  for m in map(json.loads, lines):\n"
                 "    if m['cmd'] == 'NODE_HANDLE':\n"
                 "      say('NODE_HANDLE_ACK')\n"
                 "      with socket.socket(fileno=fds.pop(0)) as connection:\n"
                 "        if takes: connection.sendall(b'HTTP/1.1 200 OK\\r\\nContent-Length: 5\\r\\n\\r\\ntaken')\n"
                 "      say(ack=m['msg']['seq'], accepted=takes)\n"
                 "    elif m.get('ack') == 1: say(act='listening', port=m['sockname']['port'])\n"
                 "    elif m.get('act') == 'disconnect': os._exit(0)\n",
                 0755);
  node_cluster site(launch, script, watched.options(2, schedule::round_robin));
  const std::uint16_t port = watched.port(2);
  // Each worker has its turn; the one that has refused gets another later.
  for (int i = 0; i < 3; ++i) {
    const auto answer = http_client(port).receive();
    REQUIRE(answer);
    CHECK(answer->body == "taken");
  }
  CHECK(site.stats().redistributed >= 1);
}

TEST_CASE("a connection that a worker of Node's cluster dies of is given to another") {
  launcher launch;
  watched_cluster watched;
  node_cluster site(launch, cluster_script, watched.options(2, schedule::round_robin, "first_dies"));
  const std::uint16_t port = watched.port(2);
  for (int i = 0; i < 3; ++i) CHECK(who_answers(port) != "nobody");
  REQUIRE(watched.seen->ended.wait_for(1));
  CHECK(watched.seen->ended.values()[0] == std::pair(1u, -1));
  CHECK(site.stats().redistributed == 1);
  CHECK(watched.seen->listening.wait_for(3));
}

TEST_CASE("a worker of Node's cluster that has as many connections as it wants gets others later") {
  launcher launch;
  watched_cluster watched;
  node_cluster site(launch, cluster_script, watched.options(1, schedule::round_robin, "one_at_a_time"));
  const std::uint16_t port = watched.port(1);
  std::optional<http_client> first(port);
  REQUIRE(first->get("/"));
  http_client second(port);
  CHECK(eventually([&] { return site.stats().redistributed > 0; }));
  CHECK(site.stats().passed == 1);
  first.reset();
  const auto answer = second.get("/");
  REQUIRE(answer);
  CHECK(answer->body == "1");
}

TEST_CASE("a worker of Node's cluster that was told to leave gets no socket any more") {
  launcher launch;
  watched_cluster watched;
  const scratch_folder folder;
  const auto script = write_file(folder.path / "late",
                                 "#!/usr/bin/env python3\n"
                                 "import os, socket, json\n"
                                 "c = socket.socket(fileno=int(os.environ['NODE_CHANNEL_FD']))\n"
                                 "f = c.makefile('rb')\n"
                                 "def say(**m): c.sendall(json.dumps(dict(m, cmd='NODE_CLUSTER')).encode() + b'\\n')\n"
                                 "assert json.loads(f.readline())['act'] == 'disconnect'\n"
                                 "say(act='queryServer', seq=1, address='127.0.0.1', port=0, addressType=4)\n"
                                 "say(act='exitedAfterDisconnect', seq=2)\n"
                                 "assert json.loads(f.readline())['ack'] == 2\n",
                                 0755);
  node_cluster site(launch, script, watched.options(1, schedule::round_robin));
  site.stop();
  REQUIRE(watched.seen->ended.wait_for(1));
  CHECK(watched.seen->ended.values()[0] == std::pair(1u, 0));
}

TEST_CASE("workers of Node's cluster are told that they may not listen on descriptors") {
  launcher launch;
  watched_cluster watched;
  auto options = watched.options(1, GENERATE(schedule::round_robin, schedule::shared), "descriptor");
  const node_cluster site(launch, cluster_script, options);
  CHECK(watched.refusal() == json{{"code", "EACCES"}});
}

TEST_CASE("a worker of Node's cluster ends well when its channel does, whatever it has to do") {
  launcher launch;
  conversation with;
  auto options = with.options();
  options.add_env = {"NODE_UNIQUE_ID=1"};
  const child worker = launch.fork(cluster_script, {"idle"}, options);
  CHECK(with.message(0) == "up");
  worker.disconnect();
  CHECK(worker.wait().code == 0);
}

TEST_CASE("workers of Node's cluster listen only where they may, and are told why not") {
  launcher launch;
  watched_cluster watched;
  auto options = watched.options(1, schedule::shared);
  options.may_listen = [](const std::string& address, std::uint16_t) { return address != "127.0.0.1"; };
  const node_cluster site(launch, cluster_script, options);
  CHECK(watched.refusal() == json{{"code", "EACCES"}});

  watched_cluster busy;
  const unique_fd taken(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in where{};
  where.sin_family = AF_INET;
  where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  REQUIRE(::bind(taken.get(), reinterpret_cast<sockaddr*>(&where), sizeof where) == 0);
  REQUIRE(::listen(taken.get(), 1) == 0);
  socklen_t size = sizeof where;
  ::getsockname(taken.get(), reinterpret_cast<sockaddr*>(&where), &size);
  options = busy.options(1, schedule::round_robin);
  options.arguments[1] = std::to_string(ntohs(where.sin_port));
  const node_cluster other(launch, cluster_script, options);
  CHECK(busy.refusal() == json{{"code", "EADDRINUSE"}});
}

TEST_CASE("a socket that all workers of Node's cluster have closed is closed, and they stay") {
  const auto how = GENERATE(schedule::round_robin, schedule::shared);
  launcher launch;
  watched_cluster watched;
  auto options = watched.options(2, how);
  options.patience = 100ms;
  node_cluster site(launch, cluster_script, options);
  const std::uint16_t port = watched.port(2);
  CHECK(site.send(1, "close"));
  REQUIRE(watched.seen->messages.wait_for(1));
  for (int i = 0; i < 3; ++i) CHECK(who_answers(port) == "2");
  CHECK(site.send(2, "close"));
  REQUIRE(watched.seen->messages.wait_for(2));
  CHECK(eventually([&] { return is_refused(port); }));
  CHECK(site.send(1, "still there?"));
  CHECK(watched.seen->messages.wait_for(3));
  CHECK(site.stats().workers.size() == 2);
}

TEST_CASE("workers of Node's cluster listen on all addresses, or on one of IPv6") {
  const auto how = GENERATE(schedule::round_robin, schedule::shared);
  const bool all = GENERATE(true, false);
  if (!has_ipv6()) return;
  launcher launch;
  watched_cluster watched;
  auto options = watched.options(1, how);
  if (all) options.arguments.pop_back();
  else options.arguments.back() = "::1";
  const node_cluster site(launch, cluster_script, options);
  CHECK(who_answers_over_ipv6(watched.port(1)) == "1");
  if (all) CHECK(who_answers(watched.port(1)) == "1");
}

TEST_CASE("workers of Node's cluster that listen on :: do so for both families, or with ipv6Only for one") {
  const auto how = GENERATE(schedule::round_robin, schedule::shared);
  const bool only = GENERATE(true, false);
  if (!has_ipv6()) return;
  launcher launch;
  watched_cluster watched;
  auto options = watched.options(1, how, only ? "six_only" : "http");
  options.arguments.back() = "::";
  const node_cluster site(launch, cluster_script, options);
  const std::uint16_t port = watched.port(1);
  CHECK(who_answers_over_ipv6(port) == "1");
  if (only) CHECK_THROWS_AS(http_client(port), std::system_error);
  else CHECK(who_answers(port) == "1");
}

TEST_CASE("each worker of Node's cluster that listens on any port twice has two ports, the same as the others have") {
  const auto how = GENERATE(schedule::round_robin, schedule::shared);
  launcher launch;
  watched_cluster watched;
  const node_cluster site(launch, cluster_script, watched.options(2, how, "twice"));
  REQUIRE(watched.seen->listening.wait_for(4));
  std::map<std::uint16_t, std::set<unsigned>> workers;
  for (const auto& [worker, port] : watched.seen->listening.values()) workers[port].insert(worker);
  REQUIRE(workers.size() == 2);
  int second = 0;
  for (const auto& [port, those] : workers) {
    CHECK(those == std::set<unsigned>{1, 2});
    second += who_answers(port) == "second";
  }
  CHECK(second == 1);
}

TEST_CASE("workers of Node's cluster run under a policy, and listen if they are let") {
  launcher launch;
  const scratch_folder folder;
  std::filesystem::permissions(folder.path, std::filesystem::perms(0755));
  std::filesystem::copy_file(cluster_script, folder.path / "cluster.js");
  const auto options = [&](const watched_cluster& watched) {
    auto out = watched.options(1, schedule::round_robin);
    out.process.policy = policy::program().memory_limit(0).threads(64);
    out.process.streams = {stdio::null(), stdio::inherit(), stdio::inherit()};
    return out;
  };
  watched_cluster refused;
  const node_cluster first(launch, folder.path / "cluster.js", options(refused));
  CHECK(refused.refusal() == json{{"code", "EACCES"}});

  watched_cluster allowed;
  auto may = options(allowed);
  may.may_listen = [](const std::string& address, std::uint16_t) { return address == "127.0.0.1"; };
  const node_cluster second(launch, folder.path / "cluster.js", may);
  CHECK(who_answers(allowed.port(1)) == "1");
}

TEST_CASE("workers of Node's cluster share datagram sockets") {
  launcher launch;
  watched_cluster watched;
  node_cluster site(launch, cluster_script, watched.options(2, schedule::round_robin, "datagrams"));
  sockaddr_in where{};
  where.sin_family = AF_INET;
  where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  where.sin_port = htons(watched.port(2));
  const unique_fd socket(::socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  const timeval limit{20, 0};
  ::setsockopt(socket.get(), SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
  REQUIRE(::sendto(socket.get(), "one", 3, 0, reinterpret_cast<sockaddr*>(&where), sizeof where) == 3);
  char text[64]{};
  REQUIRE(::recv(socket.get(), text, sizeof text - 1, 0) > 0);
  CHECK(std::string(text).find("one from ") == 0);
}

TEST_CASE("a peer that speaks the words of Node's cluster without being one does no harm") {
  launcher launch;
  watched_cluster watched;
  const scratch_folder folder;
  const auto script =
      write_file(folder.path / "liar",
                 "#!/usr/bin/env python3\n"
                 "import os, socket, json\n"
                 "c = socket.socket(fileno=int(os.environ['NODE_CHANNEL_FD']))\n"
                 "def say(**m): c.sendall(json.dumps(dict(m, cmd='NODE_CLUSTER')).encode() + b'\\n')\n"
                 "say(); say(act=1); say(ack='x'); say(ack=7, accepted=True); say(ack=-1)\n"
                 "say(act='close', key=[1]); say(act='close', key='nothing'); say(act='listening', port='x')\n"
                 "say(act='queryServer')\n"
                 "def path(name): return {'port': -1, 'address': name, 'addressType': -1}\n"
                 "for wrong in ({}, path('x'), path('/tmp/../x'), path('/tmp/x\\0y'), path(None),\n"
                 "              {'port': 70000, 'addressType': 4}, {'port': 0, 'addressType': 4, 'fd': 0},\n"
                 "              {'port': 0, 'addressType': 4, 'address': 'x' * 10000}, path('/' + 'x' * 150)):\n"
                 "  say(act='queryServer', seq=1, **wrong)\n"
                 "  m = json.loads(c.makefile('rb').readline())\n"
                 "  c.sendall(json.dumps([m['errno']]).encode() + b'\\n')\n"
                 "say(act='exitedAfterDisconnect'); say(act='queryServer', seq=1, port=0, addressType=4)\n"
                 "c.recv(1)\n",
                 0755);
  auto options = watched.options(1, schedule::round_robin);
  options.patience = 100ms;
  node_cluster site(launch, script, options);
  REQUIRE(watched.seen->messages.wait_for(9));
  std::vector<int> refusals(9, -EACCES);
  refusals[7] = -EINVAL;
  refusals[8] = -ENAMETOOLONG;
  for (std::size_t i = 0; i < 9; ++i) CHECK(watched.seen->messages.values()[i].second == json::array({refusals[i]}));
  CHECK(site.stats().workers.size() <= 2);  // it says that it leaves, and so does its successor
}
