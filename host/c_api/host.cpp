// bh_host: a host, what it tells the application, and how plugins are loaded.
#include "objects.hpp"
#include <bulkhead/metrics.hpp>
#include <bulkhead/prometheus.hpp>

#include <cstring>

namespace bulkhead::c_api {
namespace {

using json = nlohmann::ordered_json;

std::string lifecycle_json(const lifecycle_event& event) {
  return to_text({{"kind", to_string(event.kind)},
                  {"plugin", event.plugin},
                  {"pid", event.pid},
                  {"text", event.text},
                  {"delay_ms", std::chrono::duration_cast<std::chrono::milliseconds>(event.delay).count()},
                  {"serving", event.serving},
                  {"instances", event.instances},
                  {"report", report_json(event.report)}});
}

std::string violation_json(const violation& what) {
  return to_text({{"plugin", what.plugin},
                  {"pid", what.pid},
                  {"program", what.program},
                  {"method", what.method},
                  {"system_call", what.system_call},
                  {"arguments", what.arguments},
                  {"result", what.result},
                  {"grant", what.grant},
                  {"stack", what.stack}});
}

void set_callbacks(host_options& out, const bh_callbacks* callbacks) {
  if (!callbacks) return;
  if (callbacks->size < sizeof(std::size_t) || callbacks->size > 4096)
    throw misuse("callbacks.size is not sizeof(bh_callbacks)");
  bh_callbacks to{};
  std::memcpy(&to, callbacks, std::min(callbacks->size, sizeof to));
  if (to.on_log)
    out.on_log = [to](const log_record& record) {
      to.on_log(to.context, static_cast<bh_log_level>(record.level), record.plugin.c_str(), record.pid,
                record.text.c_str());
    };
  if (to.on_lifecycle)
    out.on_lifecycle = [to](const lifecycle_event& event) {
      to.on_lifecycle(to.context, to_string(event.kind).data(), event.plugin.c_str(), lifecycle_json(event).c_str());
    };
  if (to.on_violation)
    out.on_violation = [to](const violation& what) {
      to.on_violation(to.context, what.plugin.c_str(), violation_json(what).c_str());
    };
}

functions lent(const bh_function* from, std::size_t count) {
  functions out;
  if (count > 0) given(from, "functions");
  for (std::size_t i = 0; i < count; ++i) {
    const bh_function each = from[i];
    given(each.call, "functions.call");
    out.add_packed(std::string(given_text(each.name, "functions.name")),
                   [each](const msgpack::object& arguments, passed_handles& handles) {
                     const auto bytes = packed(arguments);
                     bh_answer answer{.in = &handles.in};
                     each.call(each.context, bytes.data(), bytes.size(), &answer);
                     if (answer.failed) throw std::runtime_error(answer.error);
                     if (answer.value.view().empty()) ipc::packer(answer.value).pack_nil();
                     handles.out = std::move(answer.out);
                     return std::move(answer.value);
                   });
  }
  return out;
}

bh_plugin* handle_to(plugin loaded) {
  std::string name = loaded.metrics().plugin;
  return new bh_plugin{std::move(loaded), std::move(name)};
}

}  // namespace
}  // namespace bulkhead::c_api

using namespace bulkhead::c_api;

bh_host* bh_host_new(const char* options, const bh_callbacks* callbacks, bh_error** error) {
  return guarded(error, static_cast<bh_host*>(nullptr), [&] {
    bulkhead::host_options with = read_host_options(options);
    set_callbacks(with, callbacks);
    return new bh_host{bulkhead::host(std::move(with))};
  });
}

void bh_host_shutdown(bh_host* host) {
  if (host) guarded([&] { host->host.shutdown(); });
}

void bh_host_free(bh_host* host) { delete host; }

char* bh_host_metrics(bh_host* host, bh_error** error) {
  return guarded(error, static_cast<char*>(nullptr),
                 [&] { return to_caller(to_prometheus_text(given(host, "host").host.metrics())); });
}

void bh_host_reset(bh_host* host) {
  if (host) guarded([&] { host->host.reset(); });
}

void bh_answer_value(bh_answer* answer, const void* value, size_t size) {
  if (!answer) return;
  try {
    const auto bytes = one_value(value, size, "the answer");
    answer->value.bytes().assign(bytes.begin(), bytes.end());
    answer->failed = false;
  } catch (const std::exception& e) {
    bh_answer_error(answer, e.what());
  }
}

int bh_answer_take_handle(bh_answer* answer, size_t index) {
  return answer && index < answer->in->size() ? (*answer->in)[index].release() : -1;
}

int bh_answer_add_handle(bh_answer* answer, int fd) {
  return guarded(nullptr, -1, [&] {
    std::vector<bulkhead::unique_fd>& out = given(answer, "answer").out;
    if (out.size() >= bulkhead::ipc::limits{}.handles) throw misuse("too many");
    out.push_back(bulkhead::detail::duplicate(fd));
    return static_cast<int>(out.size()) - 1;
  });
}

void bh_answer_error(bh_answer* answer, const char* message) {
  if (!answer) return;
  answer->failed = true;
  try {
    answer->error = message ? message : "failed";
  } catch (const std::bad_alloc&) {  // then it has no text
  }
}

bh_plugin* bh_host_load(bh_host* host, const char* file, const char* options, const bh_function* functions,
                        size_t count, bh_error** error) {
  return guarded(error, static_cast<bh_plugin*>(nullptr), [&] {
    bulkhead::load_options with = read_load_options(options);
    with.functions = lent(functions, count);
    return handle_to(given(host, "host").host.load(given_text(file, "file"), std::move(with)));
  });
}

bh_plugin* bh_host_launch(bh_host* host, const char* const* argv, const char* options, const bh_function* functions,
                          size_t count, bh_error** error) {
  return guarded(error, static_cast<bh_plugin*>(nullptr), [&] {
    std::vector<std::string> words;
    for (const char* const* word = &given(argv, "argv"); *word; ++word) words.emplace_back(*word);
    if (words.empty()) throw misuse("argv is empty");
    bulkhead::load_options with = read_load_options(options);
    with.functions = lent(functions, count);
    return handle_to(given(host, "host").host.launch(words, std::move(with)));
  });
}
