// Node's own cluster under a primary of ours where things go wrong: handlers that throw, workers without descriptors, such
// that don't leave, and peers that say what is not theirs to say.
#include "node_fixture.hpp"

#include <future>

#include <sched.h>

using namespace bulkhead;
using namespace bulkhead::testing;
using json = nlohmann::json;

namespace {

// What handlers throw.
struct catching {
  mailbox<std::string> thrown;
  launcher launch{{.on_exception = [this](std::exception_ptr what) {
    try {
      std::rethrow_exception(what);
    } catch (const std::exception& e) {
      thrown.put(e.what());
    }
  }}};
};

// Workers that have at most 128 descriptors.
struct short_of_descriptors {
  const scratch_folder folder;
  const std::string script =
      write_file(folder / "limited", "#!/bin/sh\nulimit -n 128\nexec node '" + cluster_script + "' \"$@\"\n", 0755);
};

}  // namespace

TEST_CASE("what handlers of Node's cluster throw costs neither the application nor any other handler") {
  catching with;
  watched_cluster watched;
  auto options = watched.options(1, schedule::round_robin);
  options.intensity = {.restarts = 1};
  options.on_listening = [tell = options.on_listening](unsigned worker, const std::string& address,
                                                       std::uint16_t port) {
    tell(worker, address, port);
    throw std::runtime_error("listening");
  };
  options.on_exit = [tell = options.on_exit](unsigned worker, const exit_status& status) {
    tell(worker, status);
    throw std::runtime_error("exit");
  };
  options.on_gave_up = [tell = options.on_gave_up](const std::string& why) {
    tell(why);
    throw std::runtime_error("gave up");
  };
  const node_cluster site(with.launch, cluster_script, options);
  for (const std::size_t worker : {1, 2}) {
    CHECK(who_answers(watched.port(worker)) == std::to_string(worker));
    ::kill(site.stats().workers.front().pid, SIGKILL);
  }
  REQUIRE(with.thrown.wait_for(5));
  CHECK(with.thrown.values() == std::vector<std::string>{"listening", "exit", "listening", "exit", "gave up"});
  CHECK(watched.seen->gave_up.wait_for(1));
}

TEST_CASE("an application that is asked whether workers of Node's cluster may listen may ask the cluster") {
  launcher launch;
  watched_cluster watched;
  std::promise<const node_cluster*> made;
  auto options = watched.options(1, schedule::round_robin);
  options.may_listen = [site = made.get_future().share()](auto&&...) {
    return site.get()->stats().workers.size() == 1;
  };
  const node_cluster site(launch, cluster_script, options);
  made.set_value(&site);
  CHECK(who_answers(watched.port(1)) == "1");
}

TEST_CASE("workers of Node's cluster may not listen where the application throws when asked") {
  catching with;
  watched_cluster watched;
  auto options = watched.options(1, schedule::round_robin);
  options.may_listen = [](auto&&...) -> bool { throw std::runtime_error("asked"); };
  const node_cluster site(with.launch, cluster_script, options);
  CHECK(watched.refusal() == json{{"code", "EACCES"}});
  REQUIRE(with.thrown.wait_for(1));
  CHECK(with.thrown.values() == std::vector<std::string>{"asked"});
}

TEST_CASE(
    "a connection that a worker of Node's cluster has no descriptor for goes to another, and later ones to it again") {
  launcher launch;
  watched_cluster watched;
  const short_of_descriptors made;
  node_cluster site(launch, made.script, watched.options(2, schedule::round_robin));
  const std::uint16_t port = watched.port(2);
  CHECK(site.send(1, "fill"));
  REQUIRE(watched.seen->messages.wait_for(1));
  CHECK(watched.seen->messages.values()[0].second == "EMFILE");
  for (int i = 0; i < 3; ++i) CHECK(who_answers(port) == "2");
  CHECK(site.stats().redistributed >= 1);
  CHECK(site.send(1, "room"));
  CHECK(eventually([&] { return who_answers(port) == "1"; }));
}

TEST_CASE("a worker of Node's cluster without a descriptor for the socket that it would share is told so") {
  launcher launch;
  watched_cluster watched;
  const short_of_descriptors made;
  const node_cluster site(launch, made.script, watched.options(1, schedule::shared, "full"));
  CHECK(watched.refusal() == json{{"code", "EMFILE"}});
}

