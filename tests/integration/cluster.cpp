// Clusters, with the plugin http and real clients: what becomes of connections when workers die, leave, hang, are recycled
// and reloaded, by either schedule.
#include "../features.hpp"
#include "cluster_fixture.hpp"

#include <array>
#include <atomic>
#include <cstdio>
#include <random>

#include <sched.h>
#include <sys/un.h>

using namespace bulkhead;
using namespace bulkhead::testing;

using fixture = cluster_fixture;

namespace {

// Clients that send one request after the other on connections of their own, until they are stopped.
class load {
 public:
  explicit load(std::uint16_t port, unsigned clients = 4) {
    for (unsigned i = 0; i < clients; ++i) threads_.emplace_back([this, port] { run(port); });
  }
  ~load() { stop(); }
  void stop() {
    over_ = true;
    for (std::thread& each : threads_)
      if (each.joinable()) each.join();
  }
  std::atomic<std::uint64_t> answers{0}, wrong{0}, lost{0}, refused{0}, connections{0};

 private:
  void run(std::uint16_t port) {
    while (!over_) {
      try {
        http_client client(port);
        ++connections;
        bool asked_to_close = false;
        while (!over_ && !asked_to_close) {
          const auto answer = client.get("/");
          if (!answer) {
            ++lost;
            break;
          }
          ++answers;
          if (answer->status != 200 || answer->body != "hello") ++wrong;
          asked_to_close = answer->headers.find("Connection: close") != std::string::npos;
        }
      } catch (const std::system_error&) {
        ++refused;
      }
    }
  }
  std::atomic<bool> over_{false};
  std::vector<std::thread> threads_;
};

// What wrk saw, with eight connections for so many seconds.
struct wrk_result {
  unsigned long requests = 0, failed = 0, not_2xx = 0;
};
wrk_result wrk(std::uint16_t port, int seconds) {
  const std::string line =
      "wrk -t1 -c8 -d" + std::to_string(seconds) + "s http://127.0.0.1:" + std::to_string(port) + "/ 2>&1";
  std::FILE* const pipe = ::popen(line.c_str(), "r");
  wrk_result out;
  std::string all;
  char text[512];
  while (pipe && std::fgets(text, sizeof text, pipe)) {
    all += text;
    std::array<unsigned long, 4> errors{};
    std::sscanf(text, " %lu requests in", &out.requests);
    std::sscanf(text, " Non-2xx or 3xx responses: %lu", &out.not_2xx);
    if (std::sscanf(text, " Socket errors: connect %lu, read %lu, write %lu, timeout %lu", &errors[0], &errors[1],
                    &errors[2], &errors[3]) == 4)
      for (const unsigned long each : errors) out.failed += each;
  }
  INFO("wrk (./dev deps test installs it) said: " << all);
  REQUIRE((pipe && ::pclose(pipe) == 0));
  REQUIRE(out.requests > 0);
  return out;
}

// Kills workers while the load goes on, and ends that once it has been served without kills.
void kill_at_random(fixture& at, load& clients) {
  std::minstd_rand random(7);
  for (int kills = 0; kills < 20; ++kills) {
    const auto before = clients.answers.load();
    REQUIRE(eventually([&] { return clients.answers > before + 5 + random() % 30; }));
    const auto workers = at.site->stats().workers;
    if (workers.empty()) continue;
    ::kill(workers[random() % workers.size()].pid, SIGKILL);
  }
  const auto before = clients.answers.load();
  REQUIRE(eventually([&] { return clients.answers > before + 50; }));
  clients.stop();
}

constexpr const char *first_half = "GET / HTTP/1.1\r\nHos", *second_half = "t: a\r\n\r\n";

}  // namespace

