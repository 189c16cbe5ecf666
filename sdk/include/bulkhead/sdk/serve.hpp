// For plugins that serve connections in a cluster: the worker's side of bulkhead/serve.h. It brings no event loop; it has
// a descriptor to watch, and connections that say what they are at.
//
//   plugin.method("serve", [](bulkhead::handle control, bulkhead::handle table, bulkhead::handle doorbell,
//                             std::map<std::string, std::string> settings) {
//     bulkhead::serve_link link(std::move(control), std::move(table), std::move(doorbell));
//     link.serving();
//     // when link.fd() is readable: while (auto event = link.next()) ...
//   });
//
// All of it is for one thread at a time, and none of it blocks.
#pragma once

#include <bulkhead/sdk/context.hpp>
#include <bulkhead/serve.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <optional>
#include <string>
#include <vector>

#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>

namespace bulkhead {

class serve_link;

// A connection that the worker serves. Ends it (shutdown, close) when it goes away.
class served_connection {
 public:
  served_connection() = default;
  // What was moved from is none any more.
  served_connection(served_connection&& other) noexcept { swap(other); }
  // Ends the one that it was before.
  served_connection& operator=(served_connection&& other) noexcept {
    served_connection(std::move(other)).swap(*this);
    return *this;
  }
  ~served_connection() { end(); }

  // Whether it is one: not when it has ended, was given back or moved from.
  explicit operator bool() const { return fd_ >= 0; }
  // Its socket, to read, write and watch, and not to close. -1: none.
  int fd() const { return fd_; }
  // Before anything is read: what the client has sent is lost if the worker dies from here on.
  void busy() { store(BULKHEAD_SERVE_BUSY); }
  // All that was read is answered: the connection outlives the worker.
  void idle() { store(BULKHEAD_SERVE_IDLE); }
  // Gives it back; another worker gets it. Only while idle.
  void give_back();
  // Shuts it down, closes it, and has the host forget it. Nothing happens the second time.
  void end();

 private:
  friend class serve_link;
  served_connection(serve_link& link, int fd, std::uint32_t slot, std::uint32_t generation)
      : link_(&link), fd_(fd), slot_(slot), generation_(generation) {}
  void swap(served_connection& other) noexcept {
    std::swap(link_, other.link_);
    std::swap(fd_, other.fd_);
    std::swap(slot_, other.slot_);
    std::swap(generation_, other.generation_);
  }
  void store(std::uint32_t state);

  serve_link* link_ = nullptr;  // outlives its connections
  int fd_ = -1;
  std::uint32_t slot_ = 0, generation_ = 0;
};

// The worker's end of what bulkhead/serve.h describes. Outlives its connections.
class serve_link {
 public:
  // What the host wants.
  struct event {
    // Which of its messages: bulkhead/serve.h says more of each.
    enum class kind {
      listener,    // accept on it
      connection,  // serve it
      drain,       // end or return what is idle, within `limit_ms`
      end,         // as drain, but nobody takes returned connections any more
      published,   // what host_api::published() gives has changed for some name; look up again what you keep
      host_gone,   // nothing more will come, the method had better return
    };
    kind what = kind::host_gone;     // says which of the members below are set
    handle listener{};               // does not block
    served_connection connection{};  // idle
    std::uint32_t limit_ms = 0;      // drain, end
  };

  // Throws bulkhead::error.
  serve_link(handle control, handle table, handle doorbell)
      : control_(std::move(control)), doorbell_(std::move(doorbell)) {
    struct stat found {};
    if (::fstat(table.fd(), &found) != 0 || found.st_size < static_cast<off_t>(sizeof(bulkhead_serve_table_t)))
      throw error("serve: the table is too small; is this called by a cluster?");
    size_ = static_cast<std::size_t>(found.st_size);
    void* const mapped = ::mmap(nullptr, size_, PROT_READ | PROT_WRITE, MAP_SHARED, table.fd(), 0);
    if (mapped == MAP_FAILED) throw error(std::string("serve: the table can't be mapped: ") + std::strerror(errno));
    table_ = static_cast<bulkhead_serve_table_t*>(mapped);
    slots_ = std::min<std::size_t>(table_->slots, (size_ - sizeof(bulkhead_serve_table_t)) / sizeof(std::uint64_t));
    if (table_->version == BULKHEAD_SERVE_VERSION) return;
    ::munmap(mapped, size_);
    throw error("serve: the host's version of bulkhead/serve.h is another");
  }
  ~serve_link() { ::munmap(table_, size_); }
  serve_link(const serve_link&) = delete;
  serve_link& operator=(const serve_link&) = delete;

