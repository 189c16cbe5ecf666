// The plugin of the chaos tool. It marks each call that it takes up and each that it finishes in a file that outlives
// it, and it comes to grief where it is told: at a step of a call, as the call says, or of its own birth and end, by the
// plan in that file. Built twice: as `chaos_serial`, and thread-safe as `chaos_parallel`.
#include "kinds.hpp"
#include "record.hpp"
#include <bulkhead/sdk.hpp>

#include <chrono>
#include <cstdlib>
#include <thread>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

namespace {

using chaos::marks;
using chaos::moment;

marks* map_marks() {
  const char* path = std::getenv("CHAOS_MARKS");
  const int file = path ? ::open(path, O_RDWR | O_CLOEXEC) : -1;
  struct stat is {};
  if (file < 0 || ::fstat(file, &is) != 0) return nullptr;
  void* page = ::mmap(nullptr, static_cast<std::size_t>(is.st_size), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  ::close(file);
  return page == MAP_FAILED ? nullptr : static_cast<marks*>(page);
}

marks* const shared = map_marks();
chaos::birth_plan mine;

void at_moment(moment now) {
  if (mine.when == now) chaos::kinds()[mine.kind].act();
}

struct constructed {
  constructed() {
    if (!shared || !shared->following) return;
    mine = shared->plan[shared->births.fetch_add(1) % marks::plans];
    at_moment(moment::constructor);
  }
} const at_dlopen;

void mark(std::uint64_t id, std::uint8_t what) {
  auto& byte = shared->of(id);
  for (std::uint8_t now = byte; (now & (what * marks::half)) != what * marks::half;)
    if (byte.compare_exchange_weak(now, static_cast<std::uint8_t>(now + what))) return;
}

// Sends the first bytes of an answer, as if it had been killed while it wrote.
void tear() {
  for (int fd = 3; fd < 64; ++fd) {
    struct stat file {};
    if (::fstat(fd, &file) != 0 || !S_ISSOCK(file.st_mode)) continue;
    const unsigned char half[] = {0x94, 0x01, 0xce, 0x00};  // [1, and half a number
    [[maybe_unused]] const ssize_t n = ::send(fd, half, sizeof half, MSG_NOSIGNAL);
    break;
  }
  ::_exit(0);
}

struct grief {
  const std::string& harm;
  const std::string& step;
  void operator()(const char* here) const {
    if (step != here) return;
    if (harm == "torn_answer") tear();
    if (const chaos::kind* kind = chaos::find(harm)) kind->act();
  }
};

void work(bulkhead::responder<std::uint64_t> responder, std::uint64_t id, int microseconds, bool emits,
          const std::string& harm, const std::string& step) {
  // On the heap: what never comes back must not answer on its way out.
  auto* answer = new bulkhead::responder<std::uint64_t>(std::move(responder));
  mark(id, marks::begun);
  const grief at{harm, step};
  at("begun");
  const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(microseconds);
  while (std::chrono::steady_clock::now() < end && !answer->cx().cancelled())
    std::this_thread::sleep_for(std::chrono::microseconds(50));
  if (answer->cx().cancelled()) {
    answer->fail("cancelled");
  } else {
    if (emits) answer->cx().emit("working", id);
    mark(id, marks::finished);
    at("finished");
    answer->reply(chaos::answer_to(id));
    at("answered");
  }
  delete answer;
}

std::uint64_t flow(bulkhead::reader<std::uint64_t> in, bulkhead::writer<std::uint64_t> out, std::uint64_t id,
                   const std::string& harm, const std::string& step) {
  mark(id, marks::begun);
  const grief at{harm, step};
  at("begun");
  std::uint64_t sum = chaos::answer_to(id);
  for (unsigned taken = 0; const auto item = in.next(); ++taken) {
    if (taken == 1) at("between");
    out.send(~*item);
    sum = chaos::with_item(sum, *item);
  }
  mark(id, marks::finished);
  at("finished");
  return sum;
}

bulkhead::blob invert(bulkhead::context& cx, std::uint64_t id, bulkhead::bytes_view in, const std::string& harm,
                      const std::string& step) {
  mark(id, marks::begun);
  const grief at{harm, step};
  at("begun");
  bulkhead::blob out = cx.create_blob(in.size());
  const auto to = out.writable();
  for (std::size_t i = 0; i < in.size(); ++i) {
    if (i == in.size() / 2) at("between");
    to[i] = static_cast<std::uint8_t>(~in[i]);
  }
  mark(id, marks::finished);
  at("finished");
  return out;
}

}  // namespace

#ifdef CHAOS_PARALLEL
BULKHEAD_THREAD_SAFE;
#endif
BULKHEAD_PLUGIN("chaos_guest", "1.0.0") {
  if (!shared) throw bulkhead::error("CHAOS_MARKS names no file of marks");
  at_moment(moment::create);
  plugin.on_init([] { at_moment(moment::init); });
  plugin.on_destroy([] { at_moment(moment::destroy); });
  static std::vector<std::uint64_t> kept(512);
  plugin.state([] { return ++kept.front(), kept; }, [](std::vector<std::uint64_t> saved) { kept = std::move(saved); });
  // Each twice: the second may be repeated.
  plugin.method("work", work, "Works, or comes to grief at a step");
  plugin.method("work_again", work).idempotent();
  plugin.method("flow", flow, "Gives back the complement of each item, and what they come to");
  plugin.method("flow_again", flow).idempotent();
  plugin.method("invert", invert, "Gives back the complement of the bytes");
  plugin.method("invert_again", invert).idempotent();
}
