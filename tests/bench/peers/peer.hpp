// A way to have another process do something, as a program that a driver measures beside others: see peer.cpp for what the
// driver asks. The work is always the same: some bytes go to a worker process, which sends as many back.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include <sys/types.h>

namespace peer {

using bytes_view = std::span<const std::uint8_t>;

// A worker process and the way to it. Its destructor ends the worker.
class link {
 public:
  virtual ~link() = default;
  // Sends the bytes and waits for the answer, which is good until the next call.
  virtual bytes_view call(bytes_view payload) = 0;
  // Makes `count` calls, `outstanding` of them at a time; answers are received, and that all of them are. False: it can't.
  virtual bool many(bytes_view, std::size_t /*count*/, std::size_t /*outstanding*/) { return false; }
  // The worker; the caller's own process when there is none.
  virtual pid_t worker() const = 0;
  // Calls are about to come, or have ended: for workers that spin.
  virtual void awake(bool) {}
};

struct kind {
  std::string name, version;
  std::size_t largest = std::size_t{64} << 20;  // bytes that a call can carry
  std::size_t smallest = 0;                     // that it is for; it has a part in no other work
  // A new worker, for calls of up to so many bytes.
  std::function<std::unique_ptr<link>(std::size_t largest)> connect;
};

// Obeys the driver until it closes the standard input.
int obey(const kind& what);

// Nothing that a benchmark starts outlives it: to be called first by a process whose parent is `parent`.
void die_with(pid_t parent);

// A server: this program, started again as `PROGRAM serve ADDRESS`. Waits until that says that it is ready.
class server {
 public:
  server();
  ~server();
  server(const server&) = delete;
  server& operator=(const server&) = delete;
  pid_t pid() const { return pid_; }
  const std::string& address() const { return address_; }  // a name for an abstract Unix socket

 private:
  std::string address_;
  pid_t pid_ = -1;
};

// In the server. Ends the process when it has not been started by a `server`.
std::string address_to_serve(int argc, char** argv);  // empty: this is not the server
void ready_to_serve();

// A child process that runs `work`, made by fork; for what needs no more than shared memory or a socket.
class forked {
 public:
  explicit forked(const std::function<void()>& work);
  ~forked();
  forked(const forked&) = delete;
  forked& operator=(const forked&) = delete;
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = -1;
};

}  // namespace peer
