// A parent of Node: messages and handles both ways with the real thing, and with peers that don't keep to the rules.
#include "node_fixture.hpp"

#include <arpa/inet.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

using namespace bulkhead;
using namespace bulkhead::testing;
using json = nlohmann::json;

TEST_CASE("a Node child of fork answers any JSON value, in order") {
  launcher launch;
  conversation with;
  const child node = launch.fork(scripts + "/worker.js", {}, with.options());
  CHECK(with.message(0) == "ready");
  const std::vector<json> values = {
      nullptr, true, 1.5, "grüße \n \"", json::array(), {{"a", {{"b", nullptr}}}}, std::string(1 << 20, 'x')};
  for (const json& each : values) node.send(each);
  for (std::size_t i = 0; i < values.size(); ++i) CHECK(with.message(i + 1) == json{{"echo", values[i]}});
  node.send({{"do", "exit"}, {"code", 7}});
  CHECK(node.wait().code == 7);
  REQUIRE(with.events.wait_for(4));
  CHECK(with.events.values() == std::vector<std::string>{"spawn", "disconnect", "exit 7", "close"});
}

TEST_CASE("what a child sent before it ended comes before disconnect, and that before exit") {
  launcher launch;
  conversation with;
  const child node = launch.fork(scripts + "/worker.js", {}, with.options());
  node.send({{"do", "burst"}, {"count", 100}});
  REQUIRE(with.messages.wait_for(101));
  CHECK(with.messages.values()[100].message["n"] == 99);
  REQUIRE(with.events.wait_for(4));
  CHECK(with.events.values() == std::vector<std::string>{"spawn", "disconnect", "exit 3", "close"});
}

TEST_CASE("either side may disconnect, which ends a Node child that has nothing else to do") {
  launcher launch;
  conversation first, second;
  const child leaving = launch.fork(scripts + "/worker.js", {}, first.options());
  leaving.send({{"do", "disconnect"}});
  CHECK(leaving.wait().code == 0);
  const child left = launch.fork(scripts + "/worker.js", {}, second.options());
  second.message(0);
  left.disconnect();
  CHECK(left.wait().code == 0);
  REQUIRE(second.events.wait_for(4));
  CHECK(!left.connected());
  CHECK_THROWS_AS(left.send(1), boost::system::system_error);
}

TEST_CASE("messages of Node's own kind can't be sent by mistake, nor files") {
  launcher launch;
  conversation with;
  const child node = launch.fork(scripts + "/worker.js", {}, with.options());
  CHECK_THROWS_AS(node.send({{"cmd", "NODE_HANDLE"}}), std::invalid_argument);
  CHECK_NOTHROW(node.send({{"cmd", "NODE_"}}));
  CHECK_THROWS_AS(node.send(1, passed_handle(unique_fd(::open("/dev/null", O_RDONLY)))), std::invalid_argument);
  CHECK_THROWS_AS(node.send(1, passed_handle(unique_fd(::memfd_create("m", 0)))), std::invalid_argument);
  CHECK(with.message(1) == json{{"echo", {{"cmd", "NODE_"}}}});
  CHECK_THROWS_AS(launch.spawn("true").send(1), std::logic_error);
}

TEST_CASE("what is no JSON can't be sent, and the channel goes on") {
  launcher launch;
  conversation with;
  const child peer = launch.fork(program("node_child"), {}, with.options());
  const json discarded(json::value_t::discarded);
  CHECK_THROWS_AS(peer.send(discarded), std::invalid_argument);
  CHECK_THROWS_AS(peer.send({1, {{"a", discarded}}}), std::invalid_argument);
  CHECK_THROWS_AS(peer.send(discarded, passed_handle(listener())), std::invalid_argument);
  auto sent = peer.async_send(discarded, {}, boost::asio::use_future);
  CHECK_THROWS_AS(sent.get(), boost::system::system_error);
  CHECK_NOTHROW(peer.send("<discarded>"));
  CHECK(with.message(0) == json{{"hello", true}});
  CHECK(with.message(1) == json{{"echo", "<discarded>"}});
}

