// See program.hpp.
#include "program.hpp"

#include <array>
#include <cerrno>
#include <csignal>
#include <fstream>
#include <sstream>
#include <system_error>

#include <fcntl.h>
#include <poll.h>
#include <spawn.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

namespace bulkhead::testing {
namespace {

void check(int error, const char* what) {
  if (error != 0) throw std::system_error(error, std::generic_category(), what);
}

// A file of memory that holds `text`, to be read from its start.
int holding(const std::string& text) {
  const int file = ::memfd_create("input", MFD_CLOEXEC);
  if (file < 0 || ::write(file, text.data(), text.size()) != static_cast<ssize_t>(text.size())) check(errno, "memfd");
  ::lseek(file, 0, SEEK_SET);
  return file;
}

}  // namespace

program::program(std::vector<std::string> argv, const std::string& input, const std::filesystem::path& directory) {
  if (argv[0].find('/') == std::string::npos) argv[0] = std::string(BULKHEAD_TEST_PROGRAMS) + "/" + argv[0];
  int out[2], err[2];
  if (::pipe2(out, O_CLOEXEC) != 0 || ::pipe2(err, O_CLOEXEC) != 0) check(errno, "pipe");
  const int in = holding(input);
  std::vector<char*> words;
  for (std::string& word : argv) words.push_back(word.data());
  words.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, in, 0);
  posix_spawn_file_actions_adddup2(&actions, out[1], 1);
  posix_spawn_file_actions_adddup2(&actions, err[1], 2);
  posix_spawn_file_actions_addchdir_np(&actions, directory.c_str());
  const int error = ::posix_spawn(&pid_, words[0], &actions, nullptr, words.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  for (const int fd : {in, out[1], err[1]}) ::close(fd);
  out_ = out[0];
  err_ = err[0];
  check(error, words[0]);
}

program::~program() {
  if (pid_ > 0) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  ::close(out_);
  ::close(err_);
}

void program::signal(int number) const { ::kill(pid_, number); }

std::string program::wait_for(const std::string& text) {
  char piece[4096];
  while (seen_.find(text) == std::string::npos) {
    const ssize_t count = ::read(out_, piece, sizeof piece);
    if (count <= 0) return "";
    seen_.append(piece, static_cast<std::size_t>(count));
  }
  return seen_;
}

finished program::wait() {
  finished done;
  done.out = seen_;
  std::array<pollfd, 2> ends{pollfd{out_, POLLIN, 0}, pollfd{err_, POLLIN, 0}};
  std::array<std::string*, 2> texts{&done.out, &done.err};
  while (ends[0].fd >= 0 || ends[1].fd >= 0) {
    if (::poll(ends.data(), ends.size(), -1) < 0 && errno != EINTR) check(errno, "poll");
    for (std::size_t i = 0; i < ends.size(); ++i) {
      if (ends[i].fd < 0 || ends[i].revents == 0) continue;
      char piece[4096];
      const ssize_t count = ::read(ends[i].fd, piece, sizeof piece);
      if (count > 0) texts[i]->append(piece, static_cast<std::size_t>(count));
      else ends[i].fd = -1;
    }
  }
  int status = 0;
  ::waitpid(pid_, &status, 0);
  pid_ = -1;
  done.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return done;
}

finished run(std::vector<std::string> argv, const std::string& input) { return program(std::move(argv), input).wait(); }

std::string contents(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

std::filesystem::path write(const std::filesystem::path& file, const std::string& text) {
  std::filesystem::create_directories(file.parent_path());
  std::ofstream(file, std::ios::binary) << text;
  return file;
}

}  // namespace bulkhead::testing
