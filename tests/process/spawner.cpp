// An application that can be killed: starts children as its arguments say, prints their pids, and waits.
#include <bulkhead/process.hpp>

#include <cstdio>

#include <unistd.h>

int main(int argc, char** argv) {
  using namespace bulkhead;
  launcher launch;
  std::vector<child> children;
  for (int i = 1; i < argc; ++i) {
    const std::string kind = argv[i];
    process_options options;
    options.streams = {stdio::null(), stdio::pipe(), stdio::inherit()};
    options.detached = kind == "detached";
    if (kind == "sandboxed") options.policy = policy();
    // What a shell has started prints its own pid; a sandboxed one does not know it.
    children.push_back(kind == "tree" ? launch.spawn("sh", {"-c", "sleep 300 & echo $!; wait"}, options)
                                      : launch.spawn("sleep", {"300"}, options));
    std::printf("%d\n", int(children.back().pid()));
    if (kind == "tree") {
      char pid[32]{};
      children.back().out().read_some(boost::asio::buffer(pid, sizeof pid - 1));
      std::printf("%s", pid);
    }
  }
  std::fflush(stdout);
  ::pause();
}
