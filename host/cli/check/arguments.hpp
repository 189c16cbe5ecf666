// Arguments made up from a method's signature: values of the right types, common and extreme ones, and lists that are wrong
// in one way. All of a case follows from its seed.
#pragma once

#include "values/signature.hpp"
#include <bulkhead/call.hpp>

#include <cstdint>
#include <string>
#include <vector>

namespace bulkhead::cli::check {

struct made_arguments {
  std::vector<std::uint8_t> params;
  std::vector<std::vector<std::uint8_t>> items{};  // of its stream of arguments
  unsigned handles = 0;                            // files to pass, see with_handles()
  std::string wrong{};                             // what is wrong with them; empty: nothing
};

// The arguments of a case. The seeds 0 to 3 of a method give plain values, with which a method is likely to do its work.
made_arguments make(const signature& form, std::uint64_t seed, bool plain);

// As they travel: with a small file for each handle.
packed_arguments with_handles(const made_arguments& made);

// Whether the value is of that type.
bool fits(const type& wanted, const msgpack::object& value);

}  // namespace bulkhead::cli::check