TEST_CASE("a cluster serves one port with all of its workers") {
  const auto how = GENERATE(schedule::round_robin, schedule::shared);
  fixture at(with(how));
  REQUIRE(at.site->stats().workers.size() == 2);
  REQUIRE(fixture::serving(at.site->stats()) == 2);
  std::set<std::string> pids;
  std::vector<http_client> clients;
  while (pids.size() < 2 && clients.size() < 200) {
    clients.push_back(at.connect());
    const auto answer = clients.back().get("/status");
    REQUIRE(answer);
    pids.insert(pid_of(*answer));
  }
  CHECK(pids.size() == 2);
  CHECK(at.site->stats().accepted == clients.size());
  clients.clear();
  CHECK(at.until([](const auto& stats) { return fixture::open(stats) == 0; }));
}

TEST_CASE("round robin gives connections to the workers in turn") {
  fixture at(with(schedule::round_robin, 3));
  std::vector<http_client> clients;
  std::map<std::string, int> counts;
  for (int i = 0; i < 9; ++i) {
    clients.push_back(at.connect());
    const auto answer = clients.back().get("/status");
    REQUIRE(answer);
    ++counts[pid_of(*answer)];
  }
  CHECK(counts.size() == 3);
  for (const auto& [pid, count] : counts) CHECK(count == 3);
}

TEST_CASE("a connection that is idle when its worker is killed goes on in another") {
  fixture at;
  std::vector<http_client> clients = at.idle(20);
  REQUIRE(at.until([](const auto& stats) { return fixture::busy(stats) == 0; }));
  at.kill_all();
  for (http_client& each : clients) {
    const auto answer = each.get("/");
    REQUIRE(answer);
    CHECK(answer->body == "hello");
  }
  const auto stats = at.site->stats();
  CHECK(stats.handed_over >= 20);
  CHECK(stats.lost == 0);
}

TEST_CASE("the requests that are in progress when a worker is killed are lost with it, and counted") {
  fixture at(with(schedule::round_robin, 1));
  std::vector<http_client> halves = at.that_sent(first_half, 5), idle = at.idle(5);
  REQUIRE(at.until([](const auto& stats) { return fixture::busy(stats) == 5; }));
  at.kill_all();
  for (http_client& each : halves) CHECK_FALSE(each.receive());
  for (http_client& each : idle) CHECK(each.get("/"));
  CHECK(at.site->stats().lost == 5);
}

TEST_CASE("a handler that crashes costs its own connection and the requests in progress in its worker, and no other") {
  fixture at;
  std::vector<http_client> idle = at.idle(4), halves = at.that_sent(first_half, 4);
  REQUIRE(at.until([](const auto& stats) {  // in turn, so each worker has two
    return std::all_of(stats.workers.begin(), stats.workers.end(), [](const auto& each) { return each.busy == 2; });
  }));
  CHECK_FALSE(at.connect().get("/crash"));
  int answered = 0;
  for (http_client& each : halves) answered += each.send(second_half) && each.receive();
  CHECK(answered == 2);
  for (http_client& each : idle) CHECK(each.get("/"));
  CHECK(at.site->stats().lost == 3);
  REQUIRE(at.host.saw(watched_host::kind::exited));
  const auto report = at.host.last(watched_host::kind::exited).report;
  CHECK(report->signal == SIGSEGV);
  CHECK(report->method == "serve");
}