  // Readable when next() has something. Must not be read otherwise.
  int fd() const { return control_.fd(); }
  // Says that connections may come.
  void serving() {
    std::atomic_ref(table_->serving).store(1, std::memory_order_release);
    ring();
  }
  // For the statistics.
  void count_request() { std::atomic_ref(table_->requests).store(table_->requests + 1, std::memory_order_relaxed); }
  // How many were counted.
  std::uint64_t requests() const { return table_->requests; }

  // What the host has sent; nothing when there is no more for now. Answers pings by itself.
  std::optional<event> next() {
    for (;;) {
      bulkhead_serve_message_t message{};
      handle passed;
      if (const ssize_t n = receive(message, passed); n < 0) {
        if (errno == EINTR) continue;
        if (errno == EAGAIN || errno == EWOULDBLOCK) return std::nullopt;
        return event{};
      } else if (n == 0) {
        return event{};
      } else if (n != static_cast<ssize_t>(sizeof message)) {
        continue;
      }
      event out;
      out.limit_ms = message.value;
      switch (message.type) {
        case BULKHEAD_SERVE_PING: std::atomic_ref(table_->pong).store(message.value); continue;
        case BULKHEAD_SERVE_DRAIN: out.what = event::kind::drain; return out;
        case BULKHEAD_SERVE_END: out.what = event::kind::end; return out;
        case BULKHEAD_SERVE_PUBLISHED: out.what = event::kind::published; return out;
        case BULKHEAD_SERVE_LISTENER:
          out.what = event::kind::listener;
          out.listener = std::move(passed);
          return out;
        case BULKHEAD_SERVE_CONNECTION:
          if (message.slot >= slots_) continue;
          if (!passed) {  // there was no room for its descriptor: refused
            std::atomic_ref(words()[message.slot])
                .store(std::uint64_t{message.generation} << 32 | BULKHEAD_SERVE_RETURNED, std::memory_order_release);
            ring();
            continue;
          }
          out.what = event::kind::connection;
          out.connection = served_connection(*this, passed.release(), message.slot, message.generation);
          out.connection.idle();
          return out;
        default: continue;
      }
    }
  }

  // For a connection that the worker has accepted itself: takes the descriptor and finds a slot. Nothing, and the
  // descriptor closed, when there are as many connections as slots: see full().
  std::optional<served_connection> accepted(int fd) {
    for (std::size_t tried = 0; tried < slots_; ++tried) {
      const std::size_t slot = next_slot_++ % slots_;
      const std::uint64_t word = words()[slot];
      const auto state = static_cast<std::uint32_t>(word);
      if (state == BULKHEAD_SERVE_IDLE || state == BULKHEAD_SERVE_BUSY) continue;
      served_connection made(*this, fd, static_cast<std::uint32_t>(slot), static_cast<std::uint32_t>(word >> 32) + 1);
      made.idle();
      std::atomic_ref(table_->accepted).store(table_->accepted + 1, std::memory_order_relaxed);
      return made;
    }
    ::close(fd);
    return std::nullopt;
  }
  // How many connections the worker may have at once.
  std::size_t most_connections() const { return slots_; }

 private:
  friend class served_connection;

  std::uint64_t* words() { return reinterpret_cast<std::uint64_t*>(table_ + 1); }
  void ring() {
    const std::uint64_t one = 1;
    [[maybe_unused]] const ssize_t n = ::write(doorbell_.fd(), &one, sizeof one);
  }

  ssize_t receive(bulkhead_serve_message_t& message, handle& passed) {
    alignas(cmsghdr) char space[CMSG_SPACE(sizeof(int))];
    iovec part{&message, sizeof message};
    msghdr header{};
    header.msg_iov = &part;
    header.msg_iovlen = 1;
    header.msg_control = space;
    header.msg_controllen = CMSG_LEN(sizeof(int));  // exactly: with the rest of `space` a second one would fit
    const ssize_t n = ::recvmsg(control_.fd(), &header, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    if (n <= 0) return n;
    if (const cmsghdr* c = CMSG_FIRSTHDR(&header);
        c && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int))) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(c), sizeof fd);
      passed = handle(fd);
    }
    return n;
  }

  handle control_, doorbell_;
  bulkhead_serve_table_t* table_ = nullptr;
  std::size_t size_ = 0, slots_ = 0, next_slot_ = 0;
};

inline void served_connection::store(std::uint32_t state) {
  std::atomic_ref(link_->words()[slot_]).store(std::uint64_t{generation_} << 32 | state, std::memory_order_release);
}

inline void served_connection::give_back() {
  if (fd_ < 0) return;
  ::close(std::exchange(fd_, -1));  // first: the next worker must be the only one to watch it
  store(BULKHEAD_SERVE_RETURNED);
  link_->ring();
}

inline void served_connection::end() {
  if (fd_ < 0) return;
  store(BULKHEAD_SERVE_DONE);
  ::shutdown(fd_, SHUT_RDWR);
  ::close(std::exchange(fd_, -1));
}

}  // namespace bulkhead