TEST_CASE("Node takes listeners, connections, datagram sockets and Unix sockets, and serves on them") {
  launcher launch;
  conversation with;
  const child node = launch.fork(scripts + "/worker.js", {}, with.options());
  const unique_fd tcp = listener();
  node.send(1, passed_handle::copy_of(tcp.get()));
  CHECK(with.message(1) == json{{"got", "server"}, {"msg", 1}});
  CHECK(all_of(connected_to(port_of(tcp.get())).get()) == "served by node");

  const unique_fd other = listener(), client = connected_to(port_of(other.get()));
  node.send(2, passed_handle(unique_fd(::accept(other.get(), nullptr, nullptr))));
  CHECK(with.message(2) == json{{"got", "socket"}, {"msg", 2}});
  CHECK(all_of(client.get()) == "written by node");

  const unique_fd udp(::socket(AF_INET, SOCK_DGRAM, 0));
  auto address = any_port();
  REQUIRE(::bind(udp.get(), reinterpret_cast<sockaddr*>(&address), sizeof address) == 0);
  node.send(3, passed_handle::copy_of(udp.get()));
  CHECK(with.message(3) == json{{"got", "dgram"}, {"msg", 3}});
  address.sin_port = htons(port_of(udp.get()));
  const unique_fd sender(::socket(AF_INET, SOCK_DGRAM, 0));
  ::sendto(sender.get(), "datagram", 8, 0, reinterpret_cast<sockaddr*>(&address), sizeof address);
  CHECK(with.message(4) == json{{"datagram", "datagram"}});

  int both[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, both) == 0);
  const unique_fd ours(both[0]);
  auto sent = node.async_send(4, passed_handle(unique_fd(both[1])), boost::asio::use_future);
  CHECK_NOTHROW(sent.get());  // acknowledged
  CHECK(with.message(5) == json{{"got", "socket"}, {"msg", 4}});
  CHECK(all_of(ours.get()) == "written by node");
}

