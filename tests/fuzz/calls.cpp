// The calls of a channel. The input is a script of what both sides do; a model says how each call has to end: once, and
// as what. An answer that no call waits for ends the channel, one to a call given up is dropped and counted.
#include "fuzz.hpp"
#include <bulkhead/ipc/channel.hpp>

#include <map>
#include <set>

using namespace bulkhead;

namespace {

constexpr unsigned most_calls = 12, places = 4;

// The peer's end: what it has sent, and how much more it takes.
struct peer {
  std::vector<std::uint8_t> sent{}, taken{};
  std::size_t room = SIZE_MAX;
};

class to_peer final : public ipc::transport {
 public:
  explicit to_peer(peer& at) : at_(at) {}
  io_result read(std::span<std::uint8_t> into, std::vector<unique_fd>&, bool) noexcept override {
    const std::size_t n = std::min(into.size(), at_.sent.size());
    if (n == 0) return {io::would_block, 0};
    std::copy_n(at_.sent.begin(), n, into.begin());
    at_.sent.erase(at_.sent.begin(), at_.sent.begin() + static_cast<std::ptrdiff_t>(n));
    return {io::ok, n};
  }
  io_result write(bytes first, bytes second, std::span<const int>) noexcept override {
    const std::size_t n = std::min(first.size() + second.size(), at_.room);
    if (n == 0) return {io::would_block, 0};
    for (std::size_t i = 0; i < n; ++i) at_.taken.push_back(i < first.size() ? first[i] : second[i - first.size()]);
    at_.room -= at_.room == SIZE_MAX ? 0 : n;
    return {io::ok, n};
  }
  bool wait(bool, bool, ipc::time_point) noexcept override { return true; }
  void wake() noexcept override {}
  void shutdown() noexcept override {}
  int native_handle() const noexcept override { return -1; }

 private:
  peer& at_;
};

struct nobody final : ipc::channel::wakeups {
  void arm(bool, bool) override {}
  void schedule(ipc::time_point) override {}
};

class model final : ipc::channel::receiver {
 public:
  explicit model(script steps) : steps_(steps) { channel_.open(); }

  void run() {
    while (!steps_.done()) {
      step();
      must(channel_.closed() == closed_ && channel_.outstanding() == open_.size() && channel_.late_answers() == late_);
      must(due_.empty());
    }
    for (unsigned place = 0; place < places; ++place) let_go(place);
    fail_all();
    must(due_.empty() && open_.empty() && channel_.outstanding() == 0);
  }

 private:
  struct call {
    bool pending = true;  // or given up
    int place = -1;       // of a synchronous caller; -1: asynchronous
    ipc::time_point deadline = ipc::never;
  };
  struct ending final : ipc::async_completion {
    ending(model& of, bool again) : of_(of), again_(again) {}
    void complete(ipc::completion&& result) override {
      of_.ended(result);
      if (again_) of_.start(false, false, ipc::never, false);
    }
    model& of_;
    const bool again_;
  };

  void on_request(const ipc::message&, std::vector<unique_fd>) override { must(false); }
  void on_notification(const ipc::message&, std::vector<unique_fd>) override { must(false); }
  void on_closed(const std::string& violation) override { must(closed_ && !violation.empty()); }
  void on_late_answer(std::uint32_t id) override { must(id == last_late_); }

  void ended(const ipc::completion& result) {
    const auto found = due_.find(result.id);
    must(found != due_.end() && found->second == result.code);
    must(result.code != outcome::ok || result.result().size() == 1);
    due_.erase(found);
  }

  void start(bool sync, bool reserved, ipc::time_point deadline, bool again) {
    int place = -1;
    for (unsigned i = 0; sync && i < places; ++i)
      if (!waiters_[i]) place = static_cast<int>(i);
    if (sync && place < 0) return;
    if (sync) waiters_[static_cast<std::size_t>(place)].emplace();
    std::unique_ptr<ipc::async_completion> end;
    if (!sync) end = std::make_unique<ending>(*this, again);
    ipc::buffer frame = ipc::begin_request(reserved ? "$/m" : "m");
    ipc::packer(frame).pack_array(0);
    const auto started =
        channel_.start(frame.take(), {}, deadline, sync ? &*waiters_[static_cast<std::size_t>(place)] : nullptr,
                       sync ? nullptr : &end);
    const bool full = open_.size() >= most_calls;
    must(started.code == (closed_ || failed_ ? outcome::not_sent : full ? outcome::overloaded : outcome::ok));
    if (started.code != outcome::ok) {
      if (sync) waiters_[static_cast<std::size_t>(place)].reset();
      return;
    }
    must(!end || sync);
    must(open_.emplace(started.id, call{true, place, deadline}).second);
    ids_.push_back(started.id);
    if (!reserved) in_order_.push_back(started.id);
  }

  // A call in progress is about to end so.
  void expect(std::uint32_t id, call& of, outcome code) {
    of.pending = false;
    if (of.place < 0) must(due_.emplace(id, code).second);
    else waited_.emplace(of.place, code);
  }
  // What the synchronous ones got.
  void look_at_waiters() {
    for (const auto& [place, code] : waited_) {
      auto& waiter = waiters_[static_cast<std::size_t>(place)];
      must(channel_.wait(*waiter, ipc::never) == ipc::channel::wait_result::done && waiter->result.code == code);
      waiter.reset();
    }
    waited_.clear();
  }

