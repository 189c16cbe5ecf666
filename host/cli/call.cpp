// bulkhead call PLUGIN METHOD [ARGS...]: one call in a fresh worker.
#include "commands.hpp"
#include "values.hpp"

#include <csignal>
#include <fmt/format.h>
#include <fstream>
#include <thread>
#include <unistd.h>

namespace bulkhead::cli {
namespace {

using json = nlohmann::ordered_json;

struct arguments {
  std::string plugin, method, in, out, memory;
  std::vector<std::string> values, environment;
  double deadline = 30, timeout = 10;
  bool json = false, log = false;
};

const method_info& find_method(const plugin_info& info, const std::string& name) {
  std::string known;
  for (const method_info& method : info.methods) {
    if (method.name == name) return method;
    known += "\n  " + method.name + method.signature;
  }
  throw usage_error("plugin " + info.id + " has no method '" + name + "'. It has:" + known);
}

packed_arguments pack(const method_info& method, const arguments& given) {
  const auto parameters = parse_signature(method.signature);
  const std::size_t count = given.values.size() + (given.in.empty() ? 0 : 1);
  std::size_t required = 0;
  for (std::size_t i = 0; i < parameters.size(); ++i)
    if (!parameters[i].optional) required = i + 1;
  if (count < required || count > parameters.size())
    throw usage_error(fmt::format("{}{}: got {} argument{}\n{}", method.name, method.signature, count, count == 1 ? "" : "s", method.doc));
  packed_arguments out;
  ipc::packer(out.params).pack_array(static_cast<std::uint32_t>(count));
  std::size_t at = 0;
  auto one = [&](auto&& action) {
    try {
      action(parameters[at]);
    } catch (const std::runtime_error& error) {
      throw usage_error(fmt::format("argument {}{} of {}{}: {}", at + 1, parameters[at].name.empty() ? "" : " (" + parameters[at].name + ")",
                                    method.name, method.signature, error.what()));
    }
    ++at;
  };
  if (!given.in.empty()) one([&](const parameter&) { pack_bytes(out, read_file(given.in)); });
  for (const std::string& value : given.values) one([&](const parameter& wanted) { pack_text(out, wanted, value); });
  return out;
}

std::size_t parse_size(const std::string& text) {
  std::size_t used = 0;
  const auto number = std::stoull(text, &used);
  const std::string unit = text.substr(used);
  if (unit.empty()) return number;
  const std::size_t shift = unit == "K" ? 10 : unit == "M" ? 20 : unit == "G" ? 30 : 0;
  if (shift == 0) throw usage_error("--memory takes a number of bytes, or one with K, M or G");
  return number << shift;
}

void write_out(const std::string& path, const std::string& data) {
  if (path == "-") {
    std::fwrite(data.data(), 1, data.size(), stdout);
    return;
  }
  std::ofstream file(path, std::ios::binary);
  file << data;
  if (!file.flush()) throw std::runtime_error("could not write " + path);
}

json report_json(const crash_report& report) {
  return {{"reason", to_string(report.reason)}, {"signal", report.signal ? signal_name(report.signal) : ""},
          {"exit_code", report.exit_code},      {"phase", to_string(report.phase)},
          {"method", report.method},            {"message", report.message},
          {"log_tail", report.log_tail},        {"summary", report.summary()}};
}

// SIGINT asks the call to stop; a second one ends the program as usual.
class interrupt_stop {
 public:
  interrupt_stop() {
    ::sigemptyset(&set_);
    ::sigaddset(&set_, SIGINT);
    ::pthread_sigmask(SIG_BLOCK, &set_, nullptr);
    waiter_ = std::jthread([this](const std::stop_token& done) {
      while (!done.stop_requested()) {
        const timespec limit{0, 100'000'000};
        if (::sigtimedwait(&set_, nullptr, &limit) != SIGINT) continue;
        stop.request_stop();
        ::pthread_sigmask(SIG_UNBLOCK, &set_, nullptr);
        std::signal(SIGINT, SIG_DFL);
        return;
      }
    });
  }
  std::stop_source stop;

