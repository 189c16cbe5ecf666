// What a host may be given, and a plugin: the keys of [defaults] and of each [plugins.NAME]. See config.hpp. Read for the C
// API as well.
#include "config.hpp"
#include "files.hpp"
#include "reader.hpp"
#include "sandbox/policy_toml.hpp"

namespace bulkhead::daemon {
namespace {

void read_policy(table_reader& from, load_options& out, const std::filesystem::path& base) {
  const toml::node* node = from.node("policy");
  if (node) {
    try {
      if (const toml::table* table = node->as_table()) {
        out.policy = policy_from_table(*table);
      } else if (const auto file = node->value_exact<std::string>()) {
        const auto text = cli::read_file((base / *file).string(), std::size_t{1} << 20);
        out.policy = policy::from_toml(std::string_view(reinterpret_cast<const char*>(text.data()), text.size()));
      } else {
        from.wrong(*node, from.full("policy") + " is neither a table of grants nor the path of a file with them");
      }
    } catch (const std::exception& e) {
      from.wrong(*node, from.full("policy") + ": " + e.what());
    }
  }
  from.list("grants", "texts", [&](const toml::node& each) {
    const auto grant = each.value_exact<std::string>();
    if (!grant) return from.wrong(each, from.full("grants") + ": allowed are texts such as \"read:/usr/share/fonts\"");
    try {
      if (!out.policy) out.policy.emplace();
      out.policy->add(*grant);
    } catch (const std::invalid_argument& e) {
      from.wrong(each, from.full("grants") + ": " + std::string(e.what()).substr(8));  // without its "policy: "
    }
  });
}

void read_supervision(table_reader& from, supervision_options& out) {
  from.choice("restart", out.restart,
              {{"permanent", restart_kind::permanent},
               {"transient", restart_kind::transient},
               {"temporary", restart_kind::temporary}});
  read_intensity(from, out.intensity);
  from.table("backoff", [&](table_reader& in) {
    in.duration("first", out.backoff.first, true);
    in.duration("longest", out.backoff.longest, true);
    in.real("jitter", out.backoff.jitter, 0, 1);
    in.duration("healthy_after", out.backoff.healthy_after);
  });
  from.table("drain", [&](table_reader& in) {
    in.duration("calls", out.drain.calls, true);
    in.duration("shutdown", out.drain.shutdown, true);
    in.duration("undead_after", out.drain.undead_after);
  });
  from.table("recycle", [&](table_reader& in) {
    in.number("calls", out.recycle.calls, 0, std::numeric_limits<std::int64_t>::max());
    in.duration("age", out.recycle.age, true);
    in.real("memory", out.recycle.memory, 0, 1);
    in.real("jitter", out.recycle.jitter, 0, 1);
  });
  from.table("heartbeat", [&](table_reader& in) {
    in.duration("interval", out.heartbeat.interval, true);
    in.duration("silence", out.heartbeat.silence);
  });
  from.number("spares", out.spares, 0, 1024);
  from.duration("probe_after", out.probe_after, true);
}

}  // namespace

void read_intensity(table_reader& from, restart_intensity& out) {
  from.table("intensity", [&](table_reader& in) {
    in.number("restarts", out.restarts, 0);
    in.duration("period", out.period);
  });
}

void read_host_options(table_reader& from, host_options& out, const std::filesystem::path& base) {
  std::string path;
  if (from.text("worker", path)) out.worker_path = base / path;
  if (from.text("crash_dir", path)) out.crash_dir = base / path;
  if (from.text("cgroup", path)) out.cgroup = base / path;
  from.number("crash_files", out.crash_files, 1);
  from.number("worker_user", out.worker_user, 1);
  from.table("spawns", [&](table_reader& in) {
    in.number("at_once", out.spawns.at_once, 1, 1024);
    in.number("restarts", out.spawns.restarts.restarts, 0);
    in.duration("period", out.spawns.restarts.period);
  });
}

void read_load_options(table_reader& from, load_options& out, const std::filesystem::path& base) {
  from.number("instances", out.instances, 1, 1024);
  from.size("memory_limit", out.memory_limit);
  from.duration("deadline", out.deadline);
  from.duration("start_timeout", out.start_timeout);
  from.number("concurrency", out.concurrency, 1, 64);
  from.number("queue_limit", out.queue_limit, 0);
  from.number("poison_limit", out.poison_limit, 0);
  from.size("keep_requests", out.keep_requests);
  from.choice("dispatch", out.dispatch.kind,
              {{"least_loaded", dispatch::kind::least_loaded},
               {"round_robin", dispatch::kind::round_robin},
               {"sticky", dispatch::kind::sticky}});
  if (from.text("sha256", out.sha256) &&
      (out.sha256.size() != 64 || out.sha256.find_first_not_of("0123456789abcdef") != std::string::npos))
    from.wrong(*from.node("sha256"), from.full("sha256") + ": allowed are 64 hexadecimal digits, lower case");
  from.list("environment", "texts \"NAME=value\"", [&](const toml::node& each) {
    const auto variable = each.value_exact<std::string>();
    if (!variable || variable->find('=') == std::string::npos || variable->starts_with('='))
      from.wrong(each, from.full("environment") + ": allowed are texts \"NAME=value\"");
    else out.environment.push_back(*variable);
  });
  from.table("blobs", [&](table_reader& in) {
    if (in.size("threshold", out.blobs.threshold) && out.blobs.threshold < 1024)
      in.wrong(*in.node("threshold"), in.full("threshold") + ": allowed is \"1KiB\" or more");
    if (in.size("memory", out.blobs.memory) && out.blobs.memory > std::size_t{4} << 30)
      in.wrong(*in.node("memory"), in.full("memory") + ": allowed is \"4GiB\" or less");
    in.duration("idle", out.blobs.idle);
  });
  from.table("lanes", [&](table_reader& in) {
    in.flag("enabled", out.lanes.enabled);
    if (in.size("ring", out.lanes.ring) &&
        (!std::has_single_bit(out.lanes.ring) || out.lanes.ring < 4096 || out.lanes.ring > std::size_t{16} << 20))
      in.wrong(*in.node("ring"), in.full("ring") + ": allowed is a power of two from \"4KiB\" to \"16MiB\"");
    in.duration("spin", out.lanes.spin, true);
    in.real("cpu_budget", out.lanes.cpu_budget, 0, 1);
  });
  from.table("state", [&](table_reader& in) {
    in.flag("keep", out.state.keep);
    in.duration("every", out.state.every, true);
  });
  read_policy(from, out, base);
  from.table("supervision", [&](table_reader& in) { read_supervision(in, out.supervision); });
}

}  // namespace bulkhead::daemon