  // One who waited is gone with an exception.
  void let_go(unsigned place) {
    for (auto& [id, each] : open_)
      if (each.place == static_cast<int>(place) && each.pending) each.pending = false;
    waiters_[place].reset();
  }

  // What comes of the answers that were sent. They are read one by one, for a call may begin when another ends.
  void read() {
    for (const auto& [id, code] : std::exchange(answers_, {})) {
      const ipc::buffer answer =
          code == outcome::ok ? ipc::make_response(id, one_) : ipc::make_error_response(id, {code, "", {}});
      peer_.sent.insert(peer_.sent.end(), answer.view().begin(), answer.view().end());
      const auto found = open_.find(id);
      if (found == open_.end()) {
        closed_ = true;
      } else if (!closed_) {
        if (found->second.pending) {
          expect(id, found->second, code);
        } else {
          ++late_;
          last_late_ = id;
        }
        open_.erase(found);
      }
      channel_.on_event(true, false);
      look_at_waiters();
      if (closed_) return;
    }
  }

  void fail_all() {
    failed_ = true;
    const auto seen = requests_taken();
    for (auto& [id, each] : open_)
      if (each.pending) expect(id, each, outcome::worker_lost);
    open_.clear();
    channel_.fail_all([&](const ipc::channel::open_call& call) {
      must(call.sequence <= in_order_.size());
      if (call.sequence > 0) {
        const bool whole = seen.contains(in_order_[call.sequence - 1]);
        must(call.written ? whole || cut_ : !whole);
      }
      return ipc::completion::failed(outcome::worker_lost, "");
    });
    look_at_waiters();
  }

  // Of which all has been written; `cut_`: of one more, some has.
  std::set<std::uint32_t> requests_taken() {
    std::set<std::uint32_t> found;
    ipc::byte_span rest = peer_.taken;
    while (const std::size_t size = ipc::value_size(rest)) {
      const auto message = ipc::parse_message(rest.first(size));
      must(message.has_value());
      if (message->kind == ipc::message_kind::request) must(found.insert(message->id).second);
      rest = rest.subspan(size);
    }
    cut_ = !rest.empty();
    return found;
  }

  std::uint32_t some_id() {
    const std::uint8_t which = steps_.byte();
    if (which == 255) return (std::uint32_t{steps_.byte()} << 24) | steps_.byte();
    return ids_.empty() ? which : ids_[ids_.size() - 1 - which % ids_.size()];
  }

  void step() {
    const std::uint8_t what = steps_.byte();
    switch (what & 15) {  // the rest of it says how
      case 0: {
        const std::uint8_t after = steps_.byte();
        start(what & 16, what & 32, after ? now_ + std::chrono::seconds(after) : ipc::never, what & 64);
        break;
      }
      case 1: answers_.emplace_back(some_id(), what & 16 ? outcome::plugin_error : outcome::ok); break;
      case 2: read(); break;
      case 3: {
        const std::uint32_t id = some_id();
        const auto found = open_.find(id);
        const bool pending = found != open_.end() && found->second.pending;
        if (pending) expect(id, found->second, outcome::cancelled);
        must(channel_.abandon(id, outcome::cancelled, "") == pending);
        look_at_waiters();
        break;
      }
      case 4: {
        now_ += std::chrono::seconds(steps_.byte());
        for (auto& [id, each] : open_)
          if (each.pending && each.place < 0 && each.deadline <= now_) expect(id, each, outcome::timeout);
        const auto ticked = channel_.tick(now_, std::chrono::seconds(steps_.byte()));
        if (!ticked.overdue) break;
        const auto found = open_.find(*ticked.overdue);
        must(found != open_.end() && !found->second.pending);
        break;
      }
      case 5: peer_.room = what & 16 ? SIZE_MAX : steps_.byte(); break;
      case 6: channel_.on_event(false, true); break;
      case 7: let_go(what / 16 % places); break;
      case 8: fail_all(); break;
      default: break;
    }
  }

  static ipc::limits limits_of() {
    ipc::limits made;
    made.queued_calls = most_calls;
    return made;
  }

  const std::uint8_t one_[1] = {1};
  script steps_;
  nobody loop_;
  peer peer_;
  std::array<std::optional<ipc::waiter>, places> waiters_;
  ipc::time_point now_ = ipc::clock::now();
  std::map<std::uint32_t, call> open_;                      // in progress or given up, not answered
  std::map<std::uint32_t, outcome> due_;                    // asynchronous ones that end in this step
  std::map<int, outcome> waited_;                           // synchronous ones, by their place
  std::vector<std::pair<std::uint32_t, outcome>> answers_;  // on their way
  std::vector<std::uint32_t> ids_, in_order_;               // of all calls; of those that are counted
  std::uint64_t late_ = 0;
  std::uint32_t last_late_ = 0;
  bool closed_ = false, failed_ = false, cut_ = false;
  ipc::channel channel_{std::make_unique<to_peer>(peer_), limits_of(), *this, &loop_};
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  model(script(data, size)).run();
  return 0;
}