 private:
  sigset_t set_{};
  std::jthread waiter_;
};

int run(const arguments& given) {
  interrupt_stop interrupt;
  const bool log_all = given.log;
  host host({.on_log = [log_all](const log_record& record) {
    if (log_all || record.level >= log_level::warning) fmt::print(stderr, "[{}] {}\n", record.plugin, record.text);
  }});
  const auto seconds = [](double value) { return std::chrono::nanoseconds(static_cast<std::int64_t>(value * 1e9)); };
  load_options options{.start_timeout = seconds(given.timeout), .environment = given.environment};
  if (!given.memory.empty()) options.memory_limit = parse_size(given.memory);
  const plugin loaded = host.load(find_plugin(given.plugin), options);
  const plugin_info info = loaded.describe();
  packed_arguments packed = pack(find_method(info, given.method), given);

  call_options with{.deadline = seconds(given.deadline), .stop = interrupt.stop.get_token()};
  const bool show = ::isatty(STDERR_FILENO) && !given.json;
  if (show) with.on_progress = [](const msgpack::object& value) { fmt::print(stderr, "progress: {}\n", to_json(value, false).dump()); };
  const auto begin = std::chrono::steady_clock::now();
  const reply result = loaded.call_packed(given.method, std::move(packed), with);
  const double ms = std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();

  json answer;
  answer["outcome"] = to_string(result.outcome());
  if (result) {
    const msgpack::object_handle handle = ipc::unpack(result.raw());
    const msgpack::object& value = handle.get();
    const bool raw = value.type == msgpack::type::BIN || value.type == msgpack::type::STR;
    if (!given.out.empty()) {
      if (!raw) throw usage_error("--out: the result is no bin or str; leave --out away to see it as JSON");
      write_out(given.out, value.type == msgpack::type::BIN ? std::string(value.via.bin.ptr, value.via.bin.size)
                                                            : std::string(value.via.str.ptr, value.via.str.size));
      answer["written"] = given.out;
    } else {
      answer["result"] = to_json(value, given.json);
    }
  } else {
    answer["error"] = {{"message", result.message()}};
    if (!result.data().empty()) answer["error"]["data"] = to_json(ipc::unpack(result.data()).get(), true);
    if (result.report()) answer["report"] = report_json(*result.report());
  }
  answer["time_ms"] = ms;
  if (given.json) {
    fmt::print("{}\n", answer.dump(2));
  } else if (result) {
    if (given.out.empty()) fmt::print("{}\n", answer["result"].is_string() ? answer["result"].get<std::string>() : answer["result"].dump(2));
  } else {
    fmt::print(stderr, "bulkhead: {}: {}\n", to_string(result.outcome()), result.message());
    if (result.report() && !result.report()->log_tail.empty()) fmt::print(stderr, "its last lines:\n{}", result.report()->log_tail);
  }
  return exit_status(result.outcome());
}

}  // namespace

void add_call(CLI::App& app, command& chosen) {
  auto given = std::make_shared<arguments>();
  CLI::App* sub = app.add_subcommand("call", "Calls a method in a fresh worker");
  sub->add_option("PLUGIN", given->plugin)->required();
  sub->add_option("METHOD", given->method)->required();
  sub->add_option("ARGS", given->values, "JSON each; @FILE for bytes and handles; bare words for text");
  sub->add_option("--in", given->in, "FILE whose bytes are the first argument; - for standard input");
  sub->add_option("--out", given->out, "FILE for a binary or text result; - for standard output");
  sub->add_option("--deadline", given->deadline, "Seconds for the call")->check(CLI::PositiveNumber)->capture_default_str();
  sub->add_option("--timeout", given->timeout, "Seconds for the worker's start")->check(CLI::PositiveNumber)->capture_default_str();
  sub->add_option("--memory", given->memory, "Limit of the worker's address space, as 256M (default 1G)");
  sub->add_option("--env", given->environment, "NAME=VALUE for the worker; repeatable")->allow_extra_args(false);
  sub->add_flag("--log", given->log, "Show all of the worker's log, not only warnings and errors");
  sub->add_flag("--json", given->json, "One JSON object with outcome, result or error, report, time");
  sub->callback([given, &chosen] { chosen = [given] { return run(*given); }; });
}

}  // namespace bulkhead::cli
