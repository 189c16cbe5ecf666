// For bench_encoding: takes values of several types, and bytes where they lie or as a copy.
#include <bulkhead/sdk.hpp>

#include <numeric>

BULKHEAD_PLUGIN("numbers", "1.0.0") {
  plugin.method("sum", [](const std::vector<double>& all) { return std::accumulate(all.begin(), all.end(), 0.0); });
  plugin.method("values", [](const std::string& text, double, int) { return text.size(); });
  plugin.method("size", [](bulkhead::bytes_view all) { return all.size(); });
  plugin.method("copied", [](const bulkhead::bytes& all) { return all.size(); });
}
