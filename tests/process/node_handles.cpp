// Handles to and from real Node where they don't go smoothly: in long messages, of kinds that Node can't have, and without a
// descriptor to spare on the side that receives.
#include "node_fixture.hpp"

#include <sys/eventfd.h>
#include <sys/mman.h>

using namespace bulkhead;
using namespace bulkhead::testing;
using json = nlohmann::json;

namespace {

const std::string echo = "process.on('message', (m, handle) => process.send(m, handle))";

std::string repeated(const std::string& text, int times) {
  std::string out;
  for (int i = 0; i < times; ++i) out += text;
  return out;
}

boost::system::error_code result_of(const child& node, const json& message, unique_fd fd) {
  boost::system::error_code code;
  auto sent = node.async_send(message, passed_handle(std::move(fd)), boost::asio::use_future);
  try {
    sent.get();
  } catch (const boost::system::system_error& e) {
    code = e.code();
  }
  return code;
}

// A Node child that has at most 128 descriptors, all in use.
child full_node(launcher& launch, conversation& with, const json& how) {
  process_options options = with.options();
  options.channel = channel_kind::node;
  options.streams = {stdio::null(), stdio::inherit(), stdio::inherit()};
  const child node =
      launch.spawn("sh", {"-c", "ulimit -n 128; exec node \"$0\"", scripts + "/full.js"}, std::move(options));
  node.send(how);
  CHECK(with.message(0) == "EMFILE");
  return node;
}

json told(const json& message, const json& handle, int refused) {
  return {{"echo", message}, {"handle", handle}, {"refused", refused}};
}

}  // namespace

TEST_CASE("a Node child of fork has more streams than three, and its channel after them") {
  launcher launch;
  conversation with;
  const scratch_folder folder;
  const unique_fd file(::open(write_file(folder / "file", "from a file").c_str(), O_RDONLY | O_CLOEXEC));
  process_options options = with.options();
  options.streams = {stdio::null(), stdio::pipe(), stdio::inherit(), stdio::pipe(), stdio::fd(file.get())};
  const auto script = write_file(folder / "streams.js",
                                 "require('fs').writeSync(3, 'by the fourth\\n');\n"
                                 "console.log('by the second');\n"
                                 "process.send([process.channel.fd, require('fs').readFileSync(4, 'utf8')]);\n" +
                                     echo);
  const child node = launch.fork(script.string(), {}, options);
  CHECK(line_of(node.stream(3)) == "by the fourth");
  CHECK(line_of(node.out()) == "by the second");
  CHECK(with.message(0) == json{5, "from a file"});
  auto [ours, theirs] = socket_pair();
  node.send("with a handle", passed_handle(std::move(theirs)));
  CHECK(with.message(1) == "with a handle");
  CHECK(with.messages.values()[1].handle->kind() == handle_kind::unix_socket);
  node.disconnect();
  CHECK(node.wait().code == 0);
}

TEST_CASE("a program of ours talks to a Node parent over a channel that comes after more streams than three") {
  launcher launch;
  const auto done =
      launch.exec_file("node", {scripts + "/streams_parent.js", program("node_child")}, {.process = {.timeout = 60s}});
  INFO(done.err);
  REQUIRE(!done.error);
  const json result = json::parse(done.out);
  CHECK(result["seen"] == json{{{"hello", true}}, {{"echo", {{"three", "4\n"}}}}, {{"gift", 1}}});
  CHECK(result["code"] == 5);
}

TEST_CASE("handles pass with messages that take many reads, to Node and from it, and all keep their order") {
  launcher launch;
  conversation with;
  const child node = node_with(launch, with.options(), echo);
  std::size_t came = 0;
  const auto there_and_back = [&](const std::string& text, unique_fd fd) {
    node.send("before");
    auto sent = node.async_send(text, passed_handle(std::move(fd)), boost::asio::use_future);
    node.send("after");
    CHECK_NOTHROW(sent.get());
    CHECK(with.message(came) == "before");
    CHECK((with.message(came + 1) == text));  // not shown
    CHECK(with.message(came + 2) == "after");
    const auto handle = with.messages.values()[came + 1].handle;
    REQUIRE(handle);
    came += 3;
    return std::move(*handle);
  };
  for (const int times : {40'000, 200'000}) {
    const std::string text = repeated("grüße", times);  // its characters are cut in two by some reads
    const unique_fd tcp = listener();
    const passed_handle same = there_and_back(text, unique_fd(::dup(tcp.get())));
    CHECK(same.kind() == handle_kind::tcp_listener);
    CHECK(port_of(same.fd()) == port_of(tcp.get()));

    const unique_fd other = listener(), client = connected_to(port_of(other.get()));
    passed_handle socket = there_and_back(text, unique_fd(::accept(other.get(), nullptr, nullptr)));
    CHECK(socket.kind() == handle_kind::tcp_socket);
    CHECK(::send(socket.fd(), "by way of node", 14, MSG_NOSIGNAL) == 14);
    socket = {};
    CHECK(all_of(client.get()) == "by way of node");  // and Node has closed its own
  }
}