TEST_CASE("Node takes pipes, Unix listeners and what is IPv6, and uses them") {
  launcher launch;
  conversation with;
  const child node = launch.fork(scripts + "/worker.js", {}, with.options());
  int both[2];
  REQUIRE(::pipe2(both, O_CLOEXEC) == 0);
  const unique_fd reading(both[0]);
  node.send(1, passed_handle(unique_fd(both[1])));
  CHECK(with.message(1) == json{{"got", "socket"}, {"msg", 1}});
  char text[64]{};
  CHECK(::read(reading.get(), text, sizeof text) == 15);
  CHECK(text == std::string("written by node"));

  REQUIRE(::pipe2(both, O_CLOEXEC) == 0);
  const unique_fd writing(both[1]);
  node.send({{"read", 1}}, passed_handle(unique_fd(both[0])));
  CHECK(with.message(2)["got"] == "socket");
  CHECK(::write(writing.get(), "to node", 7) == 7);
  CHECK(with.message(3) == json{{"read", "to node"}});

  const scratch_folder folder;
  sockaddr_un path{};
  path.sun_family = AF_UNIX;
  (folder.path / "socket").string().copy(path.sun_path, sizeof path.sun_path - 1);
  unique_fd local(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  REQUIRE(::bind(local.get(), reinterpret_cast<sockaddr*>(&path), sizeof path) == 0);
  REQUIRE(::listen(local.get(), 8) == 0);
  node.send(2, passed_handle(std::move(local)));
  CHECK(with.message(4) == json{{"got", "server"}, {"msg", 2}});
  const unique_fd client(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  REQUIRE(::connect(client.get(), reinterpret_cast<sockaddr*>(&path), sizeof path) == 0);
  CHECK(all_of(client.get()) == "served by node");

  const unique_fd udp(::socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  sockaddr_in6 six{};
  six.sin6_family = AF_INET6;
  six.sin6_addr = in6addr_loopback;
  if (!has_ipv6()) return;
  REQUIRE(::bind(udp.get(), reinterpret_cast<sockaddr*>(&six), sizeof six) == 0);
  socklen_t size = sizeof six;
  REQUIRE(::getsockname(udp.get(), reinterpret_cast<sockaddr*>(&six), &size) == 0);
  node.send(3, passed_handle::copy_of(udp.get()));
  CHECK(with.message(5) == json{{"got", "dgram"}, {"msg", 3}});
  const unique_fd sender(::socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  CHECK(::sendto(sender.get(), "six", 3, 0, reinterpret_cast<sockaddr*>(&six), sizeof six) == 3);
  CHECK(with.message(6) == json{{"datagram", "six"}});
}

TEST_CASE("datagram sockets, Unix sockets and pipes from Node arrive as what they are") {
  const std::string type = GENERATE("udp4", "udp6");
  if (type == "udp6" && !has_ipv6()) return;
  launcher launch;
  conversation with;
  const scratch_folder folder;
  REQUIRE(::mkfifo((folder.path / "fifo").c_str(), 0600) == 0);
  const child node = launch.fork(scripts + "/worker.js", {}, with.options());
  node.send({{"do", "give others"}, {"type", type}, {"folder", folder.path.string()}});
  REQUIRE(with.messages.wait_for(5));
  std::map<std::string, handle_kind> kinds;
  for (const received& each : with.messages.values())
    if (each.handle) kinds[each.message["given"]] = each.handle->kind();
  CHECK(kinds == std::map<std::string, handle_kind>{{"udp", handle_kind::udp_socket},
                                                    {"unix listener", handle_kind::unix_listener},
                                                    {"unix socket", handle_kind::unix_socket},
                                                    {"pipe", handle_kind::pipe}});
  sockaddr_storage bound{};
  socklen_t size = sizeof bound;
  REQUIRE(::getsockname(with.messages.values()[1].handle->fd(), reinterpret_cast<sockaddr*>(&bound), &size) == 0);
  CHECK(bound.ss_family == (type == "udp6" ? AF_INET6 : AF_INET));
}

TEST_CASE("messages after a handle wait for its acknowledgement, both ways") {
  launcher launch;
  conversation with;
  const child node = launch.fork(scripts + "/worker.js", {}, with.options());
  std::vector<unique_fd> kept;
  for (int i = 0; i < 20; ++i) {
    int both[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, both) == 0);
    kept.emplace_back(both[0]);
    node.send(3 * i);
    node.send(3 * i + 1, passed_handle(unique_fd(both[1])));
    node.send(3 * i + 2);
  }
  for (std::size_t i = 0; i < 20; ++i) {
    CHECK(with.message(3 * i + 1) == json{{"echo", 3 * i}});
    CHECK(with.message(3 * i + 2) == json{{"got", "socket"}, {"msg", 3 * i + 1}});
    CHECK(with.message(3 * i + 3) == json{{"echo", 3 * i + 2}});
  }
}

TEST_CASE("handles from Node arrive as what they are, and its server closes once its sockets are closed here") {
  launcher launch;
  conversation with;
  const child node = launch.fork(scripts + "/worker.js", {}, with.options());
  node.send({{"do", "give"}});
  CHECK(with.message(1)["given"] == "server");
  CHECK(with.messages.values()[1].handle->kind() == handle_kind::tcp_listener);
  const unique_fd client = connected_to(with.message(1)["port"].get<std::uint16_t>());
  CHECK(with.message(2) == json{{"before", 1}});
  CHECK(with.message(3) == json{{"given", "socket"}});
  CHECK(with.message(4) == json{{"after", 1}});
  const auto socket = with.messages.values()[3].handle;
  CHECK(socket->kind() == handle_kind::tcp_socket);
  CHECK(::send(socket->fd(), "from here", 9, MSG_NOSIGNAL) == 9);
  node.send({{"do", "count"}});
  CHECK(with.message(5) == json{{"count", 1}});  // as this side has told
  node.send({{"do", "close"}});
  node.send("still open?");
  CHECK(with.message(6) == json{{"echo", "still open?"}});
  *socket = {};
  CHECK(with.message(7) == json{{"closed", true}});
  CHECK(all_of(client.get()) == "from here");
}

TEST_CASE("send says when too much is queued, and completes when it is written") {
  launcher launch;
  conversation with;
  const child peer = raw_peer(launch, with,
                              "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])\n"
                              "print('up', flush=True)\nsignal.sigwait([signal.SIGUSR1])\nf.readline()\n"
                              "while f.readline() != b'\"last\"\\n': pass\n");
  CHECK(line_of(peer.out()) == "up");
  CHECK(peer.send(std::string(1000, 'x')));
  CHECK(!peer.send(std::string(1 << 20, 'x')));
  CHECK(!peer.send(1));
  auto written = peer.async_send("last", {}, boost::asio::use_future);
  CHECK(written.wait_for(50ms) == std::future_status::timeout);
  peer.kill(SIGUSR1);
  CHECK_NOTHROW(written.get());
  CHECK(peer.wait().code == 0);
}

TEST_CASE("a line of 128 KiB is too much to be queued, a byte less is not") {
  launcher launch;
  conversation with;
  const child peer = raw_peer(launch, with, "while f.readline(): pass\n");
  const auto in_line_of = [](std::size_t bytes) { return std::string(bytes - 3, 'x'); };  // quotes and line break
  CHECK(peer.send(in_line_of((128 << 10) - 1)));
  CHECK_NOTHROW(peer.async_send(1, {}, boost::asio::use_future).get());
  CHECK(peer.channel().unsent() == 0);
  CHECK(!peer.send(in_line_of(128 << 10)));
  peer.disconnect();
  CHECK(peer.wait().code == 0);
}

TEST_CASE("a message with a handle is sent when that has been acknowledged, not when it has been read") {
  launcher launch;
  conversation with;
  // What the channel itself is asked for is answered past the handle: then this side has gone on.
  const child peer = raw_peer(launch, with,
                              "import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])\n"
                              "f.readline()\n"
                              "c.sendall(b'{\"cmd\":\"NODE_SOCKET_GET_COUNT\",\"key\":\"k\"}\\n')\n"
                              "c.sendall(json.dumps(json.loads(f.readline())['cmd']).encode() + b'\\n')\n"
                              "signal.sigwait([signal.SIGUSR1])\n"
                              "c.sendall(b'{\"cmd\":\"NODE_HANDLE_ACK\"}\\n')\n"
                              "f.readline()\n");
  auto sent = peer.async_send("x", passed_handle(listener()), boost::asio::use_future);
  CHECK(with.message(0) == "NODE_SOCKET_COUNT");
  CHECK(sent.wait_for(0s) == std::future_status::timeout);
  CHECK(peer.kill(SIGUSR1));
  CHECK_NOTHROW(sent.get());
}

TEST_CASE("a message that can't be written is an error of its token, or else of its child") {
  launcher launch;
  conversation with;
  process_options options = with.options();
  options.channel = channel_kind::node;
  const child deaf = launch.spawn("sh", {"-c", "read x"}, options);
  CHECK(!deaf.send(std::string(4 << 20, 'x')));
  auto awaited = deaf.async_send(2, {}, boost::asio::use_future);
  deaf.in().close();
  CHECK_THROWS_AS(awaited.get(), boost::system::system_error);
  deaf.async_wait(boost::asio::use_future).get();
  REQUIRE(with.events.wait([](const auto& all) { return std::count(all.begin(), all.end(), "exit 1") == 1; }));
  const auto events = with.events.values();
  CHECK(std::count(events.begin(), events.end(), "error a message could not be sent") == 1);
}

TEST_CASE("fork takes a completion token") {
  launcher launch;
  conversation with;
  const child node = launch.async_fork(scripts + "/worker.js", {}, with.options(), boost::asio::use_future).get();
  CHECK(with.message(0) == "ready");
  node.disconnect();
  CHECK(node.wait().code == 0);
  auto missing = launch.async_fork("/no/such/program", {}, {}, boost::asio::use_future);
  CHECK_THROWS_AS(missing.get(), boost::system::system_error);
}

TEST_CASE("a peer that breaks the rules is told off, or ended, and nothing else happens") {
  launcher launch;
  const auto ends_with = [&](const std::string& script) {
    conversation with;
    const child peer = raw_peer(launch, with, script + "\nf.read()\n");
    CHECK(peer.wait().signal == SIGKILL);
    REQUIRE(with.events.wait([](const auto& events) { return events.size() >= 4; }));
    return with.events.values()[1];
  };
  CHECK(ends_with("c.sendall(b'garbage\\n')") == "error its channel: a line that is not JSON");
  CHECK(ends_with("c.sendall(b'\\n')") == "error its channel: an empty line");
  CHECK(ends_with("c.sendall(b'[' * 100000 + b'\\n')") == "error its channel: a message nested deeper than 64");
  CHECK(ends_with("[c.sendall(b'x' * 65536) for i in range(300)]").find("error its channel: a message longer than") ==
        0);
  {
    conversation with;  // cut short: dropped
    const child peer = raw_peer(launch, with, "c.sendall(b'1\\n{\"a\":')\n");
    CHECK(peer.wait().code == 0);
    REQUIRE(with.events.wait_for(3));
    CHECK(with.messages.values().size() == 1);
  }
}

TEST_CASE("a peer that breaks the rules is disconnected also if the handler that is told of it throws") {
  mailbox<int> thrown;
  launcher launch({.on_exception = [&](std::exception_ptr) { thrown.put(1); }});
  mailbox<std::string> events;
  process_options options = {.streams = {stdio::null(), stdio::null(), stdio::inherit()},
                             .channel = channel_kind::node};
  options.events.on_error = [](auto, auto&) { throw std::runtime_error("error"); };
  options.events.on_disconnect = [&] { events.put("disconnect"); };
  options.events.on_close = [&](const exit_status& status) { events.put("signal " + std::to_string(status.signal)); };
  const child peer = launch.spawn("sh", {"-c", "echo garbage >&3; exec sleep 300"}, options);
  REQUIRE(events.wait_for(2));
  CHECK(events.values() == std::vector<std::string>{"disconnect", "signal " + std::to_string(SIGKILL)});
  CHECK(thrown.wait_for(1));
}

TEST_CASE("a child that floods its channel takes its turn with others, and waits for whoever reads it") {
  launcher launch;
  mailbox<int> delivered;
  process_options options;
  options.channel = channel_kind::node;
  options.streams = {stdio::null(), stdio::null(), stdio::null()};
  options.events.on_message = [&, count = 0](const json& message, passed_handle) mutable {
    if (++count == 1000) delivered.put(message);
  };
  const child flooding = launch.spawn("sh", {"-c", "exec yes 1 >&3"}, options);
  CHECK(delivered.wait_for(1));
  const child beside = launch.spawn("sleep", {"300"}, {.timeout = 50ms});
  const auto end = beside.wait_for(10s);
  CHECK((end && end->signal == SIGTERM));
  CHECK(flooding.kill(SIGKILL));
  flooding.async_wait(boost::asio::use_future).get();
  launch.shutdown();
}

TEST_CASE("an exit is told after the child's own messages, whoever else holds and floods its channel") {
  mailbox<std::string> told;
  launcher launch;
  process_options options;
  options.channel = channel_kind::node;
  options.streams = {stdio::null(), stdio::pipe(), stdio::null()};
  options.events.on_message = [&](const json& message, passed_handle) {
    if (message != 1) told.put(message);
  };
  options.events.on_disconnect = [&] { told.put("disconnect"); };
  options.events.on_exit = [&](const exit_status& status) { told.put("exit " + std::to_string(status.code)); };
  const child leaver = launch.spawn("sh", {"-c", "echo '\"its own\"' >&3; yes 1 >&3 & echo $!; exit 4"}, options);
  const pid_t heir = std::stoi(line_of(leaver.out()));
  REQUIRE(told.wait_for(3));
  CHECK(told.values() == std::vector<std::string>{"its own", "disconnect", "exit 4"});
  CHECK(ends(heir));  // which can't write to it any more
}

TEST_CASE("a message's handler that throws loses no other message") {
  mailbox<std::string> thrown;
  launcher launch({.on_exception = [&](std::exception_ptr what) {
    try {
      std::rethrow_exception(what);
    } catch (const std::exception& e) {
      thrown.put(e.what());
    }
  }});
  mailbox<int> told;
  process_options options;
  options.channel = channel_kind::node;
  options.streams = {stdio::null(), stdio::null(), stdio::null()};
  options.events.on_message = [&](const json& message, passed_handle) {
    told.put(message);
    if (message == 2) throw std::runtime_error("two");
  };
  const child made = launch.spawn("sh", {"-c", "printf '1\\n2\\n3\\n' >&3"}, options);
  REQUIRE(told.wait_for(3));
  REQUIRE(thrown.wait_for(1));
  CHECK(told.values() == std::vector<int>{1, 2, 3});
  CHECK(thrown.values() == std::vector<std::string>{"two"});
}

TEST_CASE("handles that come without a descriptor, in pairs or wrapped twice are answered as Node does it") {
  launcher launch;
  conversation with;
  const child peer = raw_peer(
      launch, with,
      "def say(m, *fds):\n"
      "  a = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', fds))] if fds else []\n"
      "  c.sendmsg([json.dumps(m).encode() + b'\\n'], a)\n"
      "a, b = socket.socketpair()\n"
      "h = {'cmd': 'NODE_HANDLE', 'type': 'net.Native', 'msg': 1}\n"
      "say(h); r1 = json.loads(f.readline())['cmd']\n"
      "say(h, a.fileno(), b.fileno()); r2 = json.loads(f.readline())['cmd']\n"
      "say({'cmd': 'NODE_HANDLE', 'type': 'net.Native', 'msg': dict(h, msg=2)}, a.fileno()); r3 = json.loads(f.readline())['cmd']\n"
      "say({'cmd': 'NODE_HANDLE_ACK'}); say({'cmd': 'NODE_HANDLE_NACK'}); say({'cmd': 'NODE_UNKNOWN'})\n"
      "say({'cmd': 'NODE_SOCKET_GET_COUNT', 'key': 'k'}); r4 = json.loads(f.readline())\n"
      "say([r1, r2, r3, r4])\n");
  CHECK(peer.wait().code == 0);
  REQUIRE(with.messages.wait_for(3));
  const auto all = with.messages.values();
  CHECK(all[0].message == 1);
  CHECK(all[0].handle->kind() == handle_kind::unix_socket);
  CHECK(all[1].message == 2);
  CHECK(all[2].message == json{"NODE_HANDLE_NACK",
                               "NODE_HANDLE_ACK",
                               "NODE_HANDLE_ACK",
                               {{"cmd", "NODE_SOCKET_COUNT"}, {"count", 0}, {"key", "k"}}});
}

TEST_CASE("a socket that is not taken is sent again, three times at most") {
  launcher launch;
  conversation with;
  const child peer = raw_peer(launch, with,
                              "n = 0\n"
                              "while True:\n"
                              "  m = json.loads(f.readline())\n"
                              "  if m.get('cmd') != 'NODE_HANDLE': break\n"
                              "  n += 1\n"
                              "  c.sendall(b'{\"cmd\":\"NODE_HANDLE_NACK\"}\\n')\n"
                              "c.sendall(json.dumps(n).encode() + b'\\n')\n");
  int both[2];
  REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, both) == 0);
  const unique_fd ours(both[0]);
  auto sent = peer.async_send("x", passed_handle(unique_fd(both[1])), boost::asio::use_future);
  peer.send({{"after", 1}});
  CHECK_THROWS_AS(sent.get(), boost::system::system_error);
  CHECK(with.message(0) == 4);
  CHECK(all_of(ours.get()).empty());  // nobody holds the other end any more
}

TEST_CASE("a listener that is not taken is not sent again") {
  launcher launch;
  conversation with;
  const child peer = raw_peer(launch, with,
                              "while True:\n"
                              "  m = json.loads(f.readline())\n"
                              "  c.sendall(json.dumps(m.get('type', m)).encode() + b'\\n')\n"
                              "  if m.get('cmd') != 'NODE_HANDLE': break\n"
                              "  c.sendall(b'{\"cmd\":\"NODE_HANDLE_NACK\"}\\n')\n");
  auto sent = peer.async_send("x", passed_handle(listener()), boost::asio::use_future);
  peer.send({{"after", 1}});
  CHECK_THROWS_AS(sent.get(), boost::system::system_error);
  CHECK(with.message(0) == "net.Server");
  CHECK(with.message(1) == json{{"after", 1}});
}

TEST_CASE("files and memfds pass between programs that are not Node, and every handle knows its kind") {
  launcher launch;
  conversation with;
  process_options options = with.options();
  options.channel = channel_kind::node;
  options.any_handle = true;
  options.streams = {stdio::null(), stdio::inherit(), stdio::inherit()};
  const child peer = launch.spawn("python3",
                                  {"-c",
                                   "import socket, os, json, array\n"
                                   "c = socket.socket(fileno=int(os.environ['NODE_CHANNEL_FD']))\n"
                                   "while True:\n"
                                   "  d, a, *_ = c.recvmsg(65536, 64)\n"
                                   "  if not d: break\n"
                                   "  if not a: continue\n"  // an acknowledgement
                                   "  c.sendall(b'{\"cmd\":\"NODE_HANDLE_ACK\"}\\n')\n"
                                   "  c.sendmsg([d], a)\n"},
                                  options);
  int both[2];
  REQUIRE(::pipe2(both, O_CLOEXEC) == 0);
  const unique_fd reading(both[0]);
  const unique_fd unix_listener(::socket(AF_UNIX, SOCK_STREAM, 0));
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  ::bind(unix_listener.get(), reinterpret_cast<sockaddr*>(&address), sizeof(sa_family_t));
  ::listen(unix_listener.get(), 1);
  const std::pair<handle_kind, int> all[] = {{handle_kind::file, ::open("/etc/passwd", O_RDONLY)},
                                             {handle_kind::file, ::open("/", O_RDONLY)},
                                             {handle_kind::memfd, ::memfd_create("m", 0)},
                                             {handle_kind::pipe, both[1]},
                                             {handle_kind::tcp_listener, listener().release()},
                                             {handle_kind::tcp_socket, ::socket(AF_INET6, SOCK_STREAM, 0)},
                                             {handle_kind::udp_socket, ::socket(AF_INET, SOCK_DGRAM, 0)},
                                             {handle_kind::unix_listener, ::dup(unix_listener.get())},
                                             {handle_kind::unix_socket, ::socket(AF_UNIX, SOCK_STREAM, 0)},
                                             {handle_kind::other, ::open("/dev/null", O_RDONLY)}};
  for (std::size_t i = 0; i < std::size(all); ++i) {
    peer.send(i, passed_handle(unique_fd(all[i].second)));
    CHECK(with.message(i) == i);
    INFO(i);
    CHECK(with.messages.values()[i].handle->kind() == all[i].first);
  }
}

TEST_CASE("children with channels, and handles both ways, leave no descriptor and no process behind") {
#ifdef BULKHEAD_SANITIZED
  constexpr int some = 20;
#else
  constexpr int some = 100;
#endif
  launcher launch;
  check_leaves_nothing(launch, some, [&] {
    conversation with;
    const child peer = launch.fork(program("node_child"), {}, with.options());
    int both[2];
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, both) == 0);
    const unique_fd ours(both[0]);
    peer.send({{"give", 1}});
    peer.send(1, passed_handle(unique_fd(both[1])));
    REQUIRE(with.messages.wait_for(3));
    int handles = 0;
    for (const received& each : with.messages.values()) {
      if (!each.handle) continue;
      ++handles;
      *each.handle = {};
    }
    CHECK(handles == 1);
    peer.disconnect();
    CHECK(peer.wait().code == 6);
    const child unheard = launch.fork("/bin/true");
    REQUIRE(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, both) == 0);
    const unique_fd end(both[0]);
    passed_handle handle{unique_fd(both[1])};
    if (unheard.connected()) try {
        unheard.send(1, std::move(handle));
      } catch (const boost::system::system_error&) {  // it has gone meanwhile
      }
    CHECK(unheard.wait().code == 0);
  });
}