TEST_CASE("connections that no worker has taken yet survive its death") {
  fixture at(with(schedule::round_robin, 1));
  const pid_t pid = at.site->stats().workers.at(0).pid;
  ::kill(pid, SIGSTOP);
  std::vector<http_client> clients = at.that_sent("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 10);
  REQUIRE(at.until([](const auto& stats) { return stats.accepted == 10; }));
  ::kill(pid, SIGKILL);
  for (http_client& each : clients) CHECK(each.receive());
  CHECK(at.site->stats().lost == 0);
}

TEST_CASE("a worker that heeds its connections no more is killed as hung, and costs the one that hangs") {
  cluster_options options = with(schedule::round_robin, 1);
  options.load.supervision.heartbeat = {.interval = 50ms, .silence = 500ms};
  fixture at(options);
  http_client other = at.connect();
  REQUIRE(other.get("/"));
  http_client one = at.connect();
  CHECK_FALSE(one.get("/hang"));
  CHECK(other.get("/"));
  CHECK(at.host.last(watched_host::kind::exited).report->reason == exit_reason::hung);
  CHECK(at.site->stats().lost == 1);
}

TEST_CASE("recycling hands every connection on, idle or not, and none notices") {
  fixture at;
  std::vector<http_client> clients = at.idle(10), halves = at.that_sent(first_half, 10);
  REQUIRE(at.until([](const auto& stats) { return fixture::busy(stats) == 10; }));
  const auto before = pids(at.site->loaded());
  REQUIRE(at.site->loaded().recycle());
  REQUIRE(at.until([&](const auto& stats) {
    return std::any_of(stats.workers.begin(), stats.workers.end(), [](const auto& each) { return !each.serving; });
  }));
  for (http_client& each : halves) {
    REQUIRE(each.send(second_half));
    CHECK(each.receive());
  }
  REQUIRE(at.until([&](const auto& stats) {
    return stats.workers.size() == 2 && fixture::serving(stats) == 2 &&
           std::none_of(stats.workers.begin(), stats.workers.end(),
                        [&](const auto& each) { return before.contains(each.pid); });
  }));
  for (http_client& each : clients) CHECK(each.get("/"));
  for (http_client& each : halves) CHECK(each.get("/"));
  const auto stats = at.site->stats();
  CHECK(stats.lost == 0);
  CHECK(stats.accepted == 20);
  CHECK(stats.handed_over >= 20);
}

TEST_CASE("under load, recycling and reloading cost no request, by either schedule") {
  const auto how = GENERATE(schedule::round_robin, schedule::shared);
  fixture at(with(how));
  load clients(at.site->port());
  for (int round = 0; round < 2; ++round) {
    const auto before = clients.answers.load();
    REQUIRE(eventually([&] { return clients.answers > before + 50; }));
    const auto old = pids(at.site->loaded());
    if (round == 0) {
      REQUIRE(at.site->loaded().recycle());
    } else {
      at.site->loaded().reload(plugin_path("http"));
    }
    REQUIRE(at.until([&](const auto& stats) {
      return fixture::serving(stats) == 2 && std::none_of(stats.workers.begin(), stats.workers.end(),
                                                          [&](const auto& w) { return old.contains(w.pid); });
    }));
  }
  const auto before = clients.answers.load();
  REQUIRE(eventually([&] { return clients.answers > before + 50; }));
  clients.stop();
  CHECK(clients.lost == 0);
  CHECK(clients.refused == 0);
  CHECK(clients.wrong == 0);
  CHECK(at.site->stats().lost == 0);
  if (how == schedule::round_robin) CHECK(clients.connections == 4);  // they never had to connect again
}

TEST_CASE("under load, workers that say that they leave cost no request, by either schedule") {
  const auto how = GENERATE(schedule::round_robin, schedule::shared);
  fixture at(with(how));
  load clients(at.site->port());
  for (int round = 0; round < 2; ++round) {
    const auto before = clients.answers.load();
    REQUIRE(eventually([&] { return clients.answers > before + 50; }));
    const auto old = pids(at.site->loaded());
    const auto answer = at.connect().get("/leave");
    REQUIRE(answer);
    CHECK(answer->status == 200);
    REQUIRE(at.until([&](const auto& stats) {
      return stats.workers.size() == 2 && fixture::serving(stats) == 2 &&
             std::any_of(stats.workers.begin(), stats.workers.end(),
                         [&](const auto& w) { return !old.contains(w.pid); });
    }));
  }
  CHECK(at.host.saw(watched_host::kind::exited, 2));
  clients.stop();
  CHECK(clients.lost == 0);
  CHECK(clients.refused == 0);
  CHECK(clients.wrong == 0);
  CHECK(at.site->stats().lost == 0);
}

TEST_CASE("a worker that says that it leaves finishes its request while its successor serves, by either schedule") {
  fixture at(with(GENERATE(schedule::round_robin, schedule::shared), 1));
  const pid_t old = at.site->stats().workers.at(0).pid;
  http_client half = at.connect();
  REQUIRE(half.send(first_half));
  REQUIRE(at.until([](const auto& stats) { return fixture::busy(stats) == 1; }));
  REQUIRE(at.connect().get("/leave"));
  const auto both_there = [&](const auto& stats) {
    return stats.workers.size() == 2 && std::all_of(stats.workers.begin(), stats.workers.end(), [&](const auto& each) {
             return each.serving == (each.pid != old) && each.busy == (each.pid == old ? 1 : 0);
           });
  };
  REQUIRE(at.until(both_there));
  REQUIRE(eventually([&] {
    const auto answer = at.connect().get("/status");
    return answer && pid_of(*answer) != "{\"pid\":" + std::to_string(old);
  }));
  CHECK(at.until(both_there));
  REQUIRE(half.send(second_half));
  const auto answer = half.receive();
  REQUIRE(answer);
  CHECK(answer->body == "hello");
  CHECK(at.host.saw(watched_host::kind::exited));
  CHECK(at.site->stats().lost == 0);
}

TEST_CASE("a request that outlasts the time to drain ends with its worker, and is counted as lost") {
  const bool by_itself = GENERATE(false, true);  // it says that it leaves
  cluster_options options = with(GENERATE(schedule::round_robin, schedule::shared), 1);
  options.load.supervision.drain = {.calls = 100ms, .shutdown = 100ms};
  fixture at(options);
  http_client half = at.connect();
  REQUIRE(half.send(first_half));
  REQUIRE(at.until([](const auto& stats) { return fixture::busy(stats) == 1; }));
  if (by_itself) REQUIRE(at.connect().get("/leave"));
  else REQUIRE(at.site->loaded().recycle());
  CHECK_FALSE(half.receive());
  CHECK(at.until([](const auto& stats) { return stats.lost == 1; }));
  CHECK(at.connect().get("/"));
}

TEST_CASE("where connections is 1, a handler that crashes leaves requests in progress alone") {
  cluster_options options = with(schedule::round_robin, 3);
  options.connections = 1;
  fixture at(options);
  std::vector<http_client> halves = at.that_sent(first_half, 2);
  REQUIRE(at.until([](const auto& stats) { return fixture::busy(stats) == 2; }));
  CHECK_FALSE(at.connect().get("/crash"));
  for (http_client& each : halves) {
    REQUIRE(each.send(second_half));
    const auto answer = each.receive();
    REQUIRE(answer);
    CHECK(answer->body == "hello");
  }
  CHECK(at.site->stats().lost == 1);
}

TEST_CASE("a cluster has a worker for each processor that the application may run on") {
  cpu_set_t all;
  REQUIRE(::sched_getaffinity(0, sizeof all, &all) == 0);
  const auto workers = [] { return fixture(with(schedule::round_robin, 0)).site->stats().workers.size(); };
  CHECK(workers() == static_cast<std::size_t>(CPU_COUNT(&all)));
  cpu_set_t one;
  CPU_ZERO(&one);
  for (int cpu = 0; CPU_COUNT(&one) == 0; ++cpu)
    if (CPU_ISSET(cpu, &all)) CPU_SET(cpu, &one);
  REQUIRE(::sched_setaffinity(0, sizeof one, &one) == 0);
  CHECK(workers() == 1);
  ::sched_setaffinity(0, sizeof all, &all);
}

TEST_CASE("a cluster serves a listening socket that it is lent, and leaves it open") {
  const auto how = GENERATE(schedule::round_robin, schedule::shared);
  const bool local = GENERATE(false, true);
  const scratch_folder folder;
  sockaddr_storage where{};
  socklen_t size = sizeof(sockaddr_in);
  if (local) {
    auto& path = reinterpret_cast<sockaddr_un&>(where);
    path.sun_family = AF_UNIX;
    size = sizeof path;
    (folder.path / "socket").string().copy(path.sun_path, sizeof path.sun_path - 1);
  } else {
    auto& four = reinterpret_cast<sockaddr_in&>(where);
    four.sin_family = AF_INET;
    four.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  }
  const unique_fd listener(checked(::socket(where.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
  REQUIRE(::bind(listener.get(), reinterpret_cast<sockaddr*>(&where), size) == 0);
  REQUIRE(::listen(listener.get(), 8) == 0);
  cluster_options options = with(how);
  options.listener = listener.get();
  fixture at(options);
  sockaddr_storage bound{};
  socklen_t bound_size = sizeof bound;
  REQUIRE(::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&bound), &bound_size) == 0);
  CHECK(at.site->port() == (local ? 0 : ntohs(reinterpret_cast<sockaddr_in&>(bound).sin_port)));
  const auto connect = [&] { return http_client(reinterpret_cast<sockaddr*>(&bound), bound_size); };
  for (int i = 0; i < 4; ++i) {
    const auto answer = connect().get("/");
    REQUIRE(answer);
    CHECK(answer->body == "hello");
  }
  at.site->stop();
  CHECK_NOTHROW(connect());  // into its backlog
}

TEST_CASE("a cluster that listens on :: serves both families") {
  if (!has_ipv6()) return;
  cluster_options options = with(schedule::round_robin, 1);
  options.address = "::";
  fixture at(options);
  CHECK(at.connect().get("/"));
  sockaddr_in6 where{};
  where.sin6_family = AF_INET6;
  where.sin6_addr = in6addr_loopback;
  where.sin6_port = htons(at.site->port());
  CHECK(http_client(reinterpret_cast<sockaddr*>(&where), sizeof where).get("/"));
}

TEST_CASE("under load, of workers killed at random exactly the requests in progress are lost") {
  fixture at(with(schedule::round_robin, 3));
  load clients(at.site->port());
  kill_at_random(at, clients);
  CHECK(clients.refused == 0);
  CHECK(clients.wrong == 0);
  CHECK(clients.lost <= at.site->stats().lost);
  // One whose answer had been sent, but not noted as sent: the client sees the end of its connection with its next request.
  CHECK(clients.lost + clients.connections == at.site->stats().accepted + at.site->stats().lost);
}

TEST_CASE("shared: under load nobody is refused while workers are killed at random, and what they had is counted") {
  fixture at(with(schedule::shared, 3));
  load clients(at.site->port());
  kill_at_random(at, clients);
  CHECK(clients.refused == 0);
  CHECK(clients.wrong == 0);
  REQUIRE(at.until([](const auto& stats) { return fixture::open(stats) == 0; }));  // all of the dead are counted
  const auto stats = at.site->stats();
  // One whose worker died before it could note that it had accepted it is not counted as accepted either.
  CHECK(clients.lost + stats.accepted <= stats.lost + stats.lost_idle + clients.connections);
  CHECK(stats.lost + stats.lost_idle <= clients.lost + 4);  // each client may have stopped before it noticed
}

TEST_CASE("shared: a dead worker takes its own connections along, no other, and both kinds are counted") {
  fixture at(with(schedule::shared, 1));
  std::vector<http_client> idle = at.idle(3);
  http_client half = at.connect();
  REQUIRE(half.send("GET / HT"));
  REQUIRE(at.until([](const auto& stats) { return fixture::busy(stats) == 1 && fixture::open(stats) == 4; }));
  at.kill_all();
  CHECK_FALSE(half.receive());
  for (http_client& each : idle) CHECK_FALSE(each.get("/"));
  http_client fresh = at.connect();  // into the backlog, if the replacement has not come yet
  CHECK(fresh.get("/"));
  const auto stats = at.site->stats();
  CHECK(stats.lost == 1);
  CHECK(stats.lost_idle == 3);
}

TEST_CASE("more connections than the workers take wait in the backlog for their turn") {
  cluster_options options = with(schedule::round_robin, 2);
  options.connections = 2;
  fixture at(options);
  constexpr const char* only_request = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
  std::vector<http_client> clients = at.that_sent(only_request, 8);
  for (http_client& each : clients) {
    CHECK(each.receive());
    CHECK(each.ended());
    each = at.connect();
    REQUIRE(each.send(only_request));
  }
  for (http_client& each : clients) CHECK(each.receive());
}

TEST_CASE("connections for which there is no room in a worker's socket wait, and are served when it takes them again") {
  cluster_options options = with(schedule::round_robin, 1);
  options.load.supervision.heartbeat.silence = 60s;
  fixture at(options);
  const pid_t pid = at.site->stats().workers.at(0).pid;
  REQUIRE(::kill(pid, SIGSTOP) == 0);
  std::vector<http_client> clients;
  while (at.site->stats().waiting == 0) {
    clients.push_back(at.connect());
    REQUIRE(clients.back().send("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
    REQUIRE(at.until([&](const auto& stats) { return stats.accepted == clients.size(); }));
  }
  CHECK(clients.size() < options.connections);  // by which it had room
  ::kill(pid, SIGCONT);
  for (http_client& each : clients) CHECK(each.receive());
  const auto stats = at.site->stats();
  CHECK(stats.waiting == 0);
  CHECK(stats.workers.at(0).pid == pid);
  CHECK(stats.lost == 0);
}

TEST_CASE("a worker whose socket has no room for the question whether it heeds its connections is asked later") {
  cluster_options options = with(schedule::round_robin, 1);
  options.load.supervision.heartbeat = {.interval = 300ms, .silence = 1200ms};
  fixture at(options);
  const pid_t pid = at.site->stats().workers.at(0).pid;
  const auto begin = std::chrono::steady_clock::now();
  REQUIRE(::kill(pid, SIGSTOP) == 0);
  std::vector<http_client> clients;
  while (at.site->stats().waiting == 0)  // at once, so that the question is not in the socket yet
    for (http_client& each : at.that_sent("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 50)) clients.push_back(std::move(each));
  std::this_thread::sleep_until(begin + 450ms);  // now it is due
  ::kill(pid, SIGCONT);
  for (http_client& each : clients) CHECK(each.receive());
  std::this_thread::sleep_until(begin + 2s);  // beyond the silence
  CHECK(clients.front().get("/"));
  CHECK(at.site->stats().workers.at(0).pid == pid);
  CHECK(at.host.count(watched_host::kind::exited) == 0);
}

TEST_CASE("a connection that one worker refuses, or has no descriptor left for, is served by another") {
  const std::string how = GENERATE("/refuse", "/take-all-descriptors");
  watched_host host;
  const cluster site(host.self, plugin_path("refusing"), with(schedule::round_robin));
  std::vector<http_client> clients;  // all stay, so that the one that refuses always has the fewest
  std::vector<std::string> who;
  for (int i = 0; i < 4; ++i) {
    clients.emplace_back(site.port());
    const auto answer = clients.back().get(i == 0 ? how : "/");
    REQUIRE(answer);
    who.push_back(answer->body);
  }
  CHECK(who[1] != who[0]);
  CHECK(who[2] == who[1]);
  CHECK(who[3] == who[1]);
  CHECK(site.stats().handed_over == 2);  // the second went to the other anyway
  CHECK(site.stats().accepted == 4);
  CHECK(site.stats().lost == 0);
}

TEST_CASE("stopping lets requests in progress finish, and answers those that have just come") {
  const auto how = GENERATE(schedule::round_robin, schedule::shared);
  fixture at(with(how, 1));
  http_client half = at.connect(), idle = at.connect();
  REQUIRE(half.send("GET / HTTP/1.1\r\nHost: a\r\n"));
  REQUIRE(idle.get("/"));
  REQUIRE(at.until([](const auto& stats) { return fixture::busy(stats) == 1; }));
  std::thread stopping([&] { at.site->stop(); });
  CHECK(idle.ended());  // it is told to go while the other still goes on
  REQUIRE(half.send("\r\n"));
  const auto answer = half.receive();
  REQUIRE(answer);
  CHECK(answer->headers.find("Connection: close") != std::string::npos);
  CHECK(half.ended());
  stopping.join();
  CHECK_THROWS_AS(at.connect(), std::system_error);
  CHECK(at.site->stats().lost == 0);
}

TEST_CASE("a plugin that can't serve is told at once, with its reason, and a reload to one changes nothing") {
  watched_host host;
  cluster_options options = fixture::usual();
  options.settings["root"] = "/no/such/place";
  CHECK_THROWS_WITH(cluster(host.self, plugin_path("http"), options), Catch::Contains("/no/such/place"));
  options.settings = {{"rot", "x"}};
  CHECK_THROWS_WITH(cluster(host.self, plugin_path("http"), options), Catch::Contains("no setting 'rot'"));
  CHECK_THROWS_WITH(cluster(host.self, plugin_path("echo"), {.workers = 1}), Catch::Contains("serve"));
  CHECK_THROWS_AS(cluster(host.self, plugin_path("http"), {.connections = 0}), std::invalid_argument);
  CHECK_THROWS_WITH(cluster(host.self, plugin_path("http"), {.address = "localhost"}), Catch::Contains("localhost"));
  CHECK_THROWS_WITH(cluster(host.self, plugin_path("http"), {.listener = 0}), Catch::Contains("listen"));

  fixture at;
  http_client client = at.connect();
  REQUIRE(client.get("/"));
  const auto before = pids(at.site->loaded());
  const auto failure = failure_of([&] { at.site->loaded().reload(plugin_path("echo")); });
  CHECK(failure.outcome() == outcome::unavailable);
  CHECK(client.get("/"));
  CHECK(at.connect().get("/"));
  REQUIRE(eventually([&] { return pids(at.site->loaded()) == before; }));
}

TEST_CASE("nothing is left of workers and connections that have come and gone") {
  fixture at;
  const auto round = [&] {
    std::vector<http_client> clients = at.idle(10);
    REQUIRE(at.until([](const auto& stats) { return fixture::busy(stats) == 0; }));
    at.kill_all();
    for (http_client& each : clients) REQUIRE(each.get("/"));
    clients.clear();
    REQUIRE(at.until([](const auto& stats) { return fixture::open(stats) == 0 && fixture::serving(stats) == 2; }));
  };
  round();
  const std::size_t before = entries("/proc/self/fd");
  for (int i = 0; i < 5; ++i) round();
  CHECK(eventually([&] { return entries("/proc/self/fd") <= before; }));
}

TEST_CASE("wrk: no request fails while workers are recycled and reloaded, by either schedule") {
  const auto how = GENERATE(schedule::round_robin, schedule::shared);
  fixture at(with(how));
  std::atomic<bool> over{false};
  unsigned changes = 0;
  std::thread changing([&] {
    for (; !over; ++changes) {
      const auto old = pids(at.site->loaded());
      if (changes % 2) at.site->loaded().reload(plugin_path("http"));
      else at.site->loaded().recycle();
      eventually([&] {
        const auto now = pids(at.site->loaded());
        return now.size() == 2 && std::none_of(now.begin(), now.end(), [&](pid_t pid) { return old.contains(pid); });
      });
    }
  });
  const wrk_result seen = wrk(at.site->port(), 2);
  over = true;
  changing.join();
  CAPTURE(changes, seen.requests);
  CHECK(changes > 1);
  CHECK(seen.failed == 0);
  CHECK(seen.not_2xx == 0);
  CHECK(at.site->stats().lost + at.site->stats().lost_idle == 0);
}

TEST_CASE("wrk: of workers killed at random, as many requests fail as are counted as lost") {
  fixture at(with(schedule::round_robin, 3));
  std::atomic<unsigned> kills{0};
  std::thread killing([&] {
    std::minstd_rand random(11);
    // For the first half of the time: what is lost has to be seen before wrk closes its connections.
    const auto end = std::chrono::steady_clock::now() + 1s;
    while (std::chrono::steady_clock::now() < end) {
      const auto before = at.site->stats();
      eventually([&] { return at.site->stats().requests > before.requests + 20 + random() % 50; });
      const auto workers = at.site->stats().workers;
      if (workers.empty()) continue;
      ::kill(workers[random() % workers.size()].pid, SIGKILL);
      ++kills;
    }
  });
  const wrk_result seen = wrk(at.site->port(), 3);
  killing.join();
  CAPTURE(kills.load(), seen.requests);
  CHECK(kills > 1);
  CHECK(seen.failed == at.site->stats().lost);
  CHECK(seen.not_2xx == 0);
}
