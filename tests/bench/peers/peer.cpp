// See peer.hpp. The driver writes a line, the peer answers with one: `ok VALUE...`, `none` when it can't do that, or
// `error TEXT`.
//
//   calls BYTES COUNT              time of each call, in microseconds
//   many BYTES COUNT OUTSTANDING   time of all, in microseconds
//   spawn                          time from nothing to a worker's first answer, in microseconds
//   worker BYTES                   pid of the worker that calls of so many bytes go to
//   crowd COUNT                    pids of so many workers, which have answered once and live until the next line
#include "peer.hpp"

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <iostream>
#include <sstream>
#include <stdexcept>

#include <fcntl.h>
#include <spawn.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace peer {
namespace {

using clock = std::chrono::steady_clock;

double microseconds_since(clock::time_point begin) {
  return std::chrono::duration<double, std::micro>(clock::now() - begin).count();
}

std::vector<std::uint8_t> pattern(std::size_t size) {
  std::vector<std::uint8_t> made(size);
  for (std::size_t i = 0; i < size; ++i) made[i] = static_cast<std::uint8_t>(i * 31 + (i >> 8));
  return made;
}

void verify(link& to, const std::vector<std::uint8_t>& payload) {
  const bytes_view answer = to.call(payload);
  if (answer.size() != payload.size() || std::memcmp(answer.data(), payload.data(), payload.size()) != 0)
    throw std::runtime_error("the answer is not what was sent");
}

class peer_program {
 public:
  explicit peer_program(const kind& what) : what_(what) {}

  std::string obey(const std::string& line) {
    crowd_.clear();
    std::istringstream words(line);
    std::string what;
    std::size_t bytes = 16, count = 1, outstanding = 1;
    words >> what;
    if (what_.smallest > 0 && (what == "spawn" || what == "crowd")) return "none";
    if (what == "spawn") return spawn();
    if (what == "crowd") {
      words >> count;
      return crowd(count);
    }
    words >> bytes >> count >> outstanding;
    if (bytes > what_.largest || bytes < what_.smallest) return "none";
    link& to = link_for(bytes);
    if (what == "worker") return "ok " + std::to_string(to.worker());
    if (what != "calls" && what != "many") throw std::runtime_error("what is '" + line + "'?");
    to.awake(true);
    const auto payload = pattern(bytes);
    verify(to, payload);
    std::string answer = what == "calls" ? calls(to, payload, count) : many(to, payload, count, outstanding);
    to.awake(false);
    return answer;
  }

 private:
  static constexpr std::size_t small = std::size_t{64} << 10;

  // What only large calls need is not there while small ones are measured.
  link& link_for(std::size_t bytes) {
    if (bytes <= small) {
      if (!small_) small_ = what_.connect(small);
      large_.reset();
      return *small_;
    }
    if (!large_) large_ = what_.connect(bytes);
    return *large_;
  }

  static std::string calls(link& to, const std::vector<std::uint8_t>& payload, std::size_t count) {
    std::vector<double> times(count);
    for (double& time : times) {
      const auto begin = clock::now();
      const bytes_view answer = to.call(payload);
      time = microseconds_since(begin);
      if (answer.size() != payload.size()) throw std::runtime_error("the answer is not what was sent");
    }
    std::string out = "ok";
    char text[32];
    for (const double time : times) {
      std::snprintf(text, sizeof text, " %.3f", time);
      out += text;
    }
    return out;
  }

  static std::string many(link& to, const std::vector<std::uint8_t>& payload, std::size_t count,
                          std::size_t outstanding) {
    const auto begin = clock::now();
    if (!to.many(payload, count, outstanding)) return "none";
    return "ok " + std::to_string(microseconds_since(begin));
  }

  std::string spawn() {
    const auto payload = pattern(16);
    const auto begin = clock::now();
    const auto made = what_.connect(small);
    made->awake(true);
    const std::size_t size = made->call(payload).size();
    const double took = microseconds_since(begin);
    if (made->worker() == ::getpid()) return "none";
    if (size != payload.size()) throw std::runtime_error("the answer is not what was sent");
    return "ok " + std::to_string(took);
  }

  std::string crowd(std::size_t count) {
    std::string out = "ok";
    for (std::size_t i = 0; i < count; ++i) {
      auto& each = *crowd_.emplace_back(what_.connect(small));
      if (each.worker() == ::getpid()) return "none";
      each.awake(true);
      verify(each, pattern(16));
      each.awake(false);
      out += ' ' + std::to_string(each.worker());
    }
    return out;
  }

  const kind& what_;
  std::unique_ptr<link> small_, large_;
  std::vector<std::unique_ptr<link>> crowd_;
};

}  // namespace

int obey(const kind& what) {
  ::signal(SIGPIPE, SIG_IGN);
  std::cout << "ready " << what.name << '\t' << what.version << std::endl;
  peer_program program(what);
  for (std::string line; std::getline(std::cin, line);) {
    std::string answer;
    try {
      answer = program.obey(line);
    } catch (const std::exception& error) {
      answer = std::string("error ") + error.what();
    }
    std::cout << answer << std::endl;
  }
  return 0;
}

void die_with(pid_t parent) {
  ::prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (::getppid() != parent) ::_exit(1);  // it has gone before we asked
}

server::server() {
  static int number = 0;
  address_ = "bulkhead-bench-" + std::to_string(::getpid()) + "-" + std::to_string(++number);
  int ready[2];
  if (::pipe2(ready, O_CLOEXEC) != 0) throw std::runtime_error("pipe2");
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, ready[1], 1);
  std::string program = "/proc/self/exe", serve = "serve", parent = std::to_string(::getpid());
  char* argv[] = {program.data(), serve.data(), address_.data(), parent.data(), nullptr};
  const int failed = ::posix_spawn(&pid_, program.c_str(), &actions, nullptr, argv, environ);
  ::posix_spawn_file_actions_destroy(&actions);
  ::close(ready[1]);
  char said = 0;
  const bool served = failed == 0 && ::read(ready[0], &said, 1) == 1;
  ::close(ready[0]);
  if (!served) {
    if (failed == 0) ::waitpid(pid_, nullptr, 0);
    throw std::runtime_error("the server did not start");
  }
}

server::~server() {
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

std::string address_to_serve(int argc, char** argv) {
  if (argc != 4 || std::strcmp(argv[1], "serve") != 0) return "";
  die_with(std::stoi(argv[3]));
  return argv[2];
}

void ready_to_serve() {
  if (::write(1, "!", 1) != 1) ::_exit(1);
}

forked::forked(const std::function<void()>& work) {
  const pid_t parent = ::getpid();
  std::cout.flush();
  pid_ = ::fork();
  if (pid_ < 0) throw std::runtime_error("fork");
  if (pid_ > 0) return;
  die_with(parent);
  work();
  ::_exit(0);
}

forked::~forked() {
  ::kill(pid_, SIGKILL);
  ::waitpid(pid_, nullptr, 0);
}

}  // namespace peer