TEST_CASE("what Node can't take as a handle is refused with what it is, and the child and its handles go on") {
  launcher launch;
  conversation with;
  const child node = node_with(launch, with.options(), echo);
  const auto check_refused = [&](const auto& make, const std::string& what) {
    INFO(what);
    CHECK_THROWS_WITH(node.send(1, passed_handle(unique_fd(make()))), what);
    CHECK(result_of(node, 1, unique_fd(make())) == boost::asio::error::invalid_argument);
  };
  const std::function<int()> all[] = {[] { return ::open("/etc/passwd", O_RDONLY | O_CLOEXEC); },
                                      [] { return ::open("/", O_RDONLY | O_CLOEXEC); },
                                      [] { return ::open("/dev/null", O_RDONLY | O_CLOEXEC); },
                                      [] { return ::memfd_create("m", MFD_CLOEXEC); },
                                      [] { return static_cast<int>(::syscall(SYS_pidfd_open, ::getpid(), 0)); },
                                      [] { return ::eventfd(0, EFD_CLOEXEC); },
                                      [] { return ::socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0); }};
  for (const auto& make : all) {
    const std::string kind(to_string(passed_handle(unique_fd(make())).kind()));
    check_refused(
        make, "a handle of the kind " + kind + " can't be sent to Node, which would abort, or take no handle after it");
  }
  for (const int type : {SOCK_SEQPACKET, SOCK_DGRAM})
    check_refused([type] { return socket_pair(type).first.release(); },
                  "a Unix socket that is no stream can't be sent to Node, which would take no handle after it");
  CHECK(node.channel().unsent() == 0);
  auto [ours, theirs] = socket_pair();
  CHECK(result_of(node, "taken", std::move(theirs)) == boost::system::error_code());
  CHECK(with.message(0) == "taken");
  CHECK(with.messages.values()[0].handle->kind() == handle_kind::unix_socket);
}

TEST_CASE("real Node that is sent such a handle all the same aborts, or takes no handle after it") {
  const struct {
    int (*make)();
    bool aborts;
  } all[] = {{[] { return ::open("/etc/passwd", O_RDONLY | O_CLOEXEC); }, true},
             {[] { return ::memfd_create("m", MFD_CLOEXEC); }, true},
             {[] { return static_cast<int>(::syscall(SYS_pidfd_open, ::getpid(), 0)); }, false},
             {[] { return ::eventfd(0, EFD_CLOEXEC); }, false}};
  launcher launch;
  for (const auto& each : all) {
    conversation with;
    process_options options = with.options();
    options.any_handle = true;
    options.channel = channel_kind::node;
    options.streams = {stdio::null(), stdio::null(), stdio::null()};  // it tells its stack
    const child node = launch.spawn("sh", {"-c", "ulimit -c 0; exec node -e \"$0\"", echo}, std::move(options));
    unique_fd handle(each.make());
    INFO(to_string(passed_handle::copy_of(handle.get()).kind()));
    const auto result = result_of(node, 1, std::move(handle));
    if (each.aborts) {
      CHECK(result != boost::system::error_code());
      CHECK(node.wait().signal == SIGABRT);
      continue;
    }
    CHECK(result == boost::asio::error::bad_descriptor);
    auto [ours, theirs] = socket_pair();
    CHECK(result_of(node, 2, std::move(theirs)) == boost::asio::error::bad_descriptor);
    node.send("after");
    CHECK(with.message(0) == "after");
  }
}

// What the kernel can't give a number to, it drops, with the message that it came with delivered (MSG_CTRUNC).

