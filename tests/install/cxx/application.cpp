// An application that knows nothing but what is installed: every public header, calls of each kind, errors, metrics.
#include <bulkhead/host.hpp>
#include <bulkhead/metrics.hpp>
#include <bulkhead/process.hpp>
#include <bulkhead/prometheus.hpp>
#include <bulkhead/sdk.hpp>

#include <boost/asio/use_future.hpp>

#include <iostream>

int main(int, char** argv) {
  bulkhead::host host;
  const bulkhead::plugin shout = host.load(argv[1], {.policy = bulkhead::policy{}.threads(8)});
  std::future<std::string> later = shout.async_call<std::string>("shout", std::tuple{"hello"}, boost::asio::use_future);
  std::cout << later.get();
  try {
    shout.call("die");
  } catch (const bulkhead::call_error& error) {
    std::cout << ", " << to_string(error.outcome());
    if (!error.report() || error.report()->summary().empty()) return 1;
  }
  std::uint64_t ended = 0;
  for (const bulkhead::plugin_metrics& each : host.metrics())
    for (const bulkhead::method_metrics& method : each.methods) ended += method.ended();
  std::cout << ", " << ended << " calls\n";
  if (bulkhead::launcher{}.exec("echo out").out != "out\n") return 1;
  return bulkhead::to_prometheus_text(host.metrics()).find("shout") == std::string::npos;
}
