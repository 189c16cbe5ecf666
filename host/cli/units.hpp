// Times and sizes as people write them on a command line.
#pragma once

#include <CLI/CLI.hpp>

#include <chrono>
#include <cstddef>
#include <optional>
#include <string_view>

namespace bulkhead::cli {

// "500ms", "5s", "1.5m", "2h". Nothing for anything else, a number without a unit included.
std::optional<std::chrono::nanoseconds> parse_duration(std::string_view text);
// "1048576", "1024K", "256M", "2G": powers of 1024.
std::optional<std::size_t> parse_size(std::string_view text);

// Options that take them; `out` stays as it is when the option is not given.
CLI::Option* add_duration(CLI::App& app, const char* name, std::chrono::nanoseconds& out, const char* description);
CLI::Option* add_size(CLI::App& app, const char* name, std::size_t& out, const char* description);

}  // namespace bulkhead::cli
