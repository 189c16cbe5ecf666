// chaos_ledger MARKS CALLS: the independent account of a chaos run. Reads records from its standard input until the run
// is over, holds them against the workers' own marks, and prints what it found as JSON. It shares nothing with the host
// but these two, so whatever becomes of the host or of its workers, what was written stands.
#include "record.hpp"
#include <bulkhead/outcome.hpp>

#include <nlohmann/json.hpp>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

namespace {

using bulkhead::outcome;
using chaos::entry;
using chaos::record;
using chaos::traffic;

constexpr std::size_t outcomes = 10;

struct account {
  std::uint8_t issued = 0, ended = 0, outcome = 0, events = 0;
  bool idempotent = false, right = false, wrong = false;
  traffic what = traffic::none;
  std::uint16_t items = 0;
};

class ledger {
 public:
  explicit ledger(std::uint64_t calls) : calls_(calls) {}

  void take(const record& each) {
    if (each.call >= calls_.size() || each.outcome >= outcomes) return note("records_that_make_no_sense", each.call);
    account& mine = calls_[each.call];
    if (each.kind == entry::issued) {
      ++mine.issued;
      mine.idempotent = each.idempotent;
      mine.what = each.what;
    } else if (each.kind == entry::event) {
      if (mine.events < 255) ++mine.events;
    } else {
      if (mine.issued == 0) note("ended_before_it_was_issued", each.call);
      if (mine.ended < 255) ++mine.ended;
      mine.outcome = each.outcome;
      mine.right = each.right;
      mine.wrong = each.wrong;
      mine.items = each.items;
    }
  }

  nlohmann::json close(chaos::marks& marks) {
    std::uint64_t issued = 0, begun_twice = 0, items = 0, events = 0;
    std::array<std::uint64_t, outcomes> ends{};
    for (std::uint64_t id = 0; id < calls_.size(); ++id) {
      const account& mine = calls_[id];
      const unsigned mark = marks.of(id), begun = mark & chaos::marks::half, finished = mark >> 4;
      items += mine.items;
      events += mine.events;
      if (mine.events > begun) note("more_events_than_it_was_begun", id);
      if (mine.events > 0 && mine.what != traffic::event) note("an_event_that_it_does_not_emit", id);
      if (mine.issued == 0) {
        if (mark) note("ran_but_was_never_issued", id);
        continue;
      }
      ++issued;
      if (mine.issued > 1) note("issued_twice", id);
      if (mine.ended == 0) note("no_outcome", id);
      if (mine.ended > 1) note("more_than_one_outcome", id);
      if (mine.ended == 0) continue;
      ++ends[mine.outcome];
      begun_twice += begun > 1;
      if (begun > 1 && !mine.idempotent) note("ran_twice_and_may_not", id);
      if (mine.items > 0 && begun == 0) note("streamed_items_of_a_call_that_did_not_run", id);
      if (mine.wrong) note("streamed_or_lent_what_is_not_its_own", id);
      switch (static_cast<outcome>(mine.outcome)) {
        case outcome::ok:
          if (mine.what == traffic::event && mine.events == 0) note("ok_but_its_event_never_came", id);
          if (finished == 0) note("ok_for_a_call_that_did_not_run", id);
          if (!mine.right) note("ok_with_the_result_of_another_call", id);
          break;
        case outcome::plugin_error:
          // Beside a memory bomb there may be no addresses for bytes that were lent, which the worker says before it begins.
          if (begun == 0 && mine.what != traffic::bytes) note("plugin_error_for_a_call_that_did_not_run", id);
          break;
        case outcome::not_sent:
        case outcome::overloaded:
        case outcome::unavailable:
        case outcome::rejected:  // one that may be repeated may have been begun, and then found no other worker
          if (mine.items > 0 || (begun > 0 && !mine.idempotent)) note("ran_but_is_said_not_to_have_begun", id);
          break;
        default: break;  // it may have run or not
      }
    }
    nlohmann::json out{{"calls", issued},
                       {"repeated", begun_twice},
                       {"items", items},
                       {"events", events},
                       {"violations", violations_}};
    for (std::size_t i = 0; i < outcomes; ++i)
      if (ends[i] > 0) out["outcomes"][std::string(to_string(static_cast<outcome>(i)))] = ends[i];
    return out;
  }

 private:
  std::string describe(std::uint64_t call) const {
    std::string out = std::to_string(call);
    if (call >= calls_.size()) return out;
    static constexpr const char* kinds[] = {"nothing besides", "an event", "bytes", "a stream"};
    const account& mine = calls_[call];
    out += std::string(" with ") + kinds[static_cast<std::size_t>(mine.what) % std::size(kinds)];
    if (mine.idempotent) out += ", idempotent";
    if (mine.items > 0) out += ", " + std::to_string(mine.items) + " items taken";
    return out;
  }
  void note(const char* what, std::uint64_t call) {
    auto& entry = violations_[what];
    if (entry.is_null()) entry = {{"count", 0}, {"first", describe(call)}};
    entry["count"] = entry["count"].get<std::uint64_t>() + 1;
  }

  std::vector<account> calls_;
  nlohmann::json violations_ = nlohmann::json::object();
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) return 64;
  const std::uint64_t calls = std::strtoull(argv[2], nullptr, 10);
  const int file = ::open(argv[1], O_RDWR | O_CLOEXEC);
  void* page = ::mmap(nullptr, chaos::marks::size(calls), PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
  if (page == MAP_FAILED) return 66;
  ledger account(calls);
  std::vector<record> chunk(4096);
  std::size_t have = 0;  // bytes of the chunk
  for (bool over = false; !over;) {
    auto* const bytes = reinterpret_cast<char*>(chunk.data());
    const ssize_t n = ::read(STDIN_FILENO, bytes + have, chunk.size() * sizeof(record) - have);
    if (n <= 0) break;  // the host is gone: what there is has to do
    have += static_cast<std::size_t>(n);
    const std::size_t whole = have / sizeof(record);
    for (std::size_t i = 0; i < whole && !over; ++i) {
      over = chunk[i].kind == entry::over;
      if (!over) account.take(chunk[i]);
    }
    have -= whole * sizeof(record);
    std::copy_n(bytes + whole * sizeof(record), have, bytes);
  }
  std::puts(account.close(*static_cast<chaos::marks*>(page)).dump().c_str());
}
