// A host with a cluster of the plugin http, which serves a folder with an index.html that says hello.
#pragma once

#include "http_client.hpp"
#include "watched_host.hpp"
#include <bulkhead/cluster.hpp>

#include <csignal>

namespace bulkhead::testing {

struct folder_site {
  scratch_folder folder;
  folder_site() {
    std::ofstream(folder.path / "index.html") << "hello";
    std::filesystem::permissions(folder.path, std::filesystem::perms(0755));  // workers are nobody's
  }
};

// A host with a cluster of the plugin http.
struct cluster_fixture {
  folder_site files;
  watched_host host;
  std::optional<cluster> site;

  static cluster_options usual() {
    cluster_options options{.workers = 2};
    options.load = untiring();
    options.load.supervision.drain.calls = 10s;
    return options;
  }
  explicit cluster_fixture(cluster_options options = usual()) {
    options.settings["root"] = files.folder.path.string();
    options.settings["faults"] = "yes";
    policy rules;
    rules.allow_read(files.folder.path);
    options.load.policy = rules;
    site.emplace(host.self, plugin_path("http"), options);
  }

  http_client connect() { return http_client(site->port()); }
  // So many clients, each with a connection that has had an answer and is idle.
  std::vector<http_client> idle(int count) {
    std::vector<http_client> clients;
    for (int i = 0; i < count; ++i) {
      clients.push_back(connect());
      REQUIRE(clients.back().get("/"));
    }
    return clients;
  }
  // So many clients, each of which has sent this.
  std::vector<http_client> that_sent(std::string_view text, int count) {
    std::vector<http_client> clients;
    for (int i = 0; i < count; ++i) {
      clients.push_back(connect());
      REQUIRE(clients.back().send(text));
    }
    return clients;
  }
  // Waits until the statistics are as wanted.
  template <class F>
  bool until(F wanted) {
    return eventually([&] { return wanted(site->stats()); });
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

inline cluster_options with(enum schedule schedule, unsigned workers = 2) {
  cluster_options options = cluster_fixture::usual();
  options.schedule = schedule;
  options.workers = workers;
  return options;
}

inline std::string pid_of(const http_answer& status) { return status.body.substr(0, status.body.find(',')); }

}  // namespace bulkhead::testing
