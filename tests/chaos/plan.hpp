// What is to happen in a chaos run, drawn from its seed: how each call is made, what befalls it, what befalls workers in
// their birth, and which signals come from outside. The same seed draws the same plan; when things meet is up to the
// machine.
#pragma once

#include "record.hpp"

#include <chrono>
#include <cstdint>
#include <random>
#include <string>

namespace chaos {

using dice = std::mt19937_64;

// An even number in [0, below).
inline std::size_t one_of(dice& random, std::size_t below) { return random() % below; }
inline bool once_in(dice& random, std::size_t times) { return random() % times == 0; }

struct call_plan {
  traffic what = traffic::none;
  unsigned size = 0;      // of the bytes; items of the stream
  bool in_turns = false;  // of the stream: each item's result is taken before the next is sent
  bool async = false, idempotent = false, cancelled = false;
  std::chrono::milliseconds deadline{0};  // 0: the plugin's own
  int microseconds = 0;                   // of work
  std::string harm, step;                 // empty: none
};

// `harm_one_in`: of so many calls, one comes to grief. `hostile`: it may break the protocol, too, which ends with the
// plugin in quarantine.
call_plan draw_call(dice& random, std::size_t harm_one_in, bool hostile);

// Of sixteen workers one dies, in one of the moments of its life.
birth_plan draw_birth(dice& random);

// What is done to a worker from outside.
struct blow {
  int signal;
  bool at_birth;  // to the next worker that starts, rather than one that serves
};
blow draw_blow(dice& random);

}  // namespace chaos
