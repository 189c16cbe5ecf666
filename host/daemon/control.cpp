// What clients can ask of the daemon itself: methods "bulkhead.…", see docs/daemon.md. All but the status are for the
// daemon's own user and root.
#include "daemon.hpp"

#include <fmt/format.h>

#include <numeric>

namespace bulkhead::daemon {
namespace {

using std::chrono::milliseconds;

constexpr std::size_t most_log_lines = 2000;

reply success(ipc::buffer result) {
  ipc::completion done;
  done.frame = result.take();
  done.result_size = done.frame.size();
  return reply(std::move(done));
}

reply nothing() {
  ipc::buffer nil;
  ipc::packer(nil).pack_nil();
  return success(std::move(nil));
}

reply failure(outcome code, std::string why) { return reply(ipc::completion::failed(code, std::move(why))); }

void pack_line(ipc::packer& into, const log_line& line) {
  const auto made = to_json(line);
  into.pack_map(static_cast<std::uint32_t>(made.size()));
  for (const auto& [key, value] : made.items()) {
    into.pack(key);
    if (value.is_string()) into.pack(value.get<std::string>());
    else into.pack(value.get<std::int64_t>());
  }
}

void pack_row(ipc::packer& into, const plugin_table::row& row) {
  const plugin_metrics& numbers = row.metrics;
  std::uint64_t calls = 0, failed = 0, in_flight = 0;
  std::vector<std::uint64_t> latency(latency_histogram::bounds.size() + 1);
  for (const method_metrics& each : numbers.methods) {
    calls += each.ended();
    failed += each.ended() - each.ended(outcome::ok);
    in_flight += each.in_flight;
    for (std::size_t i = 0; i < latency.size(); ++i) latency[i] += each.latency.counts[i];
  }
  into.pack_map(15);
  into.pack("name").pack(row.name).pack("group").pack(row.group).pack("state").pack(row.state).pack("reason").pack(
      row.reason);
  into.pack("file").pack(row.file).pack("serving").pack(numbers.status.serving);
  into.pack("instances").pack(numbers.status.instances).pack("waiting").pack(numbers.status.waiting);
  into.pack("in_flight").pack(in_flight).pack("calls").pack(calls).pack("failed").pack(failed);
  into.pack("latency").pack(latency).pack("restarts").pack(numbers.restarts);
  into.pack("resident_bytes").pack(numbers.resident_bytes);
  into.pack("workers").pack_array(static_cast<std::uint32_t>(row.workers.size()));
  const auto now = std::chrono::steady_clock::now();
  for (const worker_info& each : row.workers) {
    into.pack_map(6).pack("pid").pack(each.pid).pack("phase").pack(std::string(to_string(each.phase)));
    into.pack("uptime_ms").pack(std::chrono::duration_cast<milliseconds>(now - each.started).count());
    into.pack("calls").pack(each.outstanding).pack("resident_bytes").pack(each.resident_bytes);
    into.pack("denials").pack(each.violations);
  }
}

// One who follows the log: told of each new line as progress of its call, until that is cancelled.
class following : public std::enable_shared_from_this<following> {
 public:
  following(log_book& book, std::function<void(const msgpack::object&)> tell, std::unique_ptr<reply_handler> handler)
      : book_(book), tell_(std::move(tell)), handler_(std::move(handler)) {}
  void start(std::size_t count, const std::string& plugin, const std::stop_token& stop) {
    const auto tell = [self = shared_from_this()](const log_line& line) { self->show(line); };
    book_.last(count, plugin, tell, &id_);
    // From here on it may end at any time, this one included.
    stop_.emplace(stop, [weak = weak_from_this()] {
      if (const auto self = weak.lock()) self->end();
    });
  }

 private:
  void show(const log_line& line) {
    ipc::buffer packed;
    ipc::packer packer(packed);
    pack_line(packer, line);
    const msgpack::object_handle value = ipc::unpack(packed.view());
    tell_(value.get());
  }
  void end() {
    book_.unfollow(id_);
    handler_->complete(failure(outcome::cancelled, "cancelled by the caller"));
  }

  log_book& book_;
  const std::function<void(const msgpack::object&)> tell_;
  const std::unique_ptr<reply_handler> handler_;
  std::uint64_t id_ = 0;
  std::optional<std::stop_callback<std::function<void()>>> stop_;
};

}  // namespace

ipc::buffer server::status() const {
  ipc::buffer out;
  ipc::packer packer(out);
  const auto rows = plugins_.rows();
  packer.pack_map(5).pack("pid").pack(::getpid()).pack("version").pack(BULKHEAD_VERSION);
  packer.pack("uptime_ms")
      .pack(std::chrono::duration_cast<milliseconds>(std::chrono::steady_clock::now() - started_).count());
  packer.pack("clients").pack(alive_->load());
  packer.pack("plugins").pack_array(static_cast<std::uint32_t>(rows.size()));
  for (const plugin_table::row& each : rows) pack_row(packer, each);
  return out;
}

void server::send_logs(const std::vector<std::string>& words, std::size_t count, bool follow,
                       const call_options& options, std::unique_ptr<reply_handler> handler) {
  const std::string plugin = words.empty() ? "" : words[0];
  if (follow)
    return std::make_shared<following>(log_, options.on_progress, std::move(handler))
        ->start(count, plugin, options.stop);
  const auto lines = log_.last(count, plugin);
  ipc::buffer out;
  ipc::packer packer(out);
  packer.pack_array(static_cast<std::uint32_t>(lines.size()));
  for (const log_line& each : lines) pack_line(packer, each);
  handler->complete(success(std::move(out)));
}

void server::control(const connection& from, std::string_view method, const packed_arguments& arguments,
                     const call_options& options, std::unique_ptr<reply_handler> handler) {
  std::vector<std::string> words;
  std::size_t count = 100;
  bool follow = false;
  const msgpack::object_handle packed = ipc::unpack(arguments.params.view());
  for (const msgpack::object& each : std::span(packed->via.array.ptr, packed->via.array.size)) {
    if (each.type == msgpack::type::STR) words.emplace_back(each.via.str.ptr, each.via.str.size);
    else if (each.type == msgpack::type::POSITIVE_INTEGER) count = std::min<std::size_t>(each.via.u64, most_log_lines);
    else if (each.type == msgpack::type::BOOLEAN) follow = each.via.boolean;
    else if (each.type != msgpack::type::NIL)
      return handler->complete(failure(outcome::rejected, "a parameter of a type that fits nothing here"));
  }
  if (method == "status") return handler->complete(success(status()));
  if (!from.trusted())
    return handler->complete(failure(outcome::rejected, "this is for the daemon's own user and root"));
  if (method == "logs") return send_logs(words, count, follow, options, std::move(handler));
  if (method == "stop" && words.empty()) {
    handler->complete(nothing());
    std::lock_guard held(mutex_);
    stopping_ = true;
    return changed_.notify_all();
  }
  if ((method != "restart" && method != "stop") || words.size() != 1)
    return handler->complete(
        failure(outcome::rejected,
                "the daemon has status(), logs(plugin?, count?, follow?), restart(plugin) and stop(plugin?)"));
  post([this, restart = method == "restart", name = words[0],
        answer = std::shared_ptr<reply_handler>(std::move(handler))] {
    try {
      if (restart) plugins_.restart(name);
      else plugins_.stop(name, settings_.drain);
      answer->complete(nothing());
    } catch (const call_error& e) {
      answer->complete(failure(e.outcome(), e.message()));
    } catch (const std::exception& e) {
      answer->complete(failure(outcome::unavailable, e.what()));
    }
  });
}

}  // namespace bulkhead::daemon
