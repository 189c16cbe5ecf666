// See plan.hpp. Weights say how often a kind comes up among its like; what hangs is rare, since it takes its worker out
// of the run for more than a second each time.
#include "plan.hpp"

#include "kinds.hpp"

#include <csignal>
#include <span>
#include <stdexcept>

namespace chaos {
namespace {

struct weighted {
  const char* name;
  unsigned weight;
};

constexpr weighted in_a_call[] = {
    {"segfault", 12},
    {"abort", 12},
    {"raise_sigkill", 24},
    {"raise_sigterm", 4},
    {"exit_0", 8},
    {"exit_3", 8},
    {"_exit_0", 8},
    {"stack_overflow", 4},
    {"thread_stack_overflow", 2},
    {"divide_by_zero", 4},
    {"bus_error", 4},
    {"illegal_instruction", 4},
    {"jump_to_null", 4},
    {"double_free", 4},
    {"smashed_stack", 3},
    {"smashed_return", 3},
    {"smashed_everything", 3},
    {"terminate", 4},
    {"uncaught_exception_in_thread", 2},
    {"torn_answer", 8},
    {"close_channel", 3},
    {"close_all_fds", 2},
    {"memory_bomb", 1},
    {"exception", 6},
    {"foreign_exception", 4},
    {"stderr_lines", 3},
    {"stdout_flood", 1},
    {"ignore_cancel", 1},
    {"deadlock", 1},
    {"endless_loop", 1},
    {"sigstop_self", 1},
};
constexpr weighted hostile_ones[] = {{"garbage_on_channel", 1}, {"forged_response", 1}};
constexpr weighted in_a_birth[] = {{"segfault", 3},
                                   {"raise_sigkill", 3},
                                   {"exit_0", 1},
                                   {"exit_3", 1},
                                   {"abort", 2},
                                   {"exception", 1},
                                   {"close_channel", 1},
                                   {"divide_by_zero", 1},
                                   {"bus_error", 1},
                                   {"illegal_instruction", 1},
                                   {"stack_overflow", 1},
                                   {"_exit_0", 1},
                                   {"uncaught_exception_in_thread", 1},
                                   {"close_all_fds", 1}};

const char* draw(dice& random, std::span<const weighted> from) {
  std::size_t total = 0;
  for (const weighted& each : from) total += each.weight;
  std::size_t left = one_of(random, total);
  for (const weighted& each : from) {
    if (left < each.weight) return each.name;
    left -= each.weight;
  }
  throw std::logic_error("unreachable");
}

}  // namespace

call_plan draw_call(dice& random, std::size_t harm_one_in, bool hostile) {
  call_plan out;
  out.async = once_in(random, 3);
  out.idempotent = once_in(random, 4);
  out.cancelled = once_in(random, 50);
  if (once_in(random, 25)) out.deadline = std::chrono::milliseconds(1 + one_of(random, 20));
  if (once_in(random, 100)) out.microseconds = static_cast<int>(one_of(random, 2000));
  switch (one_of(random, 16)) {
    case 0: out.what = traffic::stream, out.size = static_cast<unsigned>(2 + one_of(random, 30)); break;
    case 1: out.what = traffic::bytes, out.size = static_cast<unsigned>(1 + one_of(random, 64 << 10)); break;
    case 2:
    case 3: out.what = traffic::event; break;
    default: break;
  }
  out.in_turns = once_in(random, 4);
  if (!once_in(random, harm_one_in)) return out;
  const bool on_the_way = out.what == traffic::stream || out.what == traffic::bytes;
  const char* const steps[] = {"begun", "finished", on_the_way ? "between" : "answered"};
  out.idempotent = false;  // it would take its harm to one worker after the other
  out.step = steps[one_of(random, std::size(steps))];
  out.harm = hostile && once_in(random, 4) ? draw(random, hostile_ones) : draw(random, in_a_call);
  return out;
}

birth_plan draw_birth(dice& random) {
  birth_plan out;
  if (!once_in(random, 16)) return out;
  out.when = static_cast<moment>(1 + one_of(random, 4));
  const std::string_view name = draw(random, in_a_birth);
  for (std::size_t i = 0; i < kinds().size(); ++i)
    if (name == kinds()[i].name) out.kind = static_cast<std::uint8_t>(i);
  return out;
}

blow draw_blow(dice& random) {
  constexpr int signals[] = {SIGKILL, SIGKILL, SIGKILL, SIGKILL, SIGKILL, SIGKILL,
                             SIGSEGV, SIGSEGV, SIGABRT, SIGBUS,  SIGTERM, SIGFPE};
  if (once_in(random, 32)) return {SIGSTOP, once_in(random, 4)};
  return {signals[one_of(random, std::size(signals))], once_in(random, 6)};
}

}  // namespace chaos
