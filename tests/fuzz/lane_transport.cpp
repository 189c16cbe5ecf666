// The host's end of a pair of lanes whose peer does what it likes, with its memory and on the socket beside it. The input
// is a script of the peer's steps and of what a channel and its event loop ask for meanwhile. No step crashes or waits
// for the peer; what is read was in the ring; a violation is final, and found nowhere but where a rule was broken.
#include "fuzz.hpp"
#include <bulkhead/ipc/attachment.hpp>
#include <bulkhead/ipc/lane_transport.hpp>

#include <array>

#include <fcntl.h>
#include <sys/socket.h>

using namespace bulkhead;

namespace {

using io = ipc::transport::io;

constexpr std::uint32_t ring = 4096;
constexpr std::uint8_t nil = 0xc0;
constexpr std::size_t most_handles = ipc::socket_transport::most_handles;

// Memory is made once; a run begins with all of its words zero.
struct memories {
  unique_fd down = ipc::lane_memory::make(ring), up = ipc::lane_memory::make(ring);
  ipc::lane_memory host{down.get(), true}, worker{up.get(), true};
  unique_fd file{::open("/dev/null", O_RDONLY | O_CLOEXEC)};
};
memories& shared() {
  static memories only;
  return only;
}

class attempt {
 public:
  explicit attempt(script steps) : steps_(steps), takes_handles_(steps_.byte() % 4 > 0) {
    for (ipc::lane_control* each : {&ours_, &theirs_}) {
      each->tail = each->head = each->reader_waits = each->writer_waits = 0;
      each->bell = each->one_cpu = 0;
    }
    auto ends = ipc::socket_transport::make_pair();
    socket_ = std::move(ends.second);
    host_ = std::make_unique<ipc::lane_transport>(
        std::make_unique<ipc::socket_transport>(std::move(ends.first), takes_handles_ ? most_handles : 0,
                                                ipc::read_patience),
        ipc::lane_memory(shared().down.get(), true), ipc::lane_memory(shared().up.get(), false), true);
    if (steps_.byte() % 2) host_->configure({.spin = std::chrono::nanoseconds(0)});
    host_->engage();
  }

  void run() {
    while (!steps_.done()) step();
  }

 private:
  void step() {
    switch (steps_.byte() % 16) {
      case 0: return advance_tail();
      case 1: return advance_head();
      case 2: return put_anything(theirs_.tail);
      case 3: return put_anything(theirs_.head);
      case 4: {
        std::size_t at = steps_.number<std::size_t>(2);
        for (const std::uint8_t each : steps_.some()) shared().worker.ring()[at++ % ring] = each;
        return;
      }
      case 5: {
        auto& word = steps_.byte() % 2 ? theirs_.reader_waits : theirs_.writer_waits;
        word = steps_.byte();
        return;
      }
      case 6: {
        auto& word = steps_.byte() % 2 ? theirs_.one_cpu : theirs_.bell;
        word = steps_.byte();
        return;
      }
      case 7: return say(steps_.some(), 0);
      case 8: return say(std::vector<std::uint8_t>(1 + steps_.byte() % 4, nil), 0);
      case 9: return say(std::vector<std::uint8_t>(1, nil), 1 + steps_.byte() % most_sent);
      case 10: return hear();
      case 11: return read();
      case 12: return write();
      case 13: return wait();
      case 14: return watch();
      default: return others();
    }
  }

  // --- the peer -------------------------------------------------------------------------------------------------------

  void advance_tail() {
    const std::uint32_t to = theirs_.tail + steps_.number<std::uint32_t>(2) % (ring / 2);
    honest_ = honest_ && to - taken_ <= ring;
    theirs_.tail = to;
  }

  void advance_head() {
    const std::uint32_t head = theirs_.head, more = steps_.number<std::uint32_t>(2) % (ring / 2);
    honest_ = honest_ && more <= put_ - head;
    theirs_.head = head + more;
  }

  void put_anything(std::atomic<std::uint32_t>& cursor) {
    honest_ = false;
    cursor = steps_.number<std::uint32_t>(4);
  }

  void say(std::span<const std::uint8_t> bytes, std::size_t descriptors) {
    std::array<int, most_sent> files;
    files.fill(shared().file.get());
    iovec part{const_cast<std::uint8_t*>(bytes.data()), bytes.size()};
    msghdr message{};
    message.msg_iov = &part;
    message.msg_iovlen = 1;
    attachment<most_sent> attached;
    attached.add_to(message, std::span<const int>(files).first(descriptors));
    const ssize_t sent = ::sendmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent <= 0) return;
    const auto count = static_cast<std::size_t>(sent);
    foul_ = foul_ || std::ranges::any_of(bytes.first(count), [](std::uint8_t each) { return each != nil; });
    if (descriptors > 0 && takes_handles_) {
      ahead_ += descriptors;
      bells_ += count - 1;
    } else {
      bells_ += count;
      cuts_ = cuts_ || descriptors > 0;
    }
    honest_ = honest_ && !foul_ && bells_ <= asked_ && ahead_ <= most_handles;
  }

