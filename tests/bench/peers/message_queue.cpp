// Boost.Interprocess message_queue: a queue in shared memory for each direction, under a lock and condition variables that
// are in there, too.
#include "peer.hpp"

#include <boost/interprocess/ipc/message_queue.hpp>
#include <boost/version.hpp>

#include <algorithm>
#include <stdexcept>

#include <unistd.h>

namespace {

namespace ipc = boost::interprocess;

class message_queue_link final : public peer::link {
 public:
  explicit message_queue_link(std::size_t largest)
      : depth_(largest > (std::size_t{64} << 10) ? 1 : 64),
        to_(ipc::create_only, name("to").c_str(), depth_, largest),
        from_(ipc::create_only, name("from").c_str(), depth_, largest),
        server_([this, largest] { serve(largest); }),
        answer_(largest) {
    // Both sides have them; nothing is left behind.
    ipc::message_queue::remove(name("to").c_str());
    ipc::message_queue::remove(name("from").c_str());
  }

  peer::bytes_view call(peer::bytes_view payload) override {
    to_.send(payload.data(), payload.size(), 0);
    return receive();
  }

  bool many(peer::bytes_view payload, std::size_t count, std::size_t outstanding) override {
    if (outstanding > depth_) return false;
    for (std::size_t sent = 0, got = 0; got < count; ++got) {
      for (; sent < count && sent - got < outstanding; ++sent) to_.send(payload.data(), payload.size(), 0);
      if (receive().size() != payload.size()) throw std::runtime_error("the answer is not what was sent");
    }
    return true;
  }

  pid_t worker() const override { return server_.pid(); }

 private:
  static std::string name(const char* way) { return "bulkhead-bench-" + std::to_string(::getpid()) + "-" + way; }

  peer::bytes_view receive() {
    ipc::message_queue::size_type size = 0;
    unsigned priority = 0;
    from_.receive(answer_.data(), answer_.size(), size, priority);
    return {answer_.data(), size};
  }

  void serve(std::size_t largest) {
    std::vector<std::uint8_t> data(largest);
    for (;;) {
      ipc::message_queue::size_type size = 0;
      unsigned priority = 0;
      to_.receive(data.data(), data.size(), size, priority);
      from_.send(data.data(), size, 0);
    }
  }

  std::size_t depth_;
  ipc::message_queue to_, from_;
  peer::forked server_;
  std::vector<std::uint8_t> answer_;
};

}  // namespace

int main() {
  return peer::obey({.name = "Boost message_queue", .version = BOOST_LIB_VERSION, .connect = [](std::size_t largest) {
                       return std::make_unique<message_queue_link>(largest);
                     }});
}