TEST_CASE("a sandboxed child's handles are dropped unless its policy lets it send some") {
  launcher launch;
  const auto handle_from = [&](policy rules) {
    conversation with;
    process_options options = with.options();
    options.policy = rules.allow_read("/usr/lib").allow_read("/usr/bin").allow_syscalls("unix-sockets");
    options.channel = channel_kind::node;
    options.streams = {stdio::null(), stdio::inherit(), stdio::inherit()};
    const child peer =
        launch.spawn("/usr/bin/python3",
                     {"-c",
                      "import socket, os, array\n"
                      "c = socket.socket(fileno=int(os.environ['NODE_CHANNEL_FD']))\n"
                      "r, w = os.pipe()\n"
                      "try: c.sendmsg([b'{\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Native\",\"msg\":1}\\n'],\n"
                      "  [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [r]))])\n"
                      "except OSError: pass\n"
                      "c.sendall(b'2\\n')\n"},
                     options);
    peer.wait();
    REQUIRE(with.events.wait_for(3));
    return with.messages.values().at(0).message;
  };
  CHECK(handle_from(policy()) == 2);
  CHECK(handle_from(policy().allow_handles()) == 1);
}

#ifndef BULKHEAD_SANITIZED  // whose runtime needs what the sandbox denies
TEST_CASE("in a sandbox a forked program receives messages and handles, and serves a listener if that is granted") {
  const scratch_folder folder;  // where the sandbox's user finds the program
  std::filesystem::permissions(folder.path, std::filesystem::perms(0755));
  std::filesystem::copy_file(program("node_child"), folder / "node_child");
  launcher launch;
  const auto served_under = [&](const policy& rules) {
    conversation with;
    process_options options = with.options();
    options.policy = rules;
    const child peer = launch.fork((folder / "node_child").string(), {}, options);
    CHECK(with.message(0) == json{{"hello", true}});
    peer.send("text");
    CHECK(with.message(1) == json{{"echo", "text"}});
    unique_fd tcp = listener();
    const unique_fd client = connected_to(port_of(tcp.get()));
    CHECK_NOTHROW(peer.async_send(1, passed_handle(std::move(tcp)), boost::asio::use_future).get());
    CHECK(with.message(2) == json{{"listener", "tcp_listener"}});
    const std::string out = all_of(client.get());
    peer.disconnect();
    CHECK(peer.wait().code == 6);
    return out;
  };
  CHECK(served_under(policy()).empty());
  CHECK(served_under(policy().allow_syscalls("passed-listeners")) == "served by bulkhead");
}
#endif

