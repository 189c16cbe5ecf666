// The commands against a running daemon: call, ps, top, logs, restart, stop; and the page for Prometheus.
#include "daemon.hpp"

#include <catch2/catch.hpp>

#include <csignal>
#include <regex>
#include <set>
#include <sstream>

#include <arpa/inet.h>
#include <sys/socket.h>

using namespace bulkhead::testing;
using Catch::Matchers::Contains;
using nlohmann::json;

namespace {

// What a server on the loopback says to a request.
std::string http(int port, const std::string& request) {
  const bulkhead::unique_fd socket(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<std::uint16_t>(port));
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  REQUIRE(::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) == 0);
  REQUIRE(::send(socket.get(), request.data(), request.size(), MSG_NOSIGNAL) == static_cast<ssize_t>(request.size()));
  std::string out;
  char piece[65'536];
  for (ssize_t n = 0; (n = ::recv(socket.get(), piece, sizeof piece, 0)) > 0;)
    out.append(piece, static_cast<std::size_t>(n));
  return out;
}

// The metrics by name and labels; every line has to be one.
std::map<std::string, double> parse_metrics(const std::string& page) {
  static const std::regex line_form(R"re(([a-z_]+(?:\{(?:[a-z]+="[^"]*",?)*\})?) ([0-9.e+-]+))re");
  std::map<std::string, double> out;
  std::istringstream in(page);
  for (std::string line; std::getline(in, line);) {
    if (line.starts_with("# HELP ") || line.starts_with("# TYPE ")) continue;
    std::smatch parts;
    if (!std::regex_match(line, parts, line_form)) FAIL("no metric: " << line);
    CHECK(out.emplace(parts[1], std::stod(parts[2])).second);
  }
  return out;
}

}  // namespace

TEST_CASE("calls go through the daemon, with the outcomes and exit statuses of direct ones") {
  const running_daemon daemon(plugin_table("echo", "instances = 2") +
                              plugin_table("other", "environment = [\"GREETING=hi\"]", "chaos"));
  CHECK(daemon.call({"echo.add", "2", "3"}).out == "5\n");
  CHECK(daemon.call({"other.environment", "GREETING"}).out == "\"hi\"\n");
  const auto note = write(daemon.folder() / "note", "of the file");
  CHECK(daemon.call({"other.read_handle", "@" + note.string()}).out == "\"of the file\"\n");

  CHECK(daemon.call({"echo.add", "2"}).status == 2);
  const finished unknown = daemon.call({"echo.nothing"});
  CHECK(unknown.status == 17);
  CHECK_THAT(unknown.err, Contains("echo.add(int a, int b) -> int"));
  CHECK(daemon.call({"other.sleep_ms", "60000", "--deadline", "100ms"}).status == 10);
  const auto failed = json::parse(daemon.call({"other.misbehave", "no such way", "--json"}).out);
  CHECK(failed["outcome"] == "plugin_error");
}

TEST_CASE("calls with the same --key land on the same worker, which is that of other clients' keys") {
  const running_daemon daemon(plugin_table("counter", "instances = 3\ndispatch = \"sticky\""));
  const auto add = [&](const std::string& key) { return daemon.call({"counter.add", "1", "--key", key}).out; };
  CHECK(add("3") == "1\n");
  CHECK(add("3") == "2\n");
  CHECK(add("2") == "1\n");  // two keys of different workers
  raw_client client(daemon.socket());
  client.hello();
  const auto total = [&](const auto& key) {
    client.notify("$/key", 1, key);
    client.request(1, "counter.total");
    return client.answer(1)[3].get<int>();
  };
  CHECK(total(3) == 2);
  CHECK(total(2) == 1);
  const int before = total("a customer");
  add("a customer");
  add("a customer");
  CHECK(total("a customer") == before + 2);

  CHECK(run({"bulkhead", "call", "echo", "add", "1", "2", "--key", "3"}).status == 2);  // there is one worker
}

