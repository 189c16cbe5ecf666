// Answers given later, from any thread. Whoever is last to hold an open answer, the method that runs or its responder,
// ends the call; so that each is answered once, whatever order they end in and whatever is thrown.
#pragma once

#include <bulkhead/sdk/context.hpp>

#include <atomic>
#include <memory>

namespace bulkhead {

// A call's one answer: what a method and its responder share. Any thread.
class open_answer {
 public:
  // Of the call that `cx` is about.
  explicit open_answer(context cx) : context_(cx) {}
  open_answer(const open_answer&) = delete;
  open_answer& operator=(const open_answer&) = delete;
  ~open_answer() { fail("the plugin dropped the call without answering it"); }

  // True once: for the one who may answer.
  bool claim() noexcept { return !claimed_.exchange(true); }
  // Answers with one packed value.
  void reply(const result_buffer& packed) noexcept {
    if (claim()) context_.raw()->reply(context_.raw(), context_.call(), packed.data(), packed.size());
  }
  // Fails the call with a text. Any thread.
  void fail(std::string_view text) noexcept {
    if (claim()) context_.raw()->fail(context_.raw(), context_.call(), text.data(), text.size(), nullptr, 0);
  }

 private:
  context context_;
  std::atomic<bool> claimed_{false};
};

// The promise of an answer. Movable. The first answer counts, others change nothing; a call whose responder is
// destroyed unanswered fails. An exception that leaves the method fails the call with its text, and the responder is spent.
template <class R>
class responder {
 public:
  // Made by the SDK.
  responder(context cx, std::shared_ptr<open_answer> answer) : context_(cx), answer_(std::move(answer)) {}
  // Movable; what was moved from answers nothing.
  responder(responder&&) noexcept = default;
  // A call that it had before is failed.
  responder& operator=(responder&&) noexcept = default;

  // The call's deadline, cancellation and so on, until it is answered.
  const context& cx() const { return context_; }

  // Answers with nothing.
  void reply() requires std::is_void_v<R> { pack(msgpack::type::nil_t{}); }
  // Answers with a value. The first answer counts. Any thread.
  template <class T>
  void reply(const T& value) requires std::is_convertible_v<const T&, R> || std::is_same_v<T, R> {
    pack(value);
  }
  // Fails the call with a text. Any thread.
  void fail(std::string_view text) noexcept {
    if (answer_) answer_->fail(text);
  }

 private:
  template <class T>
  void pack(const T& value) {
    if (!answer_) return;  // moved from
    result_buffer packed(context_.raw());
    pack_result(context_, packed, value);
    answer_->reply(packed);
  }

  context context_;
  std::shared_ptr<open_answer> answer_;
};

}  // namespace bulkhead
