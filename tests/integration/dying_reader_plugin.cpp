// Stands in for the reader of names, bulkhead-symbolizer, and dies of every file that it is given; of libraries it lives.
#include <bulkhead/sdk.hpp>

#include <cstdlib>

namespace {
using named = std::vector<std::tuple<std::string, std::string, int>>;
}

BULKHEAD_PLUGIN("dying-reader", "1.0.0") {
  plugin.method("names",
                [](const bulkhead::handle&, const std::string&,
                   const std::vector<std::uint64_t>&) -> std::vector<named> { std::abort(); },
                "Dies", {"file", "build_id", "offsets"});
  plugin.method("names_in_library",
                [](const std::string&, const std::string&, const std::vector<std::uint64_t>& offsets) {
                  return std::vector<named>(offsets.size(), named{{"the library's", "", 0}});
                },
                "Names all the same", {"path", "build_id", "offsets"});
}
