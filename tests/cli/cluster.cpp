// `bulkhead cluster` as an operator runs it: it serves, reloads, stops in good order, and says how it ended.
#include "http_client.hpp"
#include "program.hpp"

#include <csignal>

#include <sched.h>

using namespace bulkhead::testing;

namespace {

struct served {
  scratch_folder folder;
  std::unique_ptr<program> command;
  std::uint16_t port = 0;

  explicit served(std::vector<std::string> more = {}, std::vector<std::string> what = {"http", "--workers", "2"}) {
    write(folder / "index.html", "hello");
    std::filesystem::permissions(folder.path, std::filesystem::perms(0755));
    std::vector<std::string> argv{"bulkhead", "cluster", "--root", folder.path.string(), "--json"};
    argv.insert(argv.end(), what.begin(), what.end());
    argv.insert(argv.end(), more.begin(), more.end());
    command = std::make_unique<program>(argv);
    const std::string line = command->wait_for("}\n");
    const auto at = line.find("\"port\":");
    REQUIRE(at != std::string::npos);
    port = static_cast<std::uint16_t>(std::stoi(line.substr(at + 7)));
  }
};

}  // namespace

TEST_CASE("bulkhead cluster serves a directory until it is stopped, and reloads without an interruption") {
  const std::string schedule = GENERATE("round-robin", "shared");
  served at({"--schedule", schedule});
  http_client client(at.port);
  const auto answer = client.get("/");
  REQUIRE(answer);
  CHECK(answer->body == "hello");
  const auto old = client.get("/status");
  REQUIRE(old);
  const std::string pid = old->body.substr(0, old->body.find(','));
  at.command->signal(SIGHUP);
  // New workers answer, on the connections that there are already if the host has them.
  std::string now = pid;
  while (now == pid) {
    http_client other(at.port);
    const auto status = (schedule == "shared" ? other : client).get("/status");
    REQUIRE(status);
    now = status->body.substr(0, status->body.find(','));
  }
  at.command->signal(SIGTERM);
  const finished end = at.command->wait();
  CAPTURE(end.err);
  CHECK(end.status == 0);
  CHECK(end.err.find("\"event\":\"reloaded\"") != std::string::npos);
  CHECK(end.err.find("\"event\":\"stopped\"") != std::string::npos);
  CHECK(end.err.find("\"lost\":\"0\"") != std::string::npos);
}

TEST_CASE("bulkhead cluster takes a path to a plugin, and by default has a worker for each processor") {
  served at({}, {plugin_path("http")});
  http_client client(at.port);
  const auto answer = client.get("/");
  REQUIRE(answer);
  CHECK(answer->body == "hello");
  at.command->signal(SIGTERM);
  const finished end = at.command->wait();
  cpu_set_t usable;
  REQUIRE(::sched_getaffinity(0, sizeof usable, &usable) == 0);
  CAPTURE(end.err);
  CHECK(end.status == 0);
  CHECK(end.err.find(" with " + std::to_string(CPU_COUNT(&usable)) + " workers, round-robin") != std::string::npos);
}

TEST_CASE("bulkhead cluster publishes files, and what they have become when it is told to load again") {
  scratch_folder folder;
  write(folder / "news", "old");
  served at({"--set", "published=site/", "--publish", "site/news.txt=" + (folder / "news").string()});
  const auto news = [&] {
    http_client client(at.port);
    const auto answer = client.get("/news.txt");
    REQUIRE(answer);
    return answer->body;
  };
  CHECK(news() == "old");
  write(folder / "news", "new");
  at.command->signal(SIGHUP);
  while (news() != "new") {
  }
  std::filesystem::remove(folder / "news");
  at.command->signal(SIGHUP);
  CHECK(news() == "new");
  at.command->signal(SIGTERM);  // taken after the other
  const finished end = at.command->wait();
  CHECK(end.status == 0);
  CHECK(end.err.find("not published, what was published before stays") != std::string::npos);

  const finished wrong = run({"bulkhead", "cluster", "http", "--publish", "news"});
  CHECK(wrong.status == 2);
  CHECK(wrong.err.find("--publish news: expected NAME=FILE") != std::string::npos);
}

TEST_CASE("bulkhead cluster ends with a status of its own when its plugin has been given up") {
  served at({"--set", "faults=yes", "--restarts", "0"});
  http_client client(at.port);
  CHECK_FALSE(client.get("/crash"));
  const finished end = at.command->wait();
  CAPTURE(end.err);
  CHECK(end.status == 16);
  CHECK(end.err.find("SIGSEGV") != std::string::npos);
  CHECK(end.err.find("\"event\":\"gave up\"") != std::string::npos);
  CHECK(end.err.find("\"lost\":\"1\"") != std::string::npos);
}

TEST_CASE("bulkhead cluster says what is wrong with its command line, its port and its plugin") {
  CHECK(run({"bulkhead", "cluster", "http", "--root", "/no/such/place"}).status == 2);
  CHECK(run({"bulkhead", "cluster", "http", "--schedule", "random"}).status == 2);
  CHECK(run({"bulkhead", "cluster", "http", "--address", "localhost"}).status == 2);
  const finished unable = run({"bulkhead", "cluster", "echo", "--workers", "1"});
  CHECK(unable.status == 16);
  CHECK(unable.err.find("no method 'serve'") != std::string::npos);
  const finished unknown = run({"bulkhead", "cluster", "http", "--workers", "1", "--set", "rot=x"});
  CHECK(unknown.status == 16);
  CHECK(unknown.err.find("no setting 'rot'") != std::string::npos);
  served at;
  const finished taken = run({"bulkhead", "cluster", "http", "--port", std::to_string(at.port)});
  CHECK(taken.status == 3);
  CHECK(taken.err.find("port " + std::to_string(at.port)) != std::string::npos);
  at.command->signal(SIGTERM);
  CHECK(at.command->wait().status == 0);
}
