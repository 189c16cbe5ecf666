// The plugin http as a server: what it answers, and what it does with clients that end early, read slowly or send garbage.
#include "cluster_fixture.hpp"

using namespace bulkhead;
using namespace bulkhead::testing;
using fixture = cluster_fixture;

namespace {

struct one_worker : fixture {
  explicit one_worker(std::map<std::string, std::string> settings = {})
      : fixture([&] {
          cluster_options options = with(schedule::round_robin, 1);
          options.settings = std::move(settings);
          return options;
        }()) {}
  std::string big(std::size_t size) {
    std::string text;
    while (text.size() < size) text += std::to_string(text.size()) + " ";
    std::ofstream(files.folder.path / "big.txt") << text;
    return text;
  }
  // Nothing of what the client did is left.
  bool clean() {
    return until([](const auto& stats) { return open(stats) == 0; });
  }
};

bool has(const http_answer& answer, const std::string& header) {
  return answer.headers.find(header + "\r\n") != std::string::npos;
}

}  // namespace

TEST_CASE("http: files, their types, heads, ranges and what has not changed") {
  one_worker at;
  const std::string text = at.big(200'000);
  http_client client = at.connect();
  const auto index = client.get("/");
  REQUIRE(index);
  CHECK((index->status == 200 && index->body == "hello" && has(*index, "Content-Type: text/html; charset=utf-8")));
  const auto whole = client.get("/big.txt");
  REQUIRE(whole);
  CHECK((whole->status == 200 && whole->body == text && has(*whole, "Content-Type: text/plain; charset=utf-8")));
  const auto part = client.get("/big.txt", "Range: bytes=100000-100009\r\n");
  REQUIRE(part);
  CHECK((part->status == 206 && part->body == text.substr(100000, 10)));
  CHECK(has(*part, "Content-Range: bytes 100000-100009/" + std::to_string(text.size())));
  const auto none = client.get("/big.txt", "Range: bytes=900000-\r\n");
  REQUIRE(none);
  CHECK((none->status == 416 && has(*none, "Content-Range: bytes */" + std::to_string(text.size()))));
  const auto at_modified = whole->headers.find("Last-Modified: ") + 15;
  const std::string modified =
      whole->headers.substr(at_modified, whole->headers.find("\r\n", at_modified) - at_modified);
  const auto unchanged = client.get("/big.txt", "If-Modified-Since: " + modified + "\r\n");
  REQUIRE(unchanged);
  CHECK((unchanged->status == 304 && unchanged->body.empty()));
  REQUIRE(client.send("HEAD /big.txt HTTP/1.1\r\nHost: a\r\n\r\n"));
  const auto head = client.receive(true);
  REQUIRE(head);
  CHECK((head->status == 200 && has(*head, "Content-Length: " + std::to_string(text.size()))));
  const auto missing = client.get("/none");
  REQUIRE(missing);
  CHECK(missing->status == 404);
  const auto outside = client.get("/../../etc/passwd");
  REQUIRE(outside);
  CHECK(outside->status == 400);
  const auto status = client.get("/status");
  REQUIRE(status);
  CHECK(has(*status, "Content-Type: application/json"));
  CHECK(status->body.find("\"requests\":9,") != std::string::npos);  // this one is the tenth
  CHECK(at.site->stats().accepted == 1);
}

TEST_CASE("http: requests that come at once are answered in order") {
  one_worker at;
  http_client client = at.connect();
  std::string all;
  for (int i = 0; i < 50; ++i)
    all += i % 2 ? "GET /none HTTP/1.1\r\nHost: a\r\n\r\n" : "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
  REQUIRE(client.send(all));
  for (int i = 0; i < 50; ++i) {
    const auto answer = client.receive();
    REQUIRE(answer);
    CHECK(answer->status == (i % 2 ? 404 : 200));
  }
}

TEST_CASE("http: what can't be answered is refused, and the connection ends in good order") {
  one_worker at;
  const std::pair<std::string, int> bad[] = {
      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc", 405},
      {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 999999\r\n\r\n", 413},
      {"GET / HTTP/1.1\r\nX: " + std::string(40'000, 'x') + "\r\n\r\n", 431},
      {"GET / HTTP/9.7\r\n\r\n", 400},
      {std::string("\x16\x03\x01\x00\xff\x00garbage\r\n\r\n", 17), 400},
  };
  for (const auto& [text, status] : bad) {
    CAPTURE(text.substr(0, 40));
    http_client client = at.connect();
    client.send(text);
    const auto answer = client.receive();
    REQUIRE(answer);
    CHECK(answer->status == status);
    CHECK(has(*answer, "Connection: close"));
    CHECK(client.ended());
  }
  CHECK(at.clean());
  CHECK(at.site->stats().lost == 0);
}

TEST_CASE("http: a client that has said its last still gets its answer") {
  one_worker at;
  const std::string text = at.big(3'000'000);
  http_client client = at.connect();
  REQUIRE(client.send("GET /big.txt HTTP/1.1\r\nHost: a\r\n\r\n"));
  client.half_close();
  const auto answer = client.receive();
  REQUIRE(answer);
  CHECK(answer->body == text);
  CHECK(client.ended());
  CHECK(at.clean());
}

TEST_CASE("http: clients that vanish leave nothing behind, in the middle of a request or of an answer") {
  one_worker at;
  at.big(8'000'000);
  for (int i = 0; i < 10; ++i) {
    at.connect();
    at.connect().send("GET / HT");
    REQUIRE(at.connect().send("GET /big.txt HTTP/1.1\r\nHost: a\r\n\r\n"));  // reset: it has not read the answer
    http_client rude = at.connect();
    rude.send("GET /big.txt HTTP/1.1\r\nHost: a\r\n\r\n");
    const linger now{1, 0};
    ::setsockopt(rude.fd(), SOL_SOCKET, SO_LINGER, &now, sizeof now);
  }
  CHECK(at.clean());
  CHECK(at.connect().get("/"));
  CHECK(at.site->stats().lost == 0);
}

// More than the sockets' buffers take while nobody reads.
TEST_CASE("http: a slow reader holds up nobody else, and gets all of it, through a reload as well") {
  one_worker at;
  const std::string text = at.big(20'000'000);
  http_client slow = at.connect();
  REQUIRE(slow.send("GET /big.txt HTTP/1.1\r\nHost: a\r\n\r\n"));
  REQUIRE(at.until([](const auto& stats) { return fixture::busy(stats) == 1; }));
  for (int i = 0; i < 20; ++i) CHECK(at.connect().get("/"));
  const auto before = pids(at.site->loaded());
  at.site->loaded().reload(plugin_path("http"));
  CHECK(at.connect().get("/"));
  CHECK(pids(at.site->loaded()).contains(*before.begin()));  // the old one waits for it
  const auto answer = slow.receive();
  REQUIRE(answer);
  CHECK(answer->body == text);
  CHECK(slow.get("/"));  // from the new one
  CHECK(at.site->stats().lost == 0);
}

TEST_CASE("http: who makes no progress is let go") {
  one_worker at({{"patience", "1"}, {"keep_alive", "1"}});
  http_client half = at.connect(), idle = at.connect();
  REQUIRE(half.send("GET / HT"));
  REQUIRE(idle.get("/"));
  CHECK(half.ended());
  CHECK(idle.ended());
  CHECK(at.clean());
}

namespace {

bytes bytes_of(const std::string& text) { return {text.begin(), text.end()}; }

// Waits until this connection's worker answers with `body`.
bool becomes(http_client& client, const std::string& target, int status, const std::string& body) {
  for (const auto end = std::chrono::steady_clock::now() + 20s; std::chrono::steady_clock::now() < end;) {
    const auto answer = client.get(target);
    if (!answer) return false;
    if (answer->status == status && (status != 200 || answer->body == body)) return true;
  }
  return false;
}

cluster_options publishing(enum schedule how) {
  cluster_options options = with(how, 2);
  options.settings["published"] = "site/";
  return options;
}

}  // namespace

TEST_CASE("http: what is published is served by every worker, each version as soon as there is one") {
  const auto how = GENERATE(schedule::round_robin, schedule::shared);
  fixture at(publishing(how));
  bulkhead::host& host = at.host.self;
  std::vector<http_client> clients;
  for (int i = 0; i < 6; ++i) clients.push_back(at.connect());
  for (auto& each : clients) {
    const auto none = each.get("/a.json");
    REQUIRE(none);
    CHECK(none->status == 404);
  }
  // Nothing but the announcement has a worker look again, whether it has found something before or not.
  for (const char* const text : {"{\"version\":1}", "{\"version\":2}", ""}) {
    host.publish("site/a.json", bytes_of(text));
    for (auto& each : clients) CHECK(becomes(each, "/a.json", 200, text));
  }
  host.publish("a.json", bytes_of("not the site's"));
  host.publish("site/index.html", bytes_of("from memory"));
  for (auto& each : clients) CHECK(becomes(each, "/index.html", 200, "from memory"));

  at.kill_all();  // those that come after them know as much
  CHECK(at.until([](const auto& stats) { return fixture::serving(stats) == 2; }));
  http_client later = at.connect();
  const auto known = later.get("/index.html");
  REQUIRE(known);
  CHECK(known->body == "from memory");

  host.unpublish("site/a.json");
  host.unpublish("site/index.html");
  CHECK(becomes(later, "/a.json", 404, {}));
  CHECK(becomes(later, "/index.html", 200, "hello"));  // the file
}

TEST_CASE("http: a published value has its type, version, ranges and head, and nothing outside of it is reached") {
  fixture at(publishing(schedule::round_robin));
  bulkhead::host& host = at.host.self;
  const std::string text(100'000, 'x');
  host.publish("secret", bytes_of("no"));
  const auto version = host.publish("site/data.csv", bytes_of(text));
  http_client client = at.connect();
  CHECK(becomes(client, "/data.csv?x=1", 200, text));
  const auto whole = client.get("/data.csv");
  REQUIRE(whole);
  CHECK(has(*whole, "Content-Type: text/csv; charset=utf-8"));
  const std::string tag = "\"" + std::to_string(version) + "\"";
  CHECK(has(*whole, "ETag: " + tag));
  const auto same = client.get("/data.csv", "If-None-Match: " + tag + "\r\n");
  REQUIRE(same);
  CHECK((same->status == 304 && same->body.empty()));
  const auto part = client.get("/data.csv", "Range: bytes=99990-\r\n");
  REQUIRE(part);
  CHECK((part->status == 206 && part->body == std::string(10, 'x')));
  CHECK(has(*part, "Content-Range: bytes 99990-99999/100000"));
  REQUIRE(client.send("HEAD /data.csv HTTP/1.1\r\nHost: a\r\n\r\n"));
  const auto head = client.receive(true);
  REQUIRE(head);
  CHECK((head->status == 200 && has(*head, "Content-Length: 100000")));
  for (const char* const target : {"/secret", "/../secret", "/%2e%2e/secret", "/.", "/"}) {
    const auto answer = client.get(target);
    REQUIRE(answer);
    CHECK(answer->body != "no");
  }
}

TEST_CASE("http: a slow reader gets the version that it began with, though it is published anew and withdrawn") {
  fixture at(publishing(schedule::round_robin));
  bulkhead::host& host = at.host.self;
  std::string text;
  while (text.size() < (std::size_t{16} << 20)) text += std::to_string(text.size()) + " ";
  host.publish("site/big.txt", bytes_of(text));
  http_client slow = at.connect(), other = at.connect();
  REQUIRE(slow.send("GET /big.txt HTTP/1.1\r\nHost: a\r\n\r\n"));
  const auto begun = slow.receive(true);  // the headers, and so much of the body as came along
  REQUIRE(begun);
  host.publish("site/big.txt", bytes_of("small"));
  CHECK(becomes(other, "/big.txt", 200, "small"));
  host.unpublish("site/big.txt");
  CHECK(becomes(other, "/big.txt", 404, {}));
  const auto rest = slow.body(text.size());
  REQUIRE(rest);
  CHECK((*rest == text));
  CHECK(becomes(slow, "/big.txt", 404, {}));
}
