// What a policy grants is to be had, and what it does not grant is not. How denials are told is in denials.cpp.
#include "../features.hpp"
#include "guest.hpp"

#include <csignal>

#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <sys/wait.h>

using namespace bulkhead;
using namespace bulkhead::testing;

namespace {

constexpr int create = O_CREAT, nothing = 0;

}  // namespace

TEST_CASE("files are readable where granted and nowhere else") {
  const scratch files;
  host host;
  CHECK(error_of(guest(host, {}).try_call("read_file", files.file())) == "ENOENT");
  auto reader = guest(host, policy{}.allow_read(files.path()));
  CHECK(reader.call<std::string>("read_file", files.file()) == "content");
  CHECK(error_of(reader.try_call("read_file", "/etc/passwd")) == "ENOENT");
  CHECK(error_of(reader.try_call("write_file", files.file(), nothing, 1)) == "EPERM");
  auto one = guest(host, policy{}.allow_read(files.file()));
  CHECK(one.call<std::string>("read_file", files.file()) == "content");
  // Without a root of its own, Landlock holds the same line.
  auto landlocked = guest(host, policy{}.allow_read(files.path()).without("root"));
  CHECK(landlocked.call<std::string>("read_file", files.file()) == "content");
  CHECK(error_of(landlocked.try_call("read_file", "/etc/passwd")) == "EACCES");
}

TEST_CASE("files are writable where granted, and made only where that is granted") {
  const scratch files;
  host host;
  auto writer = guest(host, policy{}.allow_write(files.path()));
  CHECK(writer.call<int>("write_file", files.file(), nothing, 3) == 3);
  CHECK(error_of(writer.try_call("write_file", files.path() + "/new", create, 1)) == "EACCES");
  auto maker = guest(host, policy{}.allow_create(files.path()));
  CHECK(maker.call<int>("write_file", files.path() + "/new", create, 5) == 5);
  CHECK(std::filesystem::file_size(files.path() + "/new") == 5);
  CHECK(error_of(maker.try_call("write_file", "/usr/lib/new", create, 1)) != "");
}

TEST_CASE("the files profile has a temporary directory of its own, of limited size") {
  host host;
  auto first = guest(host, policy::files()), second = guest(host, policy::files());
  CHECK(first.call<int>("write_file", "/tmp/mine", create, 10) == 10);
  CHECK(first.call<std::string>("read_file", "/tmp/mine").size() == 10);
  CHECK(error_of(second.try_call("read_file", "/tmp/mine")) == "ENOENT");
  CHECK(!std::filesystem::exists("/tmp/mine"));
  CHECK(first.call<int>("write_file", "/tmp/large", create, 200 << 20) < (65 << 20));
}

TEST_CASE("where a temporary directory of its own can't be had, the machine's is not given instead") {
  host host;
  auto rootless = guest(host, policy::files().without("root"));
  const std::string file = "/tmp/bulkhead-grants-" + std::to_string(::getpid());
  CHECK(error_of(rootless.try_call("write_file", file, create, 10)) == "EACCES");
  CHECK_FALSE(std::filesystem::remove(file));
  CHECK(error_of(rootless.try_call("read_file", "/tmp")) == "EACCES");
  const auto layers = rootless.workers().at(0).sandbox.layers;
  CHECK(std::any_of(layers.begin(), layers.end(), [](const sandbox_layer& each) {
    return each.name == "root" && each.detail.find("no /tmp of its own") != std::string::npos;
  }));
}

TEST_CASE("TCP reaches the granted port and no other, by no way") {
  const listener granted, other;
  host host;
  CHECK(error_of(guest(host, {}).try_call("connect_to", granted.port, false)) == "EPERM");
  auto client = guest(host, policy{}.allow_connect(static_cast<std::uint16_t>(granted.port)));
  CHECK(client.try_call("connect_to", granted.port, false));
  CHECK(error_of(client.try_call("connect_to", other.port, false)) == "EACCES");
  CHECK(error_of(client.try_call("connect_to", other.port, true)) == "EPERM");  // TCP Fast Open
}

