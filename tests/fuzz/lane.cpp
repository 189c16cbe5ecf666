// A lane whose peer's memory changes between the steps of its reader and writer. The input is a script of both
// sides' steps; a model of the honest parts says what must have come out. No step crashes or hands over more bytes than
// were there, and a cursor that went back or too far is noticed.
#include "fuzz.hpp"
#include <bulkhead/ipc/lane.hpp>

using namespace bulkhead;

namespace {

constexpr std::uint32_t ring = 4096;

// Memory is made once; a run begins with all of it zero.
struct memories {
  unique_fd down = ipc::lane_memory::make(ring), up = ipc::lane_memory::make(ring);
  ipc::lane_memory host_down{down.get(), true}, host_up{up.get(), false}, worker{up.get(), true};
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static memories shared;
  auto& theirs = shared.worker.control();
  theirs.tail = theirs.head = 0;
  shared.host_down.control().tail = shared.host_down.control().head = 0;
  ipc::lane_reader reader(shared.host_down, shared.host_up);
  ipc::lane_writer writer(shared.host_down, shared.host_up);
  std::uint64_t taken = 0, put = 0;  // in all
  std::uint64_t tail = 0, head = 0;  // of the peer, were it honest, as last believed
  std::vector<std::uint8_t> into(ring);
  for (script steps(data, size); !steps.done();) {
    switch (steps.byte() % 8) {
      case 0: theirs.tail = theirs.tail + steps.number<std::uint32_t>(2) % (ring / 2); break;
      case 1: theirs.head = theirs.head + steps.number<std::uint32_t>(2) % (ring / 2); break;
      case 2: theirs.tail = steps.number<std::uint32_t>(4); break;
      case 3: theirs.head = steps.number<std::uint32_t>(4); break;
      case 4: shared.worker.ring()[steps.number<std::uint32_t>(2) % ring] = steps.byte(); break;
      case 5: {
        const std::uint32_t now = theirs.tail;
        std::uint32_t bytes = 0;
        const bool fine = reader.available(bytes);
        const auto ahead = static_cast<std::uint32_t>(now - static_cast<std::uint32_t>(taken));
        must(fine == (ahead <= ring && ahead >= tail - taken));
        if (!fine) return 0;
        must(bytes == ahead);
        tail = taken + ahead;
        const std::size_t some = std::min<std::size_t>(bytes, steps.number<std::uint32_t>(2) % (ring + 1));
        reader.take({into.data(), some});
        taken += some;
        must(shared.host_down.control().head == static_cast<std::uint32_t>(taken));
        break;
      }
      default: {
        const std::uint32_t wanted = steps.number<std::uint32_t>(2) % (ring + 1), now = theirs.head;
        std::uint32_t room = 0;
        const bool fine = writer.room(room, wanted);
        if (room >= wanted && ring - (put - head) >= wanted) {
          must(fine);  // it had no need to look
        } else {
          const auto behind = static_cast<std::uint32_t>(static_cast<std::uint32_t>(put) - now);
          must(fine == (behind <= put - head));
          if (!fine) return 0;
          head = put - behind;
        }
        must(room == ring - (put - head));
        const std::size_t some = std::min(room, wanted);
        writer.put({into.data(), some});
        writer.publish();
        put += some;
      }
    }
  }
  return 0;
}
