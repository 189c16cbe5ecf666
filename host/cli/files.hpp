// Whole files in and out, with errors that name the file.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace bulkhead::cli {

// The contents of `path`; "-" is the standard input. Throws std::runtime_error, also when there are more than `limit`
// bytes.
std::vector<std::uint8_t> read_file(const std::string& path, std::size_t limit);

// Writes all of `bytes`, replacing what was there; "-" is the standard output. Throws std::runtime_error.
void write_file(const std::string& path, std::span<const std::uint8_t> bytes);

}  // namespace bulkhead::cli
