// An HTTP/1.1 server for a cluster (bulkhead/cluster.hpp): values that the application publishes, the files of a
// directory, and /status as JSON.
#include "server.hpp"
#include <bulkhead/sdk.hpp>

BULKHEAD_MANIFEST(license, "license=MIT");
BULKHEAD_MANIFEST(description, "description=An HTTP/1.1 server for clusters: a directory, and its own status");

BULKHEAD_PLUGIN("http", "1.0.0") {
  plugin.method(BULKHEAD_SERVE_METHOD,
                [](bulkhead::context& cx, bulkhead::handle control, bulkhead::handle table, bulkhead::handle doorbell,
                   const std::map<std::string, std::string>& settings) {
                  bulkhead::serve_link link(std::move(control), std::move(table), std::move(doorbell));
                  http_plugin::server(cx, link, http_plugin::settings(settings)).run();
                },
                "Serves connections of a cluster", {"control", "table", "doorbell", "settings"});
}
