// The objects behind the handles of bulkhead/host.h, and the border that no exception crosses.
#pragma once

#include <bulkhead/host.h>
#include <bulkhead/host.hpp>

#include <nlohmann/json.hpp>

#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>

namespace bulkhead::c_api {

// Where a call's progress goes while it lasts: what comes later would find a context that may be gone.
class progress {
 public:
  explicit progress(const bh_call_options& to) : tell_(to.on_progress), context_(to.context) {}
  void show(const msgpack::object& value);
  // Waits for a callback that runs.
  void end();

 private:
  std::mutex mutex_;
  void (*tell_)(void* context, const void* value, std::size_t size);
  void* const context_;
};

}  // namespace bulkhead::c_api

struct bh_error {
  bh_outcome outcome;
  std::string message;
  std::vector<std::uint8_t> data{};
  std::string report_json{};
};

struct bh_host {
  bulkhead::host host;
};

struct bh_plugin {
  bulkhead::plugin plugin;
  std::string name;
};

struct bh_cancel {
  std::stop_source source;
};

struct bh_reply {
  bulkhead::reply reply;
};

struct bh_blob {
  bulkhead::shared_blob blob;
};

struct bh_stream {
  std::shared_ptr<bulkhead::c_api::progress> progress;
  bulkhead::streaming_call call;
};

struct bh_answer {
  std::vector<bulkhead::unique_fd>* in = nullptr;  // handles
  std::vector<bulkhead::unique_fd> out{};
  bulkhead::ipc::buffer value{};
  std::string error{};
  bool failed = false;
};

namespace bulkhead::c_api {

// The caller's own mistake.
class misuse : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

// Puts the exception that is being handled into *error.
void put_current_exception(bh_error** error) noexcept;
// An error of a call that failed; its caller's own. Null when there is no memory for it.
bh_error* error_of(const reply& failed) noexcept;

// The result of `body`; or `failed`, with the exception in *error.
template <class T, class F>
T guarded(bh_error** error, T failed, F body) noexcept {
  try {
    return body();
  } catch (...) {
    put_current_exception(error);
    return failed;
  }
}

// The same for what has nothing to give back and nobody to tell.
template <class F>
void guarded(F body) noexcept {
  guarded(nullptr, 0, [&] { return body(), 0; });
}

// Dereferences what the caller must not leave out.
template <class T>
T& given(T* what, const char* name) {
  if (!what) throw misuse(std::string(name) + " is NULL");
  return *what;
}
std::string_view given_text(const char* text, const char* name);

// Memory that is the caller's, for bh_free().
char* to_caller(std::string_view text);
void* to_caller(ipc::byte_span bytes, std::size_t* size);

// One whole MessagePack value, else misuse; `array`: it must be one. `name` is for the text.
ipc::byte_span one_value(const void* data, std::size_t size, const char* name, bool array = false);
// The value's bytes.
std::vector<std::uint8_t> packed(const msgpack::object& value);

nlohmann::ordered_json report_json(const std::shared_ptr<const crash_report>& report);
// Throws misuse for what is no JSON, or is nested too deep for a channel.
nlohmann::ordered_json parse_json(std::string_view text, const char* name);
std::string to_text(const nlohmann::ordered_json& value);

// From TOML; null is the defaults. Throws misuse with all that is wrong in there.
host_options read_host_options(const char* toml);
load_options read_load_options(const char* toml);

// What the caller's options say of a call, and where its progress goes: null when it goes nowhere. And its arguments, with
// the descriptors.
std::pair<call_options, std::shared_ptr<progress>> read_call_options(const bh_call_options* options);
packed_arguments read_arguments(const plugin& target, const void* arguments, std::size_t size,
                                const bh_call_options* options);

}  // namespace bulkhead::c_api
