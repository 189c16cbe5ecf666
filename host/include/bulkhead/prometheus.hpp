// A host's metrics in the text format that Prometheus scrapes (version 0.0.4).
#pragma once

#include <bulkhead/metrics.hpp>

#include <string>
#include <vector>

namespace BULKHEAD_PUBLIC bulkhead {

// Plugins of the same name are added up. Names and meanings of the metrics: docs/daemon.md. Pure; any thread.
std::string to_prometheus_text(const std::vector<plugin_metrics>& plugins);

}  // namespace bulkhead
