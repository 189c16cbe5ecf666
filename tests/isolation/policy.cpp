// The policy itself, with no process: its text form, TOML, and what is left of it when a plugin asks for something else.
#include "denials.hpp"
#include <bulkhead/policy.hpp>

#include <catch2/catch.hpp>

using namespace bulkhead;
using namespace std::chrono_literals;

TEST_CASE("a policy's text form reads back as the same policy") {
  const policy written = policy{}
                             .allow_read("/usr/share/fonts")
                             .allow_write("/var/tmp/x")
                             .allow_create("/var/tmp/dir/")
                             .allow_connect(443)
                             .allow_bind(8080)
                             .allow_syscalls("jit")
                             .environment("TZ", "UTC")
                             .memory_limit(256 << 20)
                             .cpu_limit(2s)
                             .threads(4)
                             .descriptors(1000)
                             .kill_on_denial()
                             .at_least(sandbox_level::full);
  CHECK(policy::from_text(written.to_text()) == written);
  CHECK(written.to_text().find("create:/var/tmp/dir\n") != std::string::npos);
  CHECK(policy{}.to_text().empty());
}

TEST_CASE("grants that make no sense are refused with the reason") {
  CHECK_THROWS_WITH(policy{}.allow_read("relative/path"), Catch::Contains("not an absolute path"));
  CHECK_THROWS_WITH(policy{}.allow_syscalls("nonsense"), Catch::Contains("neither a group"));
  CHECK_THROWS_WITH(policy{}.allow_syscalls("ptrace"), Catch::Contains("never granted"));
  CHECK_THROWS_WITH(policy{}.add("connect:70000"), Catch::Contains("70000"));
  CHECK_THROWS_WITH(policy{}.without("namespaces"), Catch::Contains("no layer 'namespaces'"));
  CHECK_THROWS_WITH(policy{}.add("fly:high"), Catch::Contains("no grant 'fly'"));
  CHECK_THROWS_WITH(policy{}.environment("A\nB", "x"), Catch::Contains("impossible"));
  CHECK_THROWS_WITH(policy{}.add("handles:1"), Catch::Contains("takes no value"));
  CHECK_THROWS_WITH(policy{}.add("descriptors:3"), Catch::Contains("64"));
}

TEST_CASE("a policy is read from TOML with units, and mistakes name their line") {
  const policy read = policy::from_toml(R"(profile = "files"
read = ["/srv/a", "/srv/b"]
memory = "256 MiB"
cpu = "1.5 s"
threads = 4
handles = true
[environment]
TZ = "UTC"
)");
  policy expected = policy::files();
  expected.allow_read("/srv/a").allow_read("/srv/b").memory_limit(256 << 20).cpu_limit(1500ms).threads(4);
  expected.allow_handles().environment("TZ", "UTC");
  CHECK(read == expected);
  CHECK_THROWS_WITH(policy::from_toml("threads = 4\nmemory = \"3 furlongs\""), Catch::Contains("line 2"));
  CHECK_THROWS_WITH(policy::from_toml("reed = \"/x\""), Catch::Contains("line 1") && Catch::Contains("reed"));
  CHECK_THROWS_WITH(policy::from_toml("= 5"), Catch::Contains("line 1"));
}

TEST_CASE("what a plugin gets is what it asks for, as far as it is granted") {
  const policy host = policy{}.allow_read("/usr/share").allow_create("/var/cache/x").allow_connect(443).allow_handles();
  const std::vector<std::string> requests = {
      "read:/usr/share/fonts", "read:/etc/shadow", "write:/var/cache/x/file", "connect:443", "connect:80",
      "syscalls:jit",          "nonsense"};
  policy expected = policy{}.allow_read("/usr/share/fonts").allow_write("/var/cache/x/file").allow_connect(443);
  expected.add("within:/usr/share").add("within:/var/cache/x");  // where no link is followed
  CHECK(host.intersect(requests) == expected);
  CHECK(host.refused(requests) ==
        std::vector<std::string>{"read:/etc/shadow", "connect:80", "syscalls:jit", "nonsense"});
  CHECK(host.unasked(requests) == std::vector<std::string>{"read:/usr/share", "create:/var/cache/x", "handles"});
}

TEST_CASE("a path is covered by its directories, not by names that begin alike") {
  const policy host = policy{}.allow_read("/usr/share");
  CHECK(host.refused({"read:/usr/share"}).empty());
  CHECK(host.refused({"read:/usr/share-private/x"}).size() == 1);
  CHECK(host.refused({"read:/usr/share/../../etc"}).size() == 1);
  CHECK(host.refused({"write:/usr/share/x"}).size() == 1);
}

TEST_CASE("what was learned is boiled down to the least grants") {
  using cli::least_grants;
  CHECK(least_grants({"read:/usr/lib/x86_64-linux-gnu/libz.so", "read:/dev/null", "connect:443", "connect:PORT"}) ==
        std::vector<std::string>{"connect:443"});
  CHECK(least_grants({"create:/var/cache/x", "read:/var/cache/x/a", "write:/var/cache/x/b", "write:/var/log/y",
                      "read:/var/log/y"}) == std::vector<std::string>{"create:/var/cache/x", "write:/var/log/y"});
  CHECK(least_grants({"read:/srv/a", "read:/srv/b", "read:/srv/c"}) ==
        std::vector<std::string>{"read:/srv/a", "read:/srv/b", "read:/srv/c"});  // nothing that was not needed
}