TEST_CASE("a program of ours is the child of a real Node parent, with handles both ways") {
  launcher launch;
  const auto done =
      launch.exec_file("node", {scripts + "/parent.js", program("node_child"), "json"}, {.process = {.timeout = 60s}});
  INFO(done.err);
  REQUIRE(!done.error);
  const json result = json::parse(done.out);
  CHECK(result["code"] == 5);
  json seen = result["seen"];
  REQUIRE(seen.size() == 8);
  const json served = {{"served", "served by bulkhead"}};  // by a connection: before or after messages, as it comes
  const auto found = std::find(seen.begin(), seen.end(), served);
  REQUIRE(found != seen.end());
  seen.erase(found);
  CHECK(seen[0] == json{{"hello", true}});
  CHECK(seen[1]["echo"]["text"] == "grüße");
  CHECK(seen[1]["echo"]["list"][2]["a"].get<std::string>().size() == 200'000);
  CHECK(seen[2] == json{{"echo", nullptr}});
  CHECK(seen[3] == json{{"listener", "tcp_listener"}});
  CHECK(std::count(seen.begin(), seen.end(), json{{"echo", {{"after", 1}}}}) == 1);
  CHECK(std::count(seen.begin(), seen.end(), json{{"gift", 1}, {"handle", "Socket"}}) == 1);
  CHECK(seen.back() == "disconnect");
}

TEST_CASE(
    "a child of Node's does not block on its channel and keeps it to itself, and json is what goes without saying") {
  launcher launch;
  const auto done =
      launch.exec_file("node", {scripts + "/plain_parent.js", program("node_child")}, {.process = {.timeout = 60s}});
  INFO(done.err);
  REQUIRE(!done.error);
  CHECK(json::parse(done.out) == json{{"inherited", false}, {"blocks", false}});
}

TEST_CASE("a plugin is the child of a real Node parent: calls, errors, a crash, a handle, an event") {
  launcher launch;
  const auto done = launch.exec_file(
      "node", {scripts + "/plugin_parent.js", program("bulkhead"), std::string(BULKHEAD_TEST_PLUGINS) + "/chaos.so"},
      {.process = {.timeout = 90s}});
  INFO(done.err);
  REQUIRE(!done.error);
  const json result = json::parse(done.out), seen = result["seen"];
  INFO(seen.dump(1));
  CHECK(result["code"] == 0);
  REQUIRE(seen.size() == 10);
  CHECK(seen[0]["ready"]["id"] == "chaos");
  CHECK(seen[0]["ready"]["methods"].size() > 10);
  CHECK(seen[1] == json{{"id", 1}, {"result", {{"text", "grüße"}, {"list", {1, nullptr, 2.5}}}}});
  CHECK(seen[2]["id"] == "two");
  CHECK(seen[2]["error"]["code"] == "rejected");
  CHECK(seen[3]["id"] == 3);
  CHECK(seen[3]["error"]["code"] == "worker_lost");
  CHECK(seen[3]["error"]["message"].get<std::string>().find("SIGABRT") != std::string::npos);
  CHECK(seen[4] == json{{"id", 4}, {"result", "after the crash"}});
  CHECK(seen[5]["id"] == nullptr);
  CHECK(seen[5]["error"]["code"] == "rejected");
  CHECK(seen[6]["id"] == 6);
  CHECK(seen[6]["error"]["code"] == "timeout");
  CHECK(seen[7]["id"] == 7);
  CHECK(seen[7]["result"] == "by a socket");
  CHECK(std::count(seen.begin(), seen.end(), json{{"event", "tick"}, {"value", {{"a", 1}}}}) == 1);
}

TEST_CASE("advanced serialization is refused with what to do") {
  launcher launch;
  const auto done = launch.exec_file("node", {scripts + "/parent.js", program("node_child"), "advanced"},
                                     {.process = {.timeout = 60s}});
  CHECK(json::parse(done.out)["code"] == 64);
  CHECK(done.err.find("only 'json' is supported") != std::string::npos);
}

TEST_CASE("a serialization that is unknown is refused with what to do") {
  launcher launch;
  const auto done = launch.exec_file(
      program("node_child"), {},
      {.process = {.add_env = {"NODE_CHANNEL_FD=0", "NODE_CHANNEL_SERIALIZATION_MODE=unheard-of"}, .timeout = 60s}});
  CHECK(done.status.code == 64);
  CHECK(done.err.find("'unheard-of', only 'json' is supported: fork() with {serialization: 'json'}") !=
        std::string::npos);
}