TEST_CASE("a plugin listens on the granted port and no other") {
  const auto free_port = [] { return listener().port; };
  const int granted = free_port(), other = free_port();
  host host;
  CHECK(error_of(guest(host, {}).try_call("listen_on", granted)) == "EPERM");
  CHECK(error_of(guest(host, policy{}.allow_connect(443)).try_call("listen_on", granted)) == "EPERM");
  auto server = guest(host, policy{}.allow_bind(static_cast<std::uint16_t>(granted)));
  CHECK(error_of(server.try_call("listen_on", other)) == "EACCES");
  REQUIRE(server.try_call("listen_on", granted));
  CHECK(
      guest(host, policy{}.allow_connect(static_cast<std::uint16_t>(granted))).try_call("connect_to", granted, false));
}

TEST_CASE("the clock and random numbers are always granted") {
  host host;
  CHECK(guest(host, policy::strict()).call<bool>("clock_and_random"));
}

TEST_CASE("children run only where granted") {
  host host;
  CHECK(error_of(guest(host, {}).try_call("run", "/bin/true")) == "EPERM");
  auto parent = guest(host, policy{}.allow_subprocesses().allow_read("/usr/bin").allow_read("/bin"));
  CHECK(parent.call<int>("run", "/bin/true") == 0);
  CHECK(parent.call<int>("run", "/bin/false") == 1);
}

TEST_CASE("the environment is what the policy says") {
  host host;
  auto with = guest(host, policy{}.environment("LANG", "C"));
  CHECK(with.call<std::string>("variable", "LANG") == "C");
  CHECK(with.call<std::string>("variable", "PATH").empty());
  CHECK(with.call<std::string>("variable", "BULKHEAD_CHANNEL_FD").empty());
}

#ifndef BULKHEAD_SANITIZED  // which does not let a plugin look at memory that is not its own
TEST_CASE("what is in a worker's environment is nowhere in the memory of the workers after it") {
  const std::string by_policy = "granted-by-the-policy-4f1d", by_options = "given-with-the-options-9c07",
                    brief = "S=7qZ$k2!vX";  // a string of the C++ library's that has no memory of its own
  const auto times = [](plugin& in, std::string text) {
    for (char& each : text) each = static_cast<char>(~each);
    return in.call<int>("times_in_memory", bytes(text.begin(), text.end()));
  };
  // To look for its own memory.
  const policy looking = policy{}.allow_read("/proc").without("root");
  host host;
  auto owner = host.load(plugin_path("guest"), {.environment = {"GIVEN=" + by_options, brief},
                                                .policy = policy(looking).environment("GRANTED", by_policy)});
  // Its memory began as a copy of the fork server's, as it was when that had cloned the owner.
  auto other = guest(host, looking);
  CHECK(owner.call<std::string>("variable", "GRANTED") == by_policy);
  CHECK(owner.call<std::string>("variable", "GIVEN") == by_options);
  for (const std::string& each : {by_policy, by_options, brief}) {
    INFO(each);
    CHECK(times(owner, each) > 0);
    CHECK(times(other, each) == 0);
  }
}
#endif

TEST_CASE("threads are counted for each worker by itself") {
  host host;
  auto few = guest(host, policy{}.threads(8)), neighbour = guest(host, policy{}.threads(8));
#ifdef __SANITIZE_THREAD__
  const int left = 6;  // one is the sanitizer's
#else
  const int left = 7;
#endif
  CHECK(few.call<int>("make_threads", 100) == left);
  CHECK(neighbour.call<int>("make_threads", 100) == left);
}

