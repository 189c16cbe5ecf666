// The daemon's plugins as a table, for `bulkhead ps` and `bulkhead top`.
#pragma once

#include "values/from_msgpack.hpp"

#include <cstdint>
#include <string>
#include <vector>

namespace bulkhead::cli {

// "1.2 GiB", "340 KiB".
std::string bytes_text(std::uint64_t bytes);
// "3d 4h", "2h 5m", "42s".
std::string duration_text(std::int64_t ms);

// Rows of cells as lines whose columns line up; the first row is the heading. Columns of `right` (by index) are numbers.
std::vector<std::string> table_lines(const std::vector<std::vector<std::string>>& rows,
                                     const std::vector<std::size_t>& right);

// "2/4": workers that serve, of those that should.
std::string workers_text(const json& plugin);

}  // namespace bulkhead::cli
