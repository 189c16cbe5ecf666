// See daemon.hpp.
#include "daemon.hpp"

#include <catch2/catch.hpp>

#include <csignal>
#include <cstring>

#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

namespace bulkhead::testing {
namespace {

constexpr int patience_ms = 30'000;

sockaddr_un address_of(const std::string& path) {
  sockaddr_un out{};
  out.sun_family = AF_UNIX;
  REQUIRE(path.size() < sizeof out.sun_path);
  std::memcpy(out.sun_path, path.c_str(), path.size());
  return out;
}

nlohmann::json to_json(const msgpack::object& value) {
  switch (value.type) {
    case msgpack::type::ARRAY: {
      nlohmann::json out = nlohmann::json::array();
      for (const msgpack::object& each : std::span(value.via.array.ptr, value.via.array.size))
        out.push_back(to_json(each));
      return out;
    }
    case msgpack::type::MAP: {
      nlohmann::json out = nlohmann::json::object();
      for (const auto& [key, each] : std::span(value.via.map.ptr, value.via.map.size))
        out[std::string(key.via.str.ptr, key.via.str.size)] = to_json(each);
      return out;
    }
    case msgpack::type::STR: return std::string(value.via.str.ptr, value.via.str.size);
    case msgpack::type::POSITIVE_INTEGER: return value.via.u64;
    case msgpack::type::NEGATIVE_INTEGER: return value.via.i64;
    case msgpack::type::BOOLEAN: return value.via.boolean;
    default: return nullptr;
  }
}

}  // namespace

notify_socket::notify_socket(const std::filesystem::path& path)
    : socket_(checked(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), "socket")) {
  const sockaddr_un address = address_of(path);
  checked(::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), "bind");
}

std::string notify_socket::wait(const std::string& wanted) const {
  for (;;) {
    pollfd end{socket_.get(), POLLIN, 0};
    if (::poll(&end, 1, patience_ms) <= 0) FAIL("no " << wanted << " from the daemon");
    char text[4096];
    const ssize_t size = ::recv(socket_.get(), text, sizeof text, 0);
    const std::string message(text, static_cast<std::size_t>(std::max<ssize_t>(size, 0)));
    if (("\n" + message).find("\n" + wanted) != std::string::npos) return message;
  }
}

running_daemon::running_daemon(const std::string& config, const std::vector<std::string>& environment)
    : notify_(folder_ / "notify") {
  write(file(), full(config));
  std::vector<std::string> variables = environment;
  variables.push_back("NOTIFY_SOCKET=" + (folder_ / "notify").string());
  std::vector<std::string> names;
  for (const std::string& each : variables) {
    names.push_back(each.substr(0, each.find('=')));
    ::setenv(names.back().c_str(), each.c_str() + names.back().size() + 1, 1);
  }
  program_.emplace(std::vector<std::string>{"bulkhead", "run", file().string()});
  for (const std::string& each : names) ::unsetenv(each.c_str());
  notify_.wait("READY=1");
}

running_daemon::~running_daemon() = default;

finished running_daemon::run(std::vector<std::string> words, const std::string& input) const {
  words.insert(words.begin(), "bulkhead");
  words.insert(words.begin() + 2, {"--socket", socket()});
  return testing::run(std::move(words), input);
}

finished running_daemon::call(std::vector<std::string> words) const {
  words.insert(words.begin(), "call");
  return run(std::move(words));
}

nlohmann::json running_daemon::status() const {
  const finished done = run({"ps", "--json"});
  REQUIRE(done.status == 0);
  return nlohmann::json::parse(done.out);
}

nlohmann::json running_daemon::plugin(const std::string& name) const {
  const nlohmann::json all = status();
  for (const auto& each : all["plugins"])
    if (each["name"] == name) return each;
  return nullptr;
}

void running_daemon::reload(const std::string& config) {
  write(file(), full(config));
  signal(SIGHUP);
  CHECK(notify_.wait("RELOADING=1").find("\nMONOTONIC_USEC=") != std::string::npos);
  notify_.wait("READY=1");
}

std::string plugin_table(const std::string& name, const std::string& more, const std::string& file) {
  return "[plugins." + name + "]\nfile = \"" + std::string(BULKHEAD_TEST_PLUGINS) + "/" + (file.empty() ? name : file) +
         ".so\"\n" + more + "\n";
}

held_call::held_call(const running_daemon& daemon)
    : pipe_([&daemon] {
        static int count = 0;
        auto path = daemon.folder() / ("pipe" + std::to_string(++count));
        REQUIRE(::mkfifo(path.c_str(), 0600) == 0);
        return path;
      }()),
      program_({"bulkhead", "call", "--socket", daemon.socket(), "chaos.read_handle", "@" + pipe_.string()}),
      end_(::open(pipe_.c_str(), O_WRONLY | O_CLOEXEC)) {
  // Far more than a pipe holds: when it is written, the method runs and reads.
  const std::string much(4u << 20, 'x');
  REQUIRE(::write(end_.get(), much.data(), much.size()) == static_cast<ssize_t>(much.size()));
}

finished held_call::release() {
  end_.reset();
  return program_.wait();
}

raw_client::raw_client(const std::string& socket)
    : socket_(checked(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket")) {
  const sockaddr_un address = address_of(socket);
  checked(::connect(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address), "connect");
}

void raw_client::send(const std::string& bytes) const {
  // The daemon may have closed already: that is for the reader to see.
  std::size_t sent = 0;
  while (sent < bytes.size()) {
    const ssize_t n = ::send(socket_.get(), bytes.data() + sent, bytes.size() - sent, MSG_NOSIGNAL);
    if (n <= 0) return;
    sent += static_cast<std::size_t>(n);
  }
}

void raw_client::send(ipc::buffer bytes) const {
  const auto view = bytes.view();
  send(std::string(reinterpret_cast<const char*>(view.data()), view.size()));
}

void raw_client::hello(unsigned credit) {
  request(0, "$/hello", std::map<std::string, unsigned>{{"protocol", 1}, {"event_credit", credit}});
  REQUIRE(answer(0)[3]["protocol"] == 1);
  REQUIRE(read().value()[1] == "$/ready");
}

std::optional<nlohmann::json> raw_client::read() {
  msgpack::object_handle message;
  while (!unpacker_.next(message)) {
    pollfd end{socket_.get(), POLLIN, 0};
    if (::poll(&end, 1, patience_ms) <= 0) FAIL("no answer from the daemon");
    unpacker_.reserve_buffer(65'536);
    const ssize_t size = ::recv(socket_.get(), unpacker_.buffer(), unpacker_.buffer_capacity(), 0);
    if (size <= 0) return std::nullopt;
    unpacker_.buffer_consumed(static_cast<std::size_t>(size));
  }
  return to_json(message.get());
}

nlohmann::json raw_client::answer(std::uint32_t id) {
  for (;;) {
    const auto message = read();
    if (!message) FAIL("the daemon closed instead of answering");
    if ((*message)[0] == 1 && (*message)[1] == id) return *message;
  }
}

bool raw_client::closed() {
  while (read()) {
  }
  return true;
}

}  // namespace bulkhead::testing