TEST_CASE("a fork bomb is held to its number and gone with its worker") {
  host host;
  auto bomb = guest(host, policy{}.allow_subprocesses().threads(1100));
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  const unique_fd reading(ends[0]);
  {
    const unique_fd writing(ends[1]);  // all that it starts have it, too
    bomb.call("hold", pass_fd{writing.get()});
  }
  const int made = bomb.call<int>("make_children", 2000);  // each third of them makes another
  CHECK(made < 1100);
#ifdef __SANITIZE_THREAD__
  CHECK(made > 300);  // it gives each process a thread more
#else
  CHECK(made > 500);
#endif
  bomb.unload();
  pollfd end{reading.get(), POLLIN, 0};
  REQUIRE(::poll(&end, 1, 30'000) == 1);
  char none = 0;
  CHECK(::read(reading.get(), &none, 1) == 0);
}

TEST_CASE("a worker is the first to go when memory runs out, and nobody's to trace") {
  host host;
  auto plain = guest(host, {});
  int adjustment = 0;
  std::ifstream("/proc/" + std::to_string(plain.workers().at(0).pid) + "/oom_score_adj") >> adjustment;
  CHECK(adjustment == 1000);
#ifndef BULKHEAD_SANITIZED
  CHECK(plain.call<int>("dumpable") == 0);
#endif
}

TEST_CASE("groups of system calls and single ones are to be had where they are granted, and not elsewhere") {
  host host;
  auto plain = guest(host, {});
  for (const char* each : {"udp", "jit", "memory-locks", "munlockall"}) {
    INFO(each);
#ifdef BULKHEAD_SANITIZED
    if (each == std::string("jit")) continue;  // its runtime needs that
#endif
    CHECK(error_of(plain.try_call("use", each)) == "EPERM");
    auto granted = guest(host, policy{}.allow_syscalls(each));
    CHECK(error_of(granted.try_call("use", each)) == "");
    for (const char* other : {"udp", "memory-locks"})
      if (other != std::string(each)) CHECK(error_of(granted.try_call("use", other)) == "EPERM");
  }
}

namespace {

bool can_refuse_descriptors() {
  constexpr int so_passrights = 83;
  const unique_fd any(checked(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0), "socket"));
  const int no = 0;
  return ::setsockopt(any.get(), SOL_SOCKET, so_passrights, &no, sizeof no) == 0;
}

}  // namespace

TEST_CASE("the report says whether a worker's channel refuses descriptors") {
  host host;
  for (const bool handles : {false, true}) {
    const policy rules = handles ? policy{}.allow_handles() : policy{};
    const auto plain = guest(host, rules);
    for (const sandbox_report& report : {plain.workers().at(0).sandbox, host.examine(rules)}) {
      const auto channel = std::find_if(report.layers.begin(), report.layers.end(),
                                        [](const sandbox_layer& each) { return each.name == "channel"; });
      REQUIRE(channel != report.layers.end());
      CHECK(channel->in_force == (!handles && can_refuse_descriptors()));
      if (!channel->in_force) CHECK(channel->detail.find(handles ? "as granted" : "6.16") != std::string::npos);
    }
  }
}

TEST_CASE("a plugin that is granted handles sends descriptors with its results") {
  host host;
  auto opener = guest(host, policy{}.allow_read("/etc/passwd").allow_handles());
  const auto fds = entries("/proc/self/fd");
  {
    const unique_fd file = opener.call<unique_fd>("open_file", "/etc/passwd");
    char begin[5]{};
    CHECK(::read(file.get(), begin, 5) == 5);
    CHECK(std::string_view(begin, 5) == "root:");
    CHECK((::fcntl(file.get(), F_GETFD) & FD_CLOEXEC) != 0);
    const reply again = opener.try_call("open_file", "/etc/passwd");
    CHECK(::fcntl(again.handle(0).get(), F_GETFD) != -1);
    CHECK_THROWS_WITH(again.handle(1), Catch::Contains("the result has 1 descriptors"));
    CHECK_THROWS_WITH(opener.call<unique_fd>("variable", "X"), Catch::Contains("expected handle, got str"));
  }
  CHECK(entries("/proc/self/fd") == fds);
}

TEST_CASE("a plugin that is not granted handles can't send any, and is told") {
  host host;
  auto opener = guest(host, policy{}.allow_read("/etc/passwd"));
  const reply refused = opener.try_call("open_file", "/etc/passwd");
  CHECK(refused.outcome() == outcome::plugin_error);
  CHECK(refused.message().find("does not grant handles") != std::string::npos);
}

namespace {

std::string first_bytes(int fd) {
  char begin[5]{};
  const ssize_t n = ::read(fd, begin, sizeof begin);
  return {begin, n > 0 ? static_cast<std::size_t>(n) : 0};
}

// A plugin that lends and borrows files by the application's functions.
load_options with_functions(policy rules) {
  load_options options{.policy = std::move(rules)};
  options.functions.add("read", [](const unique_fd& file, int) { return first_bytes(file.get()); });
  options.functions.add("open", [](const std::string& name) {
    return unique_fd(name == "nothing" ? -1 : ::open(name.c_str(), O_RDONLY | O_CLOEXEC));
  });
  return options;
}

}  // namespace

TEST_CASE("a plugin that is granted handles sends descriptors with events, and those that nobody takes are closed") {
  host host;
  auto sender = host.load(plugin_path("guest"), with_functions(policy{}.allow_read("/etc/passwd").allow_handles()));
  const auto fds = entries("/proc/self/fd");
  mailbox<std::string> seen;
  sender.on_event_with_handles(
      [&](const std::string& name, const msgpack::object& value, std::vector<unique_fd>& came) {
        if (came.empty()) return seen.put("none");
        const unique_fd file = std::move(came.at(0));
        seen.put(name + " " + value.via.array.ptr[0].as<std::string>() + " " + first_bytes(file.get()));
      });
  for (int i = 0; i < 40; ++i) CHECK(sender.call<bool>("emit_file", "/etc/passwd"));
  REQUIRE(seen.wait_for(40));
  for (const std::string& each : seen.values()) CHECK(each == "file /etc/passwd root:");

  mailbox<std::string> names;
  sender.on_event([&](const std::string& name, const msgpack::object&) { names.put(name); });
  CHECK(sender.call<bool>("emit_file", "/etc/passwd"));
  REQUIRE(names.wait_for(1));
  sender.on_event({});
  CHECK(sender.call<bool>("emit_file", "/etc/passwd"));
  CHECK_THAT(error_of(sender.try_call("emit_closed")), Catch::Contains("-1 can't be sent: it is not open"));
  sender.call("open_file", "/etc/passwd");
  const auto limit = std::chrono::steady_clock::now() + 10s;  // a thread that may block closes them
  while (entries("/proc/self/fd") != fds && std::chrono::steady_clock::now() < limit) std::this_thread::yield();
  CHECK(entries("/proc/self/fd") == fds);
}

TEST_CASE("descriptors go with calls of the application's functions, to it by a grant, from it without") {
  host host;
  guest(host, policy{}.allow_handles()).unload();  // what a host opens with the first
  const auto fds = entries("/proc/self/fd");
  {
    auto lender = host.load(plugin_path("guest"), with_functions(policy{}.allow_read("/etc/passwd").allow_handles()));
    for (int i = 0; i < 40; ++i) CHECK(lender.call<std::string>("lend_file", "/etc/passwd") == "root:");
    auto borrower = host.load(plugin_path("guest"), with_functions(policy{}));
    for (int i = 0; i < 40; ++i) CHECK(borrower.call<std::string>("borrow_file", "/etc/passwd") == "root:");
    CHECK_THAT(error_of(borrower.try_call("read_file", "/etc/passwd")), !Catch::Contains("root:"));
    CHECK_THAT(error_of(borrower.try_call("borrow_file", "nothing")), Catch::Contains("'open' has no file to give"));
  }
  // Fewer when one of the first plugin's was still to be closed.
  const auto limit = std::chrono::steady_clock::now() + 10s;
  while (entries("/proc/self/fd") > fds && std::chrono::steady_clock::now() < limit) std::this_thread::yield();
  CHECK(entries("/proc/self/fd") <= fds);
}

TEST_CASE("in-process, descriptors go with events and with the application's functions as well") {
  host host;
  load_options options = with_functions(policy{});
  options.isolation = isolation::none;
  auto both = host.load(plugin_path("guest"), options);
  mailbox<std::string> seen;
  both.on_event_with_handles([&](const std::string&, const msgpack::object&, std::vector<unique_fd>& came) {
    seen.put(first_bytes(came.at(0).get()));
  });
  CHECK(both.call<bool>("emit_file", "/etc/passwd"));
  REQUIRE(seen.wait_for(1));
  CHECK(seen.values()[0] == "root:");
  CHECK(both.call<std::string>("lend_file", "/etc/passwd") == "root:");
  CHECK(both.call<std::string>("borrow_file", "/etc/passwd") == "root:");
}

TEST_CASE("a plugin without a grant sends no descriptor in any way, is told why, and goes on") {
  host host;
  auto sender = host.load(plugin_path("guest"), with_functions(policy{}.allow_read("/etc/passwd")));
  const pid_t worker = sender.workers().at(0).pid;
  for (const char* method : {"emit_file", "lend_file"})
    CHECK_THAT(error_of(sender.try_call(method, "/etc/passwd")), Catch::Contains("does not grant handles"));
  using names = std::vector<std::string>;
  const names all = {"emit", "emit with", "call", "call with", "take"};
  CHECK(sender.call<names>("refer_to_nothing") == all);
  CHECK(sender.workers().at(0).pid == worker);
  auto granted = host.load(plugin_path("guest"), with_functions(policy{}.allow_handles()));
  CHECK(granted.call<names>("refer_to_nothing") == all);
}

TEST_CASE("a function that gives back what its result does not refer to costs the plugin one error") {
  host host;
  load_options options;
  options.functions.add_packed("open", [](const msgpack::object&, passed_handles& handles) {
    for (int i = 0; i < 20; ++i) handles.out.emplace_back(::open("/dev/null", O_RDONLY | O_CLOEXEC));
    ipc::buffer out;
    ipc::packer(out).pack_nil();
    return out;
  });
  auto borrower = host.load(plugin_path("guest"), options);
  CHECK_THAT(error_of(borrower.try_call("borrow_file", "x")), Catch::Contains("refer to each of its descriptors"));
  CHECK(borrower.call<std::string>("variable", "X").empty());
}

namespace {

// The layer "cgroup" of a plugin's first worker.
sandbox_layer cgroup_of(const plugin& of) {
  const auto workers = of.workers();
  for (const sandbox_layer& each : workers.at(0).sandbox.layers)
    if (each.name == "cgroup") return each;
  return {"none", false, ""};
}

}  // namespace

TEST_CASE("a cgroup counts the memory of a worker and all that it started, and its death says so") {
  host host;
  auto bomb = guest(host, policy{}.allow_subprocesses().memory_limit(std::size_t{256} << 20));
  const sandbox_layer layer = cgroup_of(bomb);
  REQUIRE(layer.name == "cgroup");
  if (!layer.in_force) {  // then the address space is limited alone, and the reason is told
    lacks("cgroups", layer.detail);
    CHECK_FALSE(layer.detail.empty());
    return;
  }
  CHECK(layer.detail.find("memory 256 MiB") != std::string::npos);
  // Each stays below the limit, together they do not. Version 1 kills the largest, version 2 all.
  const auto error = failure_of([&] { bomb.call("hold_memory", 120, 8, 30); });
  CHECK(error.outcome() == outcome::worker_lost);
  CHECK(error.report()->reason == exit_reason::out_of_memory);
  CHECK(error.message().find("ran out of memory") != std::string::npos);
  CHECK(bomb.call<int>("hold_memory", 10, 1, 10) == 1);  // the next worker starts afresh
}

TEST_CASE("without a PID namespace what a worker has started ends with it all the same, by its cgroup") {
  host host;
  auto parent = guest(host, policy{}.allow_subprocesses().without("pid").at_least(sandbox_level::none));
  const sandbox_layer layer = cgroup_of(parent);
  REQUIRE(layer.name == "cgroup");
  const unique_fd child(
      static_cast<int>(checked(::syscall(SYS_pidfd_open, parent.call<int>("leave_child"), 0), "pidfd_open")));
  parent.unload();
  if (!layer.in_force) {  // then it outlives it, and that is told
    lacks("cgroups", layer.detail);
    CHECK(layer.detail.find("may outlive it") != std::string::npos);
    ::syscall(SYS_pidfd_send_signal, child.get(), SIGKILL, nullptr, 0);
  }
  pollfd ended{child.get(), POLLIN, 0};
  CHECK(::poll(&ended, 1, 10'000) == 1);
}

TEST_CASE("where no namespace holds the processes of a worker a cgroup counts them") {
  host host;
  constexpr int most = 30;
  auto parent = guest(host, policy{}.allow_subprocesses().threads(most).without("pid").at_least(sandbox_level::none));
  const sandbox_layer layer = cgroup_of(parent);
  REQUIRE(layer.name == "cgroup");
  if (!layer.in_force) {
    lacks("cgroups", layer.detail);
    CHECK(layer.detail.find("not counted") != std::string::npos);
    return;
  }
  CHECK(layer.detail.find("processes 30") != std::string::npos);
  std::ifstream groups("/proc/" + std::to_string(parent.workers().at(0).pid) + "/cgroup");
  int found = 0;
  for (std::string line; std::getline(groups, line);) {
    const bool unified = line.starts_with("0::"), pids = line.find(":pids:") != std::string::npos;
    if (!(unified || pids) || line.find("/bulkhead-") == std::string::npos) continue;
    const std::string path = line.substr(line.rfind(':') + 1);
    std::ifstream limit((unified ? "/sys/fs/cgroup" : "/sys/fs/cgroup/pids") + path + "/pids.max");
    limit >> found;
  }
  CHECK(found == most);
  const int made = parent.call<int>("make_children", 200);
  CHECK(made > 0);
  CHECK(made < most);
}

TEST_CASE("a worker may be held to a part of the CPUs, or is not started") {
  host host;
  const auto rules = policy{}.cpus(0.2);
  CHECK(policy::from_text(rules.to_text()) == rules);
  try {
    auto slow = guest(host, rules);
    CHECK(cgroup_of(slow).in_force);
    CHECK(cgroup_of(slow).detail.find("CPUs 0.2") != std::string::npos);
    // 0.2 s of work take 1 s at that rate; half of that is allowed for.
    CHECK(slow.call<double>("seconds_for", 0.2) > 0.5);
  } catch (const call_error& error) {
    CHECK(error.outcome() == outcome::unavailable);
    CHECK(error.message().find("cpus can't be limited here: ") != std::string::npos);
  }
  CHECK_THROWS_WITH(policy{}.cpus(0), Catch::Contains("cpus must be"));
}

TEST_CASE("the cgroups of a host that was killed are removed by the next one") {
  const auto rules = policy{}.memory_limit(std::size_t{256} << 20);
  int ends[2];
  REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
  const unique_fd reading(ends[0]);
  unique_fd writing(ends[1]);
  const pid_t doomed = ::fork();
  REQUIRE(doomed >= 0);
  if (doomed == 0) {  // a host that comes to a sudden end
    host host;
    const auto plugin = guest(host, rules);
    const pid_t worker = plugin.workers().at(0).pid;
    if (::write(writing.get(), &worker, sizeof worker) == sizeof worker) ::pause();
    ::_exit(1);
  }
  writing.reset();
  pid_t worker = -1;
  REQUIRE(::read(reading.get(), &worker, sizeof worker) == sizeof worker);
  std::filesystem::path left;
  std::ifstream groups("/proc/" + std::to_string(worker) + "/cgroup");
  for (std::string line; std::getline(groups, line);)
    if (const auto at = line.find(":memory:"); at != std::string::npos && line.find("/bulkhead-") != std::string::npos)
      left = "/sys/fs/cgroup/memory" + line.substr(at + 8);
  ::kill(doomed, SIGKILL);
  REQUIRE(::waitpid(doomed, nullptr, 0) == doomed);
  if (left.empty() || !std::filesystem::exists(left)) {
    WARN("no cgroups of version 1 here");
    return;
  }
  const auto limit = std::chrono::steady_clock::now() + 20s;  // until its worker has gone, too
  do {
    host next;
    guest(next, rules);
  } while (std::filesystem::exists(left) && std::chrono::steady_clock::now() < limit);
  CHECK_FALSE(std::filesystem::exists(left));
}

namespace {

// As a host whose mounts change; 0, or what went wrong.
int read_what_is_mounted_later(const std::string& folder) {
  const auto mount = [](const char* where, const char* type, unsigned long flags) {
    return ::mount("none", where, type, flags, nullptr) == 0;
  };
  if (::unshare(CLONE_NEWNS) != 0 || !mount("/", nullptr, MS_REC | MS_PRIVATE) ||
      !mount("/", nullptr, MS_REC | MS_SHARED))
    return 77;
  host host;
  guest(host, {});  // the fork server has its view of the mounts
  if (!mount(folder.c_str(), "tmpfs", 0)) return 77;
  std::ofstream(folder + "/file") << "mounted";
  const auto reader = guest(host, policy{}.allow_read(folder));
  return reader.call<std::string>("read_file", folder + "/file") == "mounted" ? 0 : 1;
}

}  // namespace

TEST_CASE("what is mounted while a host runs is there for the grants of workers that start later") {
  const scratch files;
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    try {
      ::_exit(read_what_is_mounted_later(files.path()));
    } catch (const std::exception& e) {
      std::fprintf(stderr, "%s\n", e.what());
      ::_exit(2);
    }
  }
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
    WARN("nothing can be mounted here");
    return;
  }
  CHECK(status == 0);
}

TEST_CASE("a cgroup that can't be had is told with the reason, and the worker goes without") {
  host host({.cgroup = "/nowhere"});
  auto plain = guest(host, policy{}.memory_limit(std::size_t{256} << 20));
  CHECK_FALSE(cgroup_of(plain).in_force);
  CHECK(cgroup_of(plain).detail.find("/nowhere") != std::string::npos);
  const auto refused = failure_of([&] { guest(host, policy{}.cpus(1)); });
  CHECK(refused.outcome() == outcome::unavailable);
  CHECK_NOTHROW(guest(host, policy{}.cpus(1).at_least(sandbox_level::limited)));
}

TEST_CASE("CPU time is limited") {
  host host;
  auto busy = guest(host, policy{}.cpu_limit(1s));
  const auto error = failure_of([&] { busy.call("spin"); });
  CHECK(error.outcome() == outcome::worker_lost);
  CHECK(error.report()->signal == SIGXCPU);
}

TEST_CASE("a plugin whose manifest requests something gets that and no more, and is told on for the rest") {
  mailbox<log_record> logs;
  host host({.on_log = [&](const log_record& record) { logs.put(record); }});
  // chaos requests handles and subprocesses.
  auto chaos = host.load(plugin_path("chaos"), {.policy = policy{}.allow_subprocesses().allow_read("/etc")});
  const auto workers = chaos.workers();
  for (const sandbox_layer& each : workers.at(0).sandbox.layers)
    CHECK((each.in_force || each.name == "channel"));  // which needs Linux 6.16
  CHECK(logs.wait([](const auto& all) {
    return std::any_of(all.begin(), all.end(),
                       [](const log_record& r) { return r.text == "asks for handles, which is not granted"; });
  }));
  CHECK(logs.wait([](const auto& all) {
    return std::any_of(all.begin(), all.end(),
                       [](const log_record& r) { return r.text == "does not ask for read:/etc, which is granted"; });
  }));
  // A plugin that asks for nothing at all gets what it is granted.
  CHECK(error_of(guest(host, policy{}.allow_read("/etc/passwd")).try_call("read_file", "/etc/passwd")).empty());
}
