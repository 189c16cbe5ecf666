// What a plugin's file has to be before it is loaded, and that what is loaded is the file that was checked.
#include "../integration/fixture.hpp"
#include "sandbox/sha256.hpp"
#include <bulkhead/metrics.hpp>

#include <cstring>
#include <set>

#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

using namespace bulkhead;
using namespace bulkhead::testing;
namespace fs = std::filesystem;

namespace {

std::string hash(const std::string& text) {
  sandbox::sha256 made;
  made.add({reinterpret_cast<const std::uint8_t*>(text.data()), text.size()});
  return made.finish();
}

// A directory of its own with a copy of echo in it.
class shelf {
 public:
  shelf() {
    if (!::mkdtemp(path_.data())) throw_errno("mkdtemp");
    fs::copy_file(plugin_path("echo"), file());
  }
  ~shelf() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  const std::string& path() const { return path_; }
  std::string file() const { return path_ + "/echo.so"; }

 private:
  std::string path_ = "/var/tmp/bulkhead-shelf-XXXXXX";
};

std::string refusal(const std::string& file, const std::string& sha256 = "") {
  host host;
  const auto error = failure_of([&] { host.load(file, {.sha256 = sha256}); });
  CHECK(error.outcome() == outcome::rejected);
  return error.message();
}

}  // namespace

