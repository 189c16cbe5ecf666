// What the parties of a chaos run write down, each where the others' death can't take it along: the caller tells the
// ledger of each call it issues and each outcome, by a pipe; a worker marks each call it takes up and each it finishes
// in a file that all of them map, which outlives them.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>

namespace chaos {

enum class entry : std::uint8_t { issued = 1, ended = 2, over = 3, event = 4 };

// What goes between a call and its worker besides arguments and result.
enum class traffic : std::uint8_t { none, event, bytes, stream };

// One record in the pipe; written whole, since it is smaller than PIPE_BUF.
struct record {
  std::uint64_t call = 0;
  entry kind = entry::issued;
  std::uint8_t outcome = 0;      // ended
  std::uint8_t idempotent = 0;   // issued
  std::uint8_t right = 0;        // ended, ok: the result is that call's own
  traffic what = traffic::none;  // issued; of an event: if the call comes to its end
  std::uint8_t wrong =
      0;  // ended: a streamed item was not the one that was due, or bytes lent to the call have changed
  std::uint16_t items = 0;  // ended: streamed results taken
};
static_assert(sizeof(record) == 16);

// When something happens to a worker in its birth or its end; 0: nothing.
enum class moment : std::uint8_t { none, constructor, create, init, destroy };

struct birth_plan {
  moment when = moment::none;
  std::uint8_t kind = 0;  // in kinds()
};

// The file of marks: this, then a byte for each call. In a byte, the lower half counts how often the call was begun,
// the upper half how often it was finished; either stops at 15.
struct marks {
  static constexpr std::size_t plans = 4096;
  static constexpr std::uint8_t begun = 0x01, finished = 0x10, half = 0x0f;

  std::atomic<std::uint32_t> births;     // so far; the n-th worker follows the n-th plan, round and round
  std::atomic<std::uint32_t> following;  // whether workers follow the plans at all
  birth_plan plan[plans];

  std::atomic<std::uint8_t>& of(std::uint64_t call) {
    return reinterpret_cast<std::atomic<std::uint8_t>*>(this + 1)[call];
  }
  static std::size_t size(std::uint64_t calls) { return sizeof(marks) + calls; }
};
static_assert(std::atomic<std::uint8_t>::is_always_lock_free);

// The result of the call `id`: nothing that another call's answer could be taken for.
constexpr std::uint64_t answer_to(std::uint64_t id) { return (id + 1) * 0x9e3779b97f4a7c15; }

// What the call's streams carry: the arguments, for each the result that is its complement, and what a call makes of all.
constexpr std::uint64_t item_of(std::uint64_t id, std::uint64_t index) { return answer_to(id) ^ index; }
constexpr std::uint64_t with_item(std::uint64_t sum, std::uint64_t item) { return (sum ^ item) * 0x100000001b3; }

// The bytes lent to the call; it gives back their complement.
constexpr std::uint8_t byte_of(std::uint64_t id, std::uint64_t index) {
  return static_cast<std::uint8_t>((answer_to(id) >> 32) + index * 7);
}

}  // namespace chaos