  void hear() {
    if (steps_.byte() % 4 == 0) {
      ::shutdown(socket_.get(), SHUT_WR);
      return;
    }
    std::array<std::uint8_t, 64> heard;
    const ssize_t count = ::recv(socket_.get(), heard.data(), heard.size(), MSG_DONTWAIT);
    for (ssize_t i = 0; i < count; ++i) must(heard[static_cast<std::size_t>(i)] == nil);
  }

  // --- the host -------------------------------------------------------------------------------------------------------

  void read() {
    std::vector<std::uint8_t> into(1 + steps_.number<std::size_t>(2) % ring);
    std::vector<unique_fd> handles;
    const std::uint32_t there = theirs_.tail - taken_;
    const auto got = host_->read(into, handles, false);
    must(handles.empty());
    must(!broken_ || got.status == io::violation);
    if (got.status == io::ok) {
      must(there > 0 && there <= ring && got.bytes == std::min<std::size_t>(there, into.size()));
      for (std::size_t i = 0; i < got.bytes; ++i) must(into[i] == shared().worker.ring()[(taken_ + i) % ring]);
      taken_ += static_cast<std::uint32_t>(got.bytes);
      must(ours_.head == taken_);
      return;
    }
    must(got.bytes == 0);
    if (got.status == io::violation) {
      must(!honest_ && host_->violation() && (!broken_ || broken_ == host_->violation()));
      broken_ = host_->violation();
      return;
    }
    must(there == 0);
    // The kernel ends a read behind a byte that came with descriptors: what follows is for the next one.
    must(got.status == io::closed || cuts_ || (!foul_ && bells_ <= asked_));
  }

  void write() {
    std::vector<std::uint8_t> bytes(steps_.number<std::size_t>(2) % (2 * ring));
    for (std::size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<std::uint8_t>(put_ + 7 * i);
    const std::size_t split = bytes.size() / 3;
    const std::vector<int> handles(steps_.byte() % (most_handles + 1), shared().file.get());
    const auto got =
        host_->write(std::span(bytes).first(split), std::span(bytes).subspan(split), std::span<const int>(handles));
    must(got.status != io::violation && got.bytes <= std::min<std::size_t>(bytes.size(), ring));
    must(got.status == io::ok || got.bytes == 0);
    must(!broken_ || got.status == io::closed);
    for (std::size_t i = 0; i < got.bytes; ++i) must(shared().host.ring()[(put_ + i) % ring] == bytes[i]);
    put_ += static_cast<std::uint32_t>(got.bytes);
    must(ours_.tail == put_);
  }

  void wait() {
    const std::uint8_t how = steps_.byte();
    const bool writing = how % 2, reading = how / 2 % 2 || !writing;
    const auto limit = how / 4 % 4 ? std::chrono::microseconds(0) : std::chrono::microseconds(20);
    const bool there = host_->wait(reading, writing, ipc::clock::now() + limit);
    must(there || writing || (theirs_.tail == taken_ && !broken_));
  }

  void watch() {
    const std::uint8_t how = steps_.byte();
    const bool writing = how % 2, reading = how / 2 % 2;
    const auto wanted = host_->watch(reading, writing);
    asked_ += std::size_t{reading} + std::size_t{writing};
    must(wanted.in == (reading || writing));
    must(!reading || wanted.out || (theirs_.tail == taken_ && !broken_));
    must(((ours_.reader_waits & ipc::lane_wait_mask) == ipc::by_socket) == reading);
  }

  void others() {
    switch (steps_.byte() % 8) {
      case 0: (void)host_->linger(true); break;
      case 1: (void)host_->linger(false); break;
      case 2: host_->on_event(); break;
      case 3: host_->flush(); break;
      case 4: host_->wake(); break;
      case 5:
        if (steps_.byte() % 8 == 0) host_->shutdown();
        break;
      default: {
        const std::size_t wanted = steps_.byte() % 40;
        std::vector<unique_fd> handles;
        host_->collect(handles, wanted);
        must(handles.size() <= std::min(wanted, ahead_));
        ahead_ -= handles.size();
      }
    }
  }

  static constexpr std::size_t most_sent = most_handles + 4;  // descriptors at a time

  script steps_;
  const bool takes_handles_;
  ipc::lane_control& ours_ = shared().host.control();
  ipc::lane_control& theirs_ = shared().worker.control();
  unique_fd socket_;  // the peer's
  std::unique_ptr<ipc::lane_transport> host_;
  std::uint32_t taken_ = 0, put_ = 0;  // of the host's bytes, in all
  std::size_t asked_ = 0, bells_ = 0;  // how often to be rung for, and how often it was
  std::size_t ahead_ = 0;              // descriptors sent and not collected
  bool honest_ = true;                 // no rule was broken
  bool foul_ = false;                  // something else than nil on the socket
  bool cuts_ = false;                  // descriptors where none are taken
  const char* broken_ = nullptr;       // the violation that was told
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  attempt(script(data, size)).run();
  return 0;
}
