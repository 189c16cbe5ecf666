// See prometheus.hpp: from the host's numbers to prometheus-cpp's metric families; its serializer does the rest.
#include <bulkhead/prometheus.hpp>

#include <prometheus/metric_family.h>
#include <prometheus/text_serializer.h>

#include <limits>
#include <map>

namespace bulkhead {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricType;
using labels = std::vector<ClientMetric::Label>;

struct family {
  prometheus::MetricFamily made;

  family(const char* name, const char* help, MetricType type) {
    made.name = name;
    made.help = help;
    made.type = type;
  }
  ClientMetric& add(labels with) {
    made.metric.emplace_back();
    made.metric.back().label = std::move(with);
    return made.metric.back();
  }
  void value(labels with, double number) {
    ClientMetric& metric = add(std::move(with));
    if (made.type == MetricType::Counter) metric.counter.value = number;
    else metric.gauge.value = number;
  }
};

void fill(ClientMetric& metric, const latency_histogram& from) {
  std::uint64_t below = 0;
  for (std::size_t i = 0; i < from.counts.size(); ++i) {
    below += from.counts[i];
    const double bound =
        i < latency_histogram::bounds.size() ? latency_histogram::bounds[i] : std::numeric_limits<double>::infinity();
    metric.histogram.bucket.push_back({below, bound});
  }
  metric.histogram.sample_count = below;
  metric.histogram.sample_sum = from.sum;
}

template <class Array, class Name>
void each_kind(family& out, const labels& of, const char* label, const Array& counts, Name name) {
  for (std::size_t i = 0; i < counts.size(); ++i) {
    labels with = of;
    with.push_back({label, std::string(name(i))});
    out.value(std::move(with), static_cast<double>(counts[i]));
  }
}

}  // namespace

std::string to_prometheus_text(const std::vector<plugin_metrics>& plugins) {
  std::map<std::string, plugin_metrics> by_name;
  for (const plugin_metrics& each : plugins)
    if (const auto [at, fresh] = by_name.emplace(each.plugin, each); !fresh) at->second += each;

  const auto counter = MetricType::Counter, gauge = MetricType::Gauge;
  family calls("bulkhead_calls_total", "Calls that have ended, by outcome.", counter);
  family latency("bulkhead_call_duration_seconds", "Time from a call to its outcome, waiting included.",
                 MetricType::Histogram);
  family in_flight("bulkhead_calls_in_flight", "Calls without an outcome yet, waiting ones included.", gauge);
  family arguments("bulkhead_call_argument_bytes_total", "Packed arguments of calls.", counter);
  family results("bulkhead_call_result_bytes_total", "Packed results of calls.", counter);
  family waiting("bulkhead_calls_waiting", "Calls that wait for a worker.", gauge);
  family up("bulkhead_plugin_up", "1 while calls are taken: running or half open.", gauge);
  family instances("bulkhead_plugin_instances", "Workers that should take calls.", gauge);
  family workers("bulkhead_workers", "Worker processes, by what they are at.", gauge);
  family resident("bulkhead_workers_resident_bytes", "Resident memory of the worker processes.", gauge);
  family started("bulkhead_workers_started_total", "Worker processes started.", counter);
  family restarts("bulkhead_worker_restarts_total", "Restarts after failures.", counter);
  family exits("bulkhead_worker_exits_total", "Ends of worker processes, by reason.", counter);

  for (const auto& [name, plugin] : by_name) {
    const labels of{{"plugin", name}};
    for (const method_metrics& each : plugin.methods) {
      const labels method{{"plugin", name}, {"method", each.method}};
      each_kind(calls, method, "outcome", each.calls, [](auto i) { return to_string(static_cast<outcome>(i)); });
      fill(latency.add(method), each.latency);
      in_flight.value(method, static_cast<double>(each.in_flight));
      arguments.value(method, static_cast<double>(each.argument_bytes));
      results.value(method, static_cast<double>(each.result_bytes));
    }
    using state = enum plugin_status::state;
    waiting.value(of, static_cast<double>(plugin.status.waiting));
    up.value(of, plugin.status.state == state::running || plugin.status.state == state::half_open ? 1 : 0);
    instances.value(of, static_cast<double>(plugin.status.instances));
    const std::array states{plugin.starting, plugin.idle, plugin.busy, plugin.draining};
    constexpr std::array names{"starting", "idle", "busy", "draining"};
    each_kind(workers, of, "state", states, [&](auto i) { return names[i]; });
    resident.value(of, static_cast<double>(plugin.resident_bytes));
    started.value(of, static_cast<double>(plugin.started));
    restarts.value(of, static_cast<double>(plugin.restarts));
    each_kind(exits, of, "reason", plugin.exits, [](auto i) { return to_string(static_cast<exit_reason>(i)); });
  }
  std::vector<prometheus::MetricFamily> families;
  for (family* each : {&calls, &latency, &in_flight, &arguments, &results, &waiting, &up, &instances, &workers,
                       &resident, &started, &restarts, &exits})
    if (!each->made.metric.empty()) families.push_back(std::move(each->made));
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace bulkhead