TEST_CASE("a plugin that crashes while it is called costs that call, and the daemon nothing") {
  const running_daemon daemon(plugin_table("echo") + plugin_table("chaos"));
  const finished crashed = daemon.call({"chaos.misbehave", "abort"});
  CHECK(crashed.status == 13);
  CHECK_THAT(crashed.err, Contains("SIGABRT"));
  CHECK(daemon.call({"echo.add", "1", "1"}).out == "2\n");
  CHECK(daemon.call({"chaos.echo", "7"}).out == "7\n");
  CHECK(daemon.plugin("chaos")["restarts"] == 1);
  CHECK_THAT(daemon.run({"logs", "chaos"}).out, Contains("exited: was killed by SIGABRT in method 'misbehave'"));
}

TEST_CASE("ps shows a table whose columns line up, and with --json all there is") {
  const running_daemon daemon(plugin_table("echo", "instances = 3") + plugin_table("chaos"));
  daemon.call({"echo.add", "1", "2"});
  std::istringstream table(daemon.run({"ps"}).out);
  std::string heading, chaos, echo;
  std::getline(table, heading);
  std::getline(table, chaos);
  std::getline(table, echo);
  CHECK(std::regex_match(heading, std::regex("PLUGIN +STATE +WORKERS +PID +UPTIME +CALLS +RESTARTS +RSS")));
  CHECK(std::regex_match(echo, std::regex(R"(echo +running +3/3 +\d+,\d+,\d+ +\d+s +1 +0 +[\d.]+ MiB)")));
  CHECK(chaos.find("running") == heading.find("STATE"));
  CHECK(echo.find("running") == heading.find("STATE"));
  CHECK(heading.size() == echo.size());

  const json status = daemon.status();
  CHECK(status["pid"] == daemon.pid());
  CHECK(status["plugins"][1]["calls"] == 1);
  CHECK(status["plugins"][1]["workers"].size() == 3);
  CHECK(status["plugins"][1]["workers"][0]["resident_bytes"].get<std::size_t>() > 100'000);
}

TEST_CASE("top without a terminal is one plain table with rates") {
  const running_daemon daemon(plugin_table("echo"));
  const finished done = daemon.run({"top", "--interval", "50ms"});
  CHECK(done.status == 0);
  CHECK_THAT(done.out, Contains("CALLS/S") && Contains("P99") && !Contains("\x1b"));
  CHECK(std::regex_search(done.out, std::regex(R"(echo +running +1/1 +0\.0 +0\.0)")));
}

TEST_CASE("logs shows what plugins wrote and what happened to them, and with -f goes on") {
  const running_daemon daemon(plugin_table("echo") + plugin_table("chaos"));
  program following({"bulkhead", "logs", "--socket", daemon.socket(), "-f", "--json", "chaos"});
  CHECK(daemon.call({"chaos.misbehave", "abort"}).status == 13);
  const std::string seen = following.wait_for("\"event\":\"exited\"");
  CHECK_THAT(seen, Contains("\"reason\":\"signalled\""));
  CHECK(daemon.call({"chaos.misbehave", "exit_3"}).status == 13);
  CHECK_THAT(following.wait_for("\"reason\":\"exited\""), !Contains("\"plugin\":\"echo\""));
  following.signal(SIGINT);
  CHECK(following.wait().status == 0);
  CHECK_THAT(daemon.run({"logs", "-n", "1", "chaos"}).out, !Contains("\n2"));
}

TEST_CASE("restart gives a plugin fresh workers, and starts one that was given up or stopped") {
  const running_daemon daemon(plugin_table("echo", "instances = 2") +
                              plugin_table("chaos", "[plugins.chaos.supervision]\nintensity = { restarts = 0 }"));
  const auto pids = [&] {
    std::set<int> out;
    const json plugin = daemon.plugin("echo");
    for (const auto& each : plugin["workers"]) out.insert(each["pid"].get<int>());
    return out;
  };
  const auto before = pids();
  CHECK(daemon.run({"restart", "echo"}).status == 0);
  for (const int each : pids()) CHECK_FALSE(before.contains(each));
  CHECK(daemon.call({"echo.add", "1", "2"}).out == "3\n");

  CHECK(daemon.call({"chaos.misbehave", "abort"}).status == 13);
  const finished refused = daemon.call({"chaos.echo", "1"});
  CHECK(refused.status == 16);
  CHECK(daemon.plugin("chaos")["state"] == "given up");
  CHECK_THAT(daemon.run({"ps"}).out, Contains("chaos: plugin chaos: more than 0 restarts"));
  CHECK(daemon.run({"restart", "chaos"}).status == 0);
  CHECK(daemon.call({"chaos.echo", "1"}).out == "1\n");

  CHECK(daemon.run({"stop", "chaos"}).status == 0);
  CHECK(daemon.plugin("chaos")["state"] == "stopped");
  CHECK(daemon.call({"echo.echo", "1"}).status == 0);
  CHECK(daemon.run({"restart", "chaos"}).status == 0);
  CHECK(daemon.call({"chaos.echo", "1"}).out == "1\n");

  const finished unknown = daemon.run({"restart", "nobody"});
  CHECK(unknown.status == 17);
  CHECK_THAT(unknown.err, Contains("there is no plugin 'nobody' here"));
}

TEST_CASE("stop ends the daemon, and leaves no socket") {
  running_daemon daemon(plugin_table("echo"));
  CHECK(daemon.run({"stop"}).status == 0);
  CHECK(daemon.wait().status == 0);
  CHECK_FALSE(std::filesystem::exists(daemon.socket()));
  const finished nobody = daemon.run({"ps"});
  CHECK(nobody.status == 3);
  CHECK_THAT(nobody.err, Contains("no daemon serves") && Contains("bulkhead run"));
}

TEST_CASE("the metrics page has the counts of the calls that were made") {
  const running_daemon daemon("metrics = \"127.0.0.1:0\"\n" + plugin_table("echo") + plugin_table("chaos"));
  for (int i = 0; i < 3; ++i) CHECK(daemon.call({"echo.add", "1", "2"}).status == 0);
  CHECK(daemon.call({"chaos.misbehave", "abort"}).status == 13);
  CHECK(daemon.call({"chaos.sleep_ms", "60000", "--deadline", "100ms"}).status == 10);
  raw_client client(daemon.socket());
  client.hello();
  client.request(1, "echo.invented");
  CHECK(client.answer(1)[2]["code"] == "rejected");

  std::smatch port;
  const std::string log = daemon.run({"logs"}).out;
  REQUIRE(std::regex_search(log, port, std::regex(R"(metrics are at 127\.0\.0\.1:(\d+))")));
  const int at = std::stoi(port[1]);
  const std::string page = http(at, "GET /metrics HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
  CHECK_THAT(page, Catch::Matchers::StartsWith("HTTP/1.1 200 OK") && Contains("text/plain; version=0.0.4"));
  auto metrics = parse_metrics(page.substr(page.find("\r\n\r\n") + 4));
  CHECK(metrics.at(R"(bulkhead_calls_total{plugin="echo",method="add",outcome="ok"})") == 3);
  CHECK(metrics.at(R"(bulkhead_calls_total{plugin="echo",method="other",outcome="rejected"})") == 1);
  CHECK(metrics.at(R"(bulkhead_call_duration_seconds_count{plugin="echo",method="add"})") == 3);
  CHECK(metrics.at(R"(bulkhead_calls_total{plugin="chaos",method="misbehave",outcome="worker_lost"})") == 1);
  CHECK(metrics.at(R"(bulkhead_calls_total{plugin="chaos",method="sleep_ms",outcome="timeout"})") == 1);
  CHECK(metrics.at(R"(bulkhead_worker_exits_total{plugin="chaos",reason="signalled"})") == 1);
  CHECK(metrics.at(R"(bulkhead_worker_restarts_total{plugin="chaos"})") == 1);
  double in_flight = 0;
  for (const auto& [name, value] : metrics) in_flight += name.starts_with("bulkhead_calls_in_flight") ? value : 0;
  CHECK(in_flight == 0);

  CHECK_THAT(http(at, "GET / HTTP/1.0\r\n\r\n"), Contains("404"));
  CHECK_THAT(http(at, "POST /metrics HTTP/1.0\r\n\r\n"), Contains("405"));
  http(at, std::string(100'000, 'x'));  // it closes
  CHECK_THAT(http(at, "GET /metrics HTTP/1.0\r\n\r\n"), Contains("200 OK"));
}
