// The plugin sqlite in a real worker: databases that the test makes with the real library.
#include "fixture.hpp"

#include <sqlite3.h>

#include <fcntl.h>

using namespace bulkhead;
using namespace bulkhead::testing;
using Catch::Matchers::Contains;

namespace {

// A file that is closed with this object.
unique_fd database(const scratch_folder& folder, const std::string& sql) {
  const auto file = folder.path / "test.db";
  sqlite3* made = nullptr;
  REQUIRE(sqlite3_open(file.c_str(), &made) == SQLITE_OK);
  char* error = nullptr;
  sqlite3_exec(made, sql.c_str(), nullptr, nullptr, &error);
  INFO((error ? error : ""));
  REQUIRE(!error);
  sqlite3_close(made);
  unique_fd opened(::open(file.c_str(), O_RDONLY | O_CLOEXEC));
  REQUIRE(opened);
  return opened;
}

const char* const people =
    "CREATE TABLE people(name TEXT, age INT, photo BLOB);"
    "INSERT INTO people VALUES('Ada', 36, x'00ff'), ('Grace', 85, NULL), ('Edsger', 72, NULL);"
    "CREATE VIEW old AS SELECT name FROM people WHERE age > 70;";

struct one_row {
  std::string name;
  std::optional<std::int64_t> age;
  MSGPACK_DEFINE_MAP(name, age)
};

template <class... A>
std::vector<one_row> rows(const plugin& sqlite, const unique_fd& file, const A&... more) {
  streaming_call query = sqlite.with({.deadline = 100s}).open("query", pass_fd{file.get()}, more...);
  std::vector<one_row> found;
  while (auto next = query.next<one_row>()) found.push_back(std::move(*next));
  CHECK(query.finish().as<std::size_t>() == found.size());
  return found;
}

template <class... A>
std::string error(const plugin& sqlite, const unique_fd& file, const A&... more) {
  streaming_call query = sqlite.open("query", pass_fd{file.get()}, more...);
  const reply done = query.finish();
  CHECK(done.outcome() == outcome::plugin_error);
  return done.message();
}

}  // namespace

TEST_CASE("sqlite queries a database that it gets as a descriptor, and streams the rows") {
  host host;
  const scratch_folder folder;
  const unique_fd file = database(folder, people);
  const plugin sqlite = host.load(plugin_path("sqlite"));
  const auto all = rows(sqlite, file, "SELECT name, age FROM people ORDER BY age DESC");
  REQUIRE(all.size() == 3);
  CHECK(all[0].name == "Grace");
  CHECK(all[0].age == 85);
  CHECK(rows(sqlite, file, "SELECT name, age FROM people WHERE age > ?", std::vector<int>{80}).size() == 1);
  const std::map<std::string, std::string> named{{"who", "Ada"}};
  CHECK(rows(sqlite, file, "SELECT name, age FROM people WHERE name = :who", named).at(0).age == 36);
  CHECK(sqlite.call<std::vector<std::string>>("tables", pass_fd{file.get()}) ==
        std::vector<std::string>{"old", "people"});

  streaming_call blobs = sqlite.open("query", pass_fd{file.get()}, "SELECT photo FROM people WHERE photo NOT NULL");
  CHECK(blobs.next<std::map<std::string, bytes>>()->at("photo") == bytes{0x00, 0xff});
}

TEST_CASE("sqlite streams more rows than fit into a window, and stops when the caller does") {
  host host;
  const scratch_folder folder;
  const unique_fd file = database(folder, "CREATE TABLE t(x)");
  const plugin sqlite = host.load(plugin_path("sqlite"));
  const char* many =
      "WITH RECURSIVE c(name) AS (SELECT 1 UNION ALL SELECT name + 1 FROM c LIMIT 50000) SELECT 'row ' || name AS name, "
      "name AS age FROM c";
  CHECK(rows(sqlite, file, many).size() == 50000);

  streaming_call endless = sqlite.open(
      "query", pass_fd{file.get()}, "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c");
  REQUIRE(endless.next_packed());
  endless.cancel();
  CHECK(endless.finish().outcome() == outcome::cancelled);
  CHECK(rows(sqlite, file, "SELECT 'still there' AS name, 1 AS age").size() == 1);
}

TEST_CASE("sqlite stops a query without rows at its deadline") {
  host host;
  const scratch_folder folder;
  const unique_fd file = database(folder, "CREATE TABLE t(x)");
  const plugin sqlite = host.load(plugin_path("sqlite"));
  const pid_t worker = sqlite.workers().at(0).pid;
  streaming_call query =
      sqlite.with({.deadline = 100ms})
          .open("query", pass_fd{file.get()},
                "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT max(x) FROM c");
  CHECK(query.finish().outcome() == outcome::timeout);
  CHECK(rows(sqlite, file, "SELECT 'same worker' AS name, 1 AS age").size() == 1);
  CHECK(sqlite.workers().at(0).pid == worker);
}

TEST_CASE("sqlite refuses to write, to open other files, and several statements") {
  host host;
  const scratch_folder folder;
  const unique_fd file = database(folder, people);
  const plugin sqlite = host.load(plugin_path("sqlite"));
  CHECK_THAT(error(sqlite, file, "DELETE FROM people"), Contains("writes") || Contains("readonly"));
  CHECK_THAT(error(sqlite, file, "ATTACH '/etc/passwd' AS other"), Contains("attached"));
  CHECK_THAT(error(sqlite, file, "SELECT 1; SELECT 2"), Contains("more than one"));
  CHECK_THAT(error(sqlite, file, "SELECT load_extension('x.so')"),
             Contains("not authorized") || Contains("no such function"));
  CHECK_THAT(error(sqlite, file, "SELECT missing"), Contains("no such column"));
  CHECK_THAT(error(sqlite, file, "SELECT ?"), Contains("1 parameters, got 0"));
  CHECK_THAT(error(sqlite, file, " "), Contains("no statement"));
  CHECK(rows(sqlite, file, "SELECT name, age FROM people").size() == 3);
}

TEST_CASE("sqlite: a file that is no database, or a broken one, is an error and nothing more") {
  host host;
  const scratch_folder folder;
  const plugin sqlite = host.load(plugin_path("sqlite"));
  const pid_t worker = sqlite.workers().at(0).pid;
  {
    const auto text = folder.path / "text";
    std::ofstream(text) << std::string(5000, 'x');
    const unique_fd file(::open(text.c_str(), O_RDONLY | O_CLOEXEC));
    CHECK_THAT(error(sqlite, file, "SELECT * FROM sqlite_schema"), Contains("not a database"));
  }
  // Damage all over a real one: whatever comes of it, the worker lives.
  const unique_fd good = database(folder, people + std::string("CREATE INDEX i ON people(name);"));
  std::vector<char> image(static_cast<std::size_t>(::lseek(good.get(), 0, SEEK_END)));
  REQUIRE(::pread(good.get(), image.data(), image.size(), 0) == static_cast<ssize_t>(image.size()));
  for (std::size_t at = 0; at < image.size(); at += 97) {
    std::vector<char> broken = image;
    broken[at] = static_cast<char>(~broken[at]);
    const auto path = folder.path / "broken";
    std::ofstream(path, std::ios::binary | std::ios::trunc)
        .write(broken.data(), static_cast<std::streamsize>(broken.size()));
    const unique_fd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    streaming_call query = sqlite.open("query", pass_fd{file.get()}, "SELECT * FROM people ORDER BY name");
    const reply done = query.finish();
    CHECK((done.outcome() == outcome::ok || done.outcome() == outcome::plugin_error));
  }
  CHECK(sqlite.workers().at(0).pid == worker);
}
