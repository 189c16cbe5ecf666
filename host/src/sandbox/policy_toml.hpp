// A policy from a TOML table that is part of a larger file: the daemon's configuration.
#pragma once

#include <bulkhead/policy.hpp>

#include <toml++/toml.h>

#include <stdexcept>

namespace bulkhead {

class toml_mistake : public std::invalid_argument {
 public:
  toml_mistake(const toml::node& where, const std::string& what)
      : std::invalid_argument(what), line(where.source().begin.line) {}
  toml::source_index line;
};

// As policy::from_toml(). Throws toml_mistake.
policy policy_from_table(const toml::table& table);

}  // namespace bulkhead
