// Runs a program on a terminal of its own.
#pragma once

#include <bulkhead/ipc/system.hpp>

#include <catch2/catch.hpp>
#include <pty.h>
#include <utmp.h>

#include <csignal>
#include <string>
#include <utility>
#include <vector>

#include <fcntl.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

namespace bulkhead::testing {

class on_terminal {
 public:
  explicit on_terminal(const std::vector<std::string>& argv, unsigned short rows = 24, unsigned short columns = 80) {
    int ours = -1, theirs = -1;
    winsize size{rows, columns, 0, 0};
    REQUIRE(::openpty(&ours, &theirs, nullptr, nullptr, &size) == 0);
    ours_.reset(ours);
    theirs_.reset(theirs);
    for (const int each : {ours, theirs}) ::fcntl(each, F_SETFD, FD_CLOEXEC);
    before = modes();
    const std::string program = std::string(BULKHEAD_TEST_PROGRAMS) + "/" + argv[0];
    std::vector<char*> words;
    for (const std::string& word : argv) words.push_back(const_cast<char*>(word.c_str()));
    words.push_back(nullptr);
    pid_ = ::fork();
    if (pid_ == 0) {
      ::login_tty(theirs);
      ::execv(program.c_str(), words.data());
      ::_exit(127);
    }
  }
  ~on_terminal() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  on_terminal(const on_terminal&) = delete;

  termios modes() const {
    termios out{};
    REQUIRE(::tcgetattr(ours_.get(), &out) == 0);
    return out;
  }
  void type(const std::string& keys) const { REQUIRE(::write(ours_.get(), keys.data(), keys.size()) > 0); }
  void signal(int number) const { ::kill(pid_, number); }
  void resize(unsigned short rows, unsigned short columns) const {
    const winsize size{rows, columns, 0, 0};
    REQUIRE(::ioctl(ours_.get(), TIOCSWINSZ, &size) == 0);
  }
  // What it writes up to and with `text`; fails the test after 30 s.
  std::string read_until(const std::string& text) {
    std::size_t at;
    while ((at = unread_.find(text)) == std::string::npos) {
      pollfd end{ours_.get(), POLLIN, 0};
      if (::poll(&end, 1, 30'000) <= 0) FAIL("'" << text << "' was not written, but " << unread_);
      char piece[4096];
      const ssize_t size = ::read(ours_.get(), piece, sizeof piece);
      if (size > 0) unread_.append(piece, static_cast<std::size_t>(size));
    }
    const std::string out = unread_.substr(0, at + text.size());
    unread_.erase(0, out.size());
    return out;
  }
  // Its exit status; 128 + the signal's number when one ended it.
  int wait() {
    int status = 0;
    ::waitpid(std::exchange(pid_, -1), &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  }

  termios before{};  // how the terminal was

 private:
  unique_fd ours_, theirs_;  // the latter so that the terminal outlives the program
  pid_t pid_ = -1;
  std::string unread_;
};

}  // namespace bulkhead::testing