TEST_CASE("a worker of Node's cluster can't close a socket that it does not have") {
  launcher launch;
  watched_cluster watched;
  const scratch_folder folder;
  const auto script = write_file(folder / "meddler",  // worker 1 listens, the others close it
                                 "#!/usr/bin/env python3\n"
                                 "import os, socket, json\n"
                                 "first = os.environ['NODE_UNIQUE_ID'] == '1'\n"
                                 "c = socket.socket(fileno=int(os.environ['NODE_CHANNEL_FD']))\n"
                                 "f = c.makefile('rb')\n"
                                 "def say(**m): c.sendall(json.dumps(m).encode() + b'\\n')\n"
                                 "def tell(**m): say(cmd='NODE_CLUSTER', **m)\n"
                                 "if first:\n"
                                 "  tell(act='queryServer', seq=1, address='127.0.0.1', port=0, addressType=4)\n"
                                 "  reply = json.loads(f.readline())\n"
                                 "  tell(act='listening', port=reply['sockname']['port'])\n"
                                 "  say(key=reply['key'])\n"
                                 "for line in f:\n"
                                 "  m = json.loads(line)\n"
                                 "  if first or m.get('act') == 'disconnect': os._exit(0)\n"
                                 "  tell(act='close', key=m['key'])\n"
                                 "  say(closed=True)\n",
                                 0755);
  node_cluster site(launch, script, watched.options(2, schedule::round_robin));
  const std::uint16_t port = watched.port(1);
  REQUIRE(watched.seen->messages.wait_for(1));
  CHECK(site.send(1, {{"end", true}}));
  REQUIRE(watched.seen->ended.wait_for(1));
  CHECK(site.send(2, watched.seen->messages.values()[0].second));
  REQUIRE(watched.seen->messages.wait_for(2));
  CHECK_NOTHROW(http_client(port));
}

TEST_CASE("a worker of Node's cluster that has said that it leaves gets no connection more") {
  launcher launch;
  watched_cluster watched;
  const scratch_folder folder;
  const auto script =
      write_file(folder / "lingering",  // worker 1 leaves with its socket open, the others are Node
                 "#!/usr/bin/env python3\n"
                 "import os, socket, json, sys\n"
                 "if os.environ['NODE_UNIQUE_ID'] != '1':\n"
                 "  os.execvp('node', ['node', '" +
                     cluster_script +
                     "', *sys.argv[1:]])\n"
                     "c = socket.socket(fileno=int(os.environ['NODE_CHANNEL_FD']))\n"
                     "f = c.makefile('rb')\n"
                     "def say(**m): c.sendall(json.dumps(dict(m, cmd='NODE_CLUSTER')).encode() + b'\\n')\n"
                     "say(act='queryServer', seq=1, address='127.0.0.1', port=0, addressType=4, index=0)\n"
                     "say(act='listening', port=json.loads(f.readline())['sockname']['port'])\n"
                     "say(act='exitedAfterDisconnect', seq=2)\n"
                     "for line in f:\n"
                     "  if b'end' in line: break\n",
                 0755);
  node_cluster site(launch, script, watched.options(1, schedule::round_robin));
  const std::uint16_t port = watched.port(2);
  CHECK(watched.seen->listening.values()[1].second == port);
  for (int i = 0; i < 2; ++i) CHECK(who_answers(port) == "2");
  CHECK(site.send(1, {{"end", true}}));
  CHECK(watched.seen->ended.wait_for(1));
}

TEST_CASE("a worker of Node's cluster that does not leave in time is killed, and its successor serves") {
  launcher launch;
  watched_cluster watched;
  auto options = watched.options(1, GENERATE(schedule::round_robin, schedule::shared), "stays");
  options.patience = 100ms;
  mailbox<int> signals;
  options.on_exit = [&](unsigned, const exit_status& status) { signals.put(status.signal); };
  node_cluster site(launch, cluster_script, options);
  const std::uint16_t port = watched.port(1);
  site.reload();
  REQUIRE(signals.wait_for(1));
  CHECK(signals.values()[0] == SIGKILL);
  CHECK(watched.seen->listening.values().size() == 2);
  CHECK(who_answers(port) == "2");
  site.stop();
  REQUIRE(signals.wait_for(2));
}

TEST_CASE("nothing of Node's cluster listens any more once its workers have been given up and have ended") {
  launcher launch;
  watched_cluster watched;
  auto options = watched.options(1, schedule::round_robin, "come_and_crash");
  options.intensity = {.restarts = 1};
  const node_cluster site(launch, cluster_script, options);
  const std::uint16_t port = watched.port(2);
  REQUIRE(watched.seen->ended.wait_for(2));
  CHECK(site.stats().gave_up);
  CHECK_THROWS_AS(http_client(port), std::system_error);
}

TEST_CASE("Node's cluster has a worker for each processor unless told otherwise") {
  launcher launch;
  watched_cluster watched;
  auto options = watched.options(0, schedule::round_robin, "idle");
  options.patience = 0s;
  const node_cluster site(launch, cluster_script, options);
  cpu_set_t usable;
  REQUIRE(::sched_getaffinity(0, sizeof usable, &usable) == 0);
  CHECK(site.stats().workers.size() == static_cast<std::size_t>(CPU_COUNT(&usable)));
}

TEST_CASE("workers of Node's cluster can't be detached") {
  launcher launch;
  node_cluster_options options;
  options.process.detached = true;
  CHECK_THROWS_AS(node_cluster(launch, cluster_script, options), std::invalid_argument);
}
