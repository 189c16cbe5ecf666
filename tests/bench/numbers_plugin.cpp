// For bench_encoding: takes numbers as a list or as bytes.
#include <bulkhead/sdk.hpp>

#include <numeric>

BULKHEAD_PLUGIN("numbers", "1.0.0") {
  plugin.method("sum", [](const std::vector<double>& all) { return std::accumulate(all.begin(), all.end(), 0.0); });
  plugin.method("size", [](bulkhead::bytes_view all) { return all.size(); });
}