TEST_CASE(
    "a Node child without a free descriptor is sent a socket four times, a listener once, and then what comes after") {
  launcher launch;
  conversation with;
  const child node = full_node(launch, with, {{"fill", true}});
  auto [ours, theirs] = socket_pair();
  node.send("before");
  auto sent = node.async_send("lost", passed_handle(std::move(theirs)), boost::asio::use_future);
  node.send("after");
  CHECK(error_of([&] { sent.get(); }).code() == boost::asio::error::bad_descriptor);
  CHECK(with.message(1) == told("before", nullptr, 0));
  CHECK(with.message(2) == told("after", nullptr, 4));
  CHECK(all_of(ours.get()).empty());  // nobody has the other end
  CHECK(result_of(node, "lost", listener()) == boost::asio::error::bad_descriptor);

  node.send({{"room", true}});
  CHECK(with.message(3)["refused"] == 5);
  auto [here, there] = socket_pair();
  CHECK(result_of(node, "taken", std::move(there)) == boost::system::error_code());
  CHECK(with.message(4) == told("taken", "Socket", 5));
  CHECK(all_of(here.get()) == "written by node");
}

TEST_CASE("a socket sent to Node again arrives once there is a descriptor for it, in its place") {
  const int refusals = GENERATE(1, 3);
  launcher launch;
  conversation with;
  const child node = full_node(launch, with, {{"fill", true}, {"patience", refusals}});
  auto [ours, theirs] = socket_pair();
  node.send("before");
  auto sent = node.async_send("it", passed_handle(std::move(theirs)), boost::asio::use_future);
  node.send("after");
  CHECK_NOTHROW(sent.get());
  CHECK(with.message(1) == told("before", nullptr, 0));
  CHECK(with.message(2) == told("it", "Socket", refusals));
  CHECK(with.message(3) == told("after", nullptr, refusals));
  CHECK(all_of(ours.get()) == "written by node");
}

#ifndef BULKHEAD_SANITIZED  // whose runtime takes descriptors of its own
namespace {

// While it lives, this process can't have another descriptor.
class shortage {
 public:
  shortage() {
    ::getrlimit(RLIMIT_NOFILE, &usual_);
    const rlimit none{static_cast<rlim_t>(unique_fd(::dup(0)).get()), usual_.rlim_max};
    ::setrlimit(RLIMIT_NOFILE, &none);
  }
  ~shortage() { ::setrlimit(RLIMIT_NOFILE, &usual_); }
  shortage(const shortage&) = delete;
  shortage& operator=(const shortage&) = delete;

 private:
  rlimit usual_{};
};

// A Node child that gives a connection to a listener here, whose other end this is.
struct giver {
  launcher launch;
  conversation with;
  unique_fd end;
  child node;
  giver() {
    process_options options = with.options();
    options.streams = {stdio::pipe(), stdio::pipe(), stdio::pipe()};
    node = launch.fork(scripts + "/giver.js", {}, options);
    const unique_fd tcp = listener();
    node.send({{"connect", port_of(tcp.get())}});
    CHECK(with.message(0) == "connected");
    end.reset(::accept(tcp.get(), nullptr, nullptr));
  }
  // It has been told that its connection was not taken, and waits.
  void refused() { CHECK(line_of(node.out()) == "refused"); }
  void go_on() { boost::asio::write(node.in(), boost::asio::buffer("\n", 1)); }
};

}  // namespace

TEST_CASE(
    "a socket from Node that there is no descriptor for is sent again, and arrives in its place once there is one") {
  giver from;
  {
    const shortage no_descriptor;
    from.node.send({{"give", true}});
    from.refused();
    from.go_on();
    from.refused();
  }
  from.go_on();
  CHECK(from.with.message(1) == "before");
  CHECK(from.with.message(2) == "it");
  CHECK(from.with.message(3) == "after");
  const auto handle = from.with.messages.values()[2].handle;
  REQUIRE(handle);
  CHECK(handle->kind() == handle_kind::tcp_socket);
  CHECK(::send(handle->fd(), "from here", 9, MSG_NOSIGNAL) == 9);
  *handle = {};
  CHECK(all_of(from.end.get()) == "from here");
  from.node.disconnect();
  CHECK(from.node.wait().code == 0);
}

TEST_CASE("a socket from Node that there is no descriptor for four times is closed, and what comes after arrives") {
  giver from;
  {
    const shortage no_descriptor;
    from.node.send({{"give", true}});
    for (int i = 0; i < 4; ++i) {
      from.refused();
      from.go_on();
    }
    CHECK(from.with.message(1) == "before");
    CHECK(from.with.message(2) == "after");
  }
  CHECK(all_of(from.end.get()).empty());
  from.node.disconnect();
  CHECK(rest_of(from.node.err()).find("Handle did not reach the receiving process correctly") != std::string::npos);
  CHECK(from.node.wait().code == 0);
}
#endif