TEST_CASE("SHA-256 of the standard's examples") {
  CHECK(hash("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(hash("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  CHECK(hash("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") ==
        "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  CHECK(hash(std::string(1'000'000, 'a')) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST_CASE("a plugin that others could have written is refused, and so is one in a directory of that kind") {
  const shelf plugins;
  ::chmod(plugins.file().c_str(), 0757);
  CHECK(refusal(plugins.file()).find("written to by everybody") != std::string::npos);
  ::chmod(plugins.file().c_str(), 0755);
  ::chmod(plugins.path().c_str(), 0777);
  CHECK(refusal(plugins.file()).find(plugins.path() + " can be written to by everybody") != std::string::npos);
  ::chmod(plugins.path().c_str(), 0755);
  if (::getuid() == 0) {
    REQUIRE(::chown(plugins.file().c_str(), 12345, 0) == 0);
    CHECK(refusal(plugins.file()).find("belongs to another user") != std::string::npos);
    REQUIRE(::chown(plugins.file().c_str(), 0, 12345) == 0);
    ::chmod(plugins.file().c_str(), 0775);
    CHECK(refusal(plugins.file()).find("written to by a group (12345)") != std::string::npos);
    // Also if it is the host's own: others may be in it.
    REQUIRE(::setegid(12345) == 0);
    const std::string file = refusal(plugins.file());
    ::chmod(plugins.file().c_str(), 0755);
    REQUIRE(::chown(plugins.path().c_str(), 0, 12345) == 0);
    ::chmod(plugins.path().c_str(), 0775);
    const std::string directory = refusal(plugins.file());
    REQUIRE(::setegid(0) == 0);
    ::chmod(plugins.path().c_str(), 0755);
    CHECK(file.find("chmod g-w") != std::string::npos);
    CHECK(directory.find(plugins.path() + " can be written to by a group (12345)") != std::string::npos);
  }
  host host;
  CHECK(host.load(plugins.file()).call<int>("add", 1, 2) == 3);
}

TEST_CASE(
    "a plugin that another user may write to by an access list is refused, and so is one in a directory of that kind") {
  const shelf plugins;
  // Its version, then tag, rights and number of each entry: owner, user 12345, group, mask, others. The mode is 0775 then.
  const std::uint32_t list[] = {2, 0x70001, ~0u, 0x70002, 12345, 0x50004, ~0u, 0x70010, ~0u, 0x50020, ~0u};
  const auto let_write = [&](const std::string& path) {
    return ::setxattr(path.c_str(), "system.posix_acl_access", list, sizeof list, 0) == 0;
  };
  if (!let_write(plugins.file())) {
    WARN("no access lists here: " << std::strerror(errno));
    return;
  }
  CHECK(refusal(plugins.file()).find("echo.so can be written to by whom its access list names") != std::string::npos);
  ::chmod(plugins.file().c_str(), 0755);
  REQUIRE(let_write(plugins.path()));
  CHECK(refusal(plugins.file()).find(plugins.path() + " can be written to by whom") != std::string::npos);
  ::chmod(plugins.path().c_str(), 0755);  // the list is still there, and lets nobody write
  host host;
  CHECK(host.load(plugins.file()).call<int>("add", 1, 2) == 3);
}

TEST_CASE("links, pipes and devices are no plugins") {
  const shelf plugins;
  const std::string link = plugins.path() + "/link.so", pipe = plugins.path() + "/pipe.so";
  fs::create_symlink(plugins.file(), link);
  CHECK(refusal(link).find("symbolic link") != std::string::npos);
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  CHECK(refusal(pipe).find("not a regular file") != std::string::npos);
  CHECK(refusal("/dev/null").find("not a regular file") != std::string::npos);
  // A link among the directories is resolved first, and what it leads to is checked.
  const std::string other = plugins.path() + "-other";
  fs::create_directory_symlink(plugins.path(), other);
  host host;
  CHECK(host.load(other + "/echo.so").call<int>("add", 1, 2) == 3);
  fs::remove(other);
}

TEST_CASE("a file that is too large to be a plugin is refused before any of it is read") {
  const shelf plugins;
  fs::resize_file(plugins.file(), (std::uintmax_t{512} << 20) + 1);  // sparse
  CHECK(refusal(plugins.file()).find("is larger than 512 MiB") != std::string::npos);
}

TEST_CASE("a plugin may be pinned to its contents") {
  const shelf plugins;
  std::ifstream in(plugins.file(), std::ios::binary);
  const std::string contents((std::istreambuf_iterator<char>(in)), {});
  host host;
  CHECK(host.load(plugins.file(), {.sha256 = hash(contents)}).call<int>("add", 1, 2) == 3);
  CHECK(refusal(plugins.file(), hash("something else")).find("expected " + hash("something else")) !=
        std::string::npos);
}

TEST_CASE("a plugin in this process that is pinned runs from the copy that was hashed, not from its file") {
  const shelf plugins;
  std::ifstream in(plugins.file(), std::ios::binary);
  const std::string contents((std::istreambuf_iterator<char>(in)), {});
  host host;
  auto pinned = host.load(plugins.file(), {.isolation = isolation::none, .sha256 = hash(contents)});
  CHECK(pinned.call<int>("add", 1, 2) == 3);
  std::ifstream maps("/proc/self/maps");
  const std::string mapped((std::istreambuf_iterator<char>(maps)), {});
  CHECK(mapped.find(plugins.file()) == std::string::npos);
  CHECK(mapped.find("memfd:bulkhead-plugin") != std::string::npos);
}

namespace {

std::set<pid_t> children() {
  std::set<pid_t> found;
  for (const auto& task : fs::directory_iterator("/proc/self/task")) {
    std::ifstream in(task.path() / "children");
    for (pid_t pid; in >> pid;) found.insert(pid);
  }
  return found;
}

}  // namespace

TEST_CASE("a file that kills or stops the probe that reads its manifest is refused until it changes") {
  for (const int signal : {SIGKILL, SIGSTOP}) {
    INFO("signal " << signal);
    const shelf plugins;
    host host;
    host.load(plugins.file());  // the fork server is there, and what comes now is workers
    load_options granting{.policy = policy{}.allow_read("/etc")};
    load_options hurried = granting;
    if (signal == SIGSTOP) hurried.start_timeout = 1s;
    const auto known = children();
    std::optional<call_error> refused;
    // What a flaw in the reader would do to the probe, somebody else does here; he may come too late.
    for (int attempt = 0; attempt < 500 && !refused; ++attempt) {
      std::jthread killer([&](const std::stop_token& stop) {
        while (!stop.stop_requested())
          for (const pid_t pid : children())
            if (!known.contains(pid)) {
              ::kill(pid, signal);
              return;
            }
      });
      std::ofstream(plugins.file(), std::ios::app | std::ios::binary) << '\0';
      try {
        host.load(plugins.file(), hurried);
      } catch (const call_error& error) {
        if (error.outcome() == outcome::rejected) refused = error;
      }
    }
    REQUIRE(refused);
    CHECK(refused->message().find("reading its manifest killed a worker") != std::string::npos);
    CHECK(failure_of([&] { host.load(plugins.file(), granting); }).message() == refused->message());
    std::ofstream(plugins.file(), std::ios::app | std::ios::binary) << '\0';
    CHECK(host.load(plugins.file(), granting).call<int>("add", 1, 2) == 3);
  }
}

TEST_CASE("a file's manifest is read by one probe until the file changes") {
  const shelf plugins;
  const std::string copy = plugins.path() + "/copy.so";
  fs::copy_file(plugins.file(), copy);
  host host;
  const auto probes = [&](const std::string& file) {
    return host.load(file, {.policy = policy{}.allow_read("/etc")}).metrics().probes;
  };
  CHECK(probes(plugins.file()) == 1);
  CHECK(probes(plugins.file()) == 0);
  CHECK(probes(copy) == 0);  // the same by its contents
  std::ofstream(plugins.file(), std::ios::app | std::ios::binary) << '\0';
  CHECK(probes(plugins.file()) == 1);
  CHECK(probes(plugins.file()) == 0);
  CHECK(probes(copy) == 0);
}

TEST_CASE("workers started later run the file that was checked, whatever became of it") {
  const shelf plugins;
  host host;
  auto echo = host.load(plugins.file());
  // Overwritten in place: the same inode.
  std::ofstream(plugins.file(), std::ios::trunc) << "not a plugin any more";
  ::kill(echo.workers().at(0).pid, SIGKILL);
  reply last;
  for (int i = 0; i < 100 && !(last = echo.try_call("add", 20, 22)); ++i)
    CHECK(last.outcome() != outcome::plugin_error);
  CHECK(last.as<int>() == 42);
  CHECK(failure_of([&] { host.load(plugins.file()); }).message().find("not an ELF file") != std::string::npos);
}
