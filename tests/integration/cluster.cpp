// Clusters, with the plugin http and real clients: what becomes of connections when workers die, leave, hang, are recycled
// and reloaded, by either schedule.
#include "http_client.hpp"
#include "watched_host.hpp"
#include <bulkhead/cluster.hpp>

#include <atomic>
#include <csignal>
#include <random>

using namespace bulkhead;
using namespace bulkhead::testing;

namespace {

struct folder_site {
  scratch_folder folder;
  folder_site() {
    std::ofstream(folder.path / "index.html") << "hello";
    std::filesystem::permissions(folder.path, std::filesystem::perms(0755));  // workers are nobody's
  }
};

// A host with a cluster of the plugin http.
struct fixture {
  folder_site files;
  watched_host host;
  std::optional<cluster> site;

  static cluster_options usual() {
    cluster_options options{.workers = 2};
    options.load = untiring();
    options.load.supervision.drain.calls = 10s;
    return options;
  }
  explicit fixture(cluster_options options = usual()) {
    options.settings["root"] = files.folder.path.string();
    options.settings["faults"] = "yes";
    policy rules;
    rules.allow_read(files.folder.path);
    options.load.policy = rules;
    site.emplace(host.self, plugin_path("http"), options);
  }

  http_client connect() { return http_client(site->port()); }
  // Waits until the statistics are as wanted.
  template <class F>
  bool until(F wanted) {
    const auto deadline = std::chrono::steady_clock::now() + 20s;
    while (!wanted(site->stats())) {
      if (std::chrono::steady_clock::now() > deadline) return false;
      std::this_thread::yield();
      std::this_thread::sleep_for(1ms);
    }
    return true;
  }
  static std::size_t serving(const cluster_stats& stats) {
    return static_cast<std::size_t>(
        std::count_if(stats.workers.begin(), stats.workers.end(), [](const auto& each) { return each.serving; }));
  }
  static std::size_t busy(const cluster_stats& stats) {
    std::size_t sum = 0;
    for (const auto& each : stats.workers) sum += each.busy;
    return sum;
  }
  static std::size_t open(const cluster_stats& stats) {
    std::size_t sum = stats.waiting;
    for (const auto& each : stats.workers) sum += each.open;
    return sum;
  }
  void kill_all() {
    for (const auto& each : site->stats().workers) ::kill(each.pid, SIGKILL);
  }
};

cluster_options with(enum schedule schedule, unsigned workers = 2) {
  cluster_options options = fixture::usual();
  options.schedule = schedule;
  options.workers = workers;
  return options;
}

std::string pid_of(const http_answer& status) { return status.body.substr(0, status.body.find(',')); }

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

template <class F>
bool eventually(F wanted) {
  const auto deadline = std::chrono::steady_clock::now() + 30s;
  while (!wanted())
    if (std::chrono::steady_clock::now() > deadline) return false;
    else std::this_thread::sleep_for(1ms);
  return true;
}

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
  std::vector<http_client> clients;
  for (int i = 0; i < 20; ++i) {
    clients.push_back(at.connect());
    REQUIRE(clients.back().get("/"));
  }
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
  std::vector<http_client> halves, idle;
  for (int i = 0; i < 5; ++i) {
    halves.push_back(at.connect());
    REQUIRE(halves.back().send("GET / HTTP/1.1\r\nHos"));
    idle.push_back(at.connect());
    REQUIRE(idle.back().get("/"));
  }
  REQUIRE(at.until([](const auto& stats) { return fixture::busy(stats) == 5; }));
  at.kill_all();
  for (http_client& each : halves) CHECK_FALSE(each.receive());
  for (http_client& each : idle) CHECK(each.get("/"));
  CHECK(at.site->stats().lost == 5);
}

TEST_CASE("a handler that crashes costs its own connection only") {
  fixture at(with(schedule::round_robin, 1));
  std::vector<http_client> others;
  for (int i = 0; i < 5; ++i) {
    others.push_back(at.connect());
    REQUIRE(others.back().get("/"));
  }
  REQUIRE(at.until([](const auto& stats) { return fixture::busy(stats) == 0; }));
  http_client one = at.connect();
  CHECK_FALSE(one.get("/crash"));
  for (http_client& each : others) CHECK(each.get("/"));
  CHECK(at.site->stats().lost == 1);
  REQUIRE(at.host.saw(watched_host::kind::exited));
  const auto report = at.host.last(watched_host::kind::exited).report;
  CHECK(report->signal == SIGSEGV);
  CHECK(report->method == "serve");
}

TEST_CASE("connections that no worker has taken yet survive its death") {
  fixture at(with(schedule::round_robin, 1));
  const pid_t pid = at.site->stats().workers.at(0).pid;
  ::kill(pid, SIGSTOP);
  std::vector<http_client> clients;
  for (int i = 0; i < 10; ++i) {
    clients.push_back(at.connect());
    REQUIRE(clients.back().send("GET / HTTP/1.1\r\nHost: a\r\n\r\n"));
  }
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
  std::vector<http_client> clients, halves;
  for (int i = 0; i < 10; ++i) {
    clients.push_back(at.connect());
    REQUIRE(clients.back().get("/status"));
    halves.push_back(at.connect());
    REQUIRE(halves.back().send("GET /status HTTP/1.1\r\nHos"));
  }
  REQUIRE(at.until([](const auto& stats) { return fixture::busy(stats) == 10; }));
  const auto before = pids(at.site->loaded());
  REQUIRE(at.site->loaded().recycle());
  REQUIRE(at.until([&](const auto& stats) {
    return std::any_of(stats.workers.begin(), stats.workers.end(), [](const auto& each) { return !each.serving; });
  }));
  for (http_client& each : halves) {
    REQUIRE(each.send("t: a\r\n\r\n"));
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

TEST_CASE("under load, of workers killed at random exactly the requests in progress are lost") {
  fixture at(with(schedule::round_robin, 3));
  load clients(at.site->port());
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
  CHECK(clients.refused == 0);
  CHECK(clients.wrong == 0);
  CHECK(clients.lost <= at.site->stats().lost);
  // One whose answer had been sent, but not noted as sent: the client sees the end of its connection with its next request.
  CHECK(clients.lost + clients.connections == at.site->stats().accepted + at.site->stats().lost);
}

TEST_CASE("shared: a dead worker takes its own connections along, no other, and both kinds are counted") {
  fixture at(with(schedule::shared, 1));
  std::vector<http_client> idle;
  for (int i = 0; i < 3; ++i) {
    idle.push_back(at.connect());
    REQUIRE(idle.back().get("/"));
  }
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
  std::vector<http_client> clients;
  for (int i = 0; i < 8; ++i) {
    clients.push_back(at.connect());
    REQUIRE(clients.back().send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
  }
  for (http_client& each : clients) {
    CHECK(each.receive());
    CHECK(each.ended());
    each = at.connect();
    REQUIRE(each.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
  }
  for (http_client& each : clients) CHECK(each.receive());
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
    std::vector<http_client> clients;
    for (int i = 0; i < 10; ++i) {
      clients.push_back(at.connect());
      REQUIRE(clients.back().get("/"));
    }
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
