// Streams of a call: a parameter `reader<T>` takes arguments one by one while the method runs, a parameter `writer<T>`
// sends results one by one. The caller opens such a call as a stream. Whoever is ahead waits for the other, so neither
// side keeps more than a window of items (1 MiB, unless the caller says otherwise).
//
//   plugin.method("grep", [](reader<std::string> lines, writer<std::string> found, std::string word) {
//     while (auto line = lines.next())
//       if (line->find(word) != std::string::npos) found.send(*line);
//   });
//
// They belong to their call: used after the method has returned, they throw bulkhead::error.
#pragma once

#include <bulkhead/sdk/context.hpp>

#include <memory>
#include <optional>
#include <shared_mutex>

namespace bulkhead {

// What the reader and the writer of a call share; cut off when its method returns.
class stream_use {
 public:
  // Throws error when the call was not opened as a stream.
  stream_use(context cx, std::string method)
      : context_(cx),
        method_(std::move(method)),
        calls_(static_cast<const bulkhead_streams_t*>(cx.raw()->get_extension(cx.raw(), BULKHEAD_STREAMS))) {
    if (!calls_ || calls_->item_limit(cx.raw(), cx.call()) == 0)
      throw error(method_ + ": it streams, so the call has to be opened as a stream (plugin::open)");
  }
  // From here on use() throws. Waits for a thread of the plugin's that is using it right now.
  void cut_off() {
    std::lock_guard held(mutex_);
    over_ = true;
  }
  // The result of `action(functions, host, call)`. Throws error after cut_off(). Any thread, several at once.
  template <class F>
  auto use(F action) {
    std::shared_lock held(mutex_);
    if (over_) throw error(method_ + ": a stream was used after the method had returned");
    return action(*calls_, context_.raw(), context_.call());
  }
  // The method's name, for errors.
  const std::string& method() const { return method_; }

 private:
  const context context_;
  const std::string method_;
  const bulkhead_streams_t* const calls_;
  std::shared_mutex mutex_;
  bool over_ = false;
};

// The stream of a call's arguments. Movable; one thread at a time.
template <class T>
class reader {
 public:
  // Made by the SDK.
  explicit reader(std::shared_ptr<stream_use> use) : use_(std::move(use)) {}
  // Movable; what was moved from is ended.
  reader(reader&&) noexcept = default;
  // The same.
  reader& operator=(reader&&) noexcept = default;

  // The next item; nothing when there are no more. Blocks until the caller has sent one. Views in a T are valid until
  // the next call of next(). Throws cancelled_error when the call was cancelled or its deadline has passed, and
  // type_mismatch when the item is not a T.
  std::optional<T> next() {
    item_ = {};
    auto taken = std::make_unique<owned>();
    const bulkhead_status_t status = use_->use([&](const auto& calls, const auto* host, auto* call) {
      taken->host = host;
      return calls.receive(host, call, &taken->raw);
    });
    if (status != BULKHEAD_OK) throw cancelled_error();
    if (taken->raw.size == 0) return std::nullopt;
    ++count_;
    bytes_ = std::move(taken);
    item_ = typed::unpack({bytes_->raw.data, bytes_->raw.size},
                          [](msgpack::type::object_type, std::size_t, void*) { return true; });
    try {
      return typed::convert<T>(item_.get());
    } catch (const type_mismatch& mismatch) {
      throw type_mismatch(use_->method() + ": item " + std::to_string(count_) + ": " + mismatch.what());
    }
  }

 private:
  struct owned {
    const bulkhead_host_t* host = nullptr;
    bulkhead_answer_t raw{};
    ~owned() {
      if (host) host->release_answer(host, &raw);
    }
  };
  std::shared_ptr<stream_use> use_;
  std::unique_ptr<owned> bytes_;
  msgpack::object_handle item_;
  std::uint64_t count_ = 0;
};

// The stream of a call's results. Copyable; any thread, items of several threads in no particular order.
template <class T>
class writer {
 public:
  // Made by the SDK.
  explicit writer(std::shared_ptr<stream_use> use) : use_(std::move(use)) {}

  // Sends one item. Blocks while the caller is more than its window behind. Throws cancelled_error when the call was
  // cancelled or its deadline has passed, and error for an item that is larger than the window, or comes after end().
  void send(const T& value) {
    msgpack::sbuffer packed;
    typed::pack_value(packed, value);
    std::size_t limit = 0;
    const bulkhead_status_t status = use_->use([&](const auto& calls, const auto* host, auto* call) {
      limit = calls.item_limit(host, call);
      return calls.send(host, call, packed.data(), packed.size());
    });
    if (status == BULKHEAD_OK) return;
    if (status == BULKHEAD_CANCELLED) throw cancelled_error();
    if (packed.size() > limit)
      throw error(use_->method() + ": an item of " + std::to_string(packed.size()) +
                  " bytes is larger than the stream's window of " + std::to_string(limit));
    throw error(use_->method() + ": an item was sent after the end of its stream");
  }
  // Says that there are no more items, before the method returns.
  void end() {
    use_->use([](const auto& calls, const auto* host, auto* call) { calls.end(host, call); });
  }

 private:
  std::shared_ptr<stream_use> use_;
};

namespace typed {

template <class T>
struct is_reader : std::false_type {};
template <class T>
struct is_reader<reader<T>> : std::true_type {
  using item = T;
};
template <class T>
struct is_writer : std::false_type {};
template <class T>
struct is_writer<writer<T>> : std::true_type {
  using item = T;
};
template <class T>
inline constexpr bool is_stream = is_reader<T>::value || is_writer<T>::value;

// "(str) -> nil" with a stream added: "(str, stream<int>) -> nil", "(str) -> stream<int>".
template <class T>
void add_stream(std::string& signature) {
  if constexpr (is_reader<T>::value) {
    const auto close = signature.rfind(") -> ");
    const bool first = signature[close - 1] == '(';
    signature.insert(close, (first ? "stream<" : ", stream<") + name_of<typename is_reader<T>::item>() + ">");
  } else if constexpr (is_writer<T>::value) {
    const std::string stream = "stream<" + name_of<typename is_writer<T>::item>() + ">";
    constexpr std::string_view nothing = " -> nil";
    if (signature.ends_with(nothing)) signature.replace(signature.size() - 3, 3, stream);
    else signature += ", " + stream;
  }
}

}  // namespace typed
}  // namespace bulkhead
