// Calls that wait for a worker, and what carries an asynchronous one from there to its end. See plugin_pool.hpp.
#pragma once

#include "plugin_pool.hpp"

namespace bulkhead {

// A synchronous caller that waits for a worker; on its stack.
struct plugin_pool::sync_waiter {
  std::condition_variable woken;
  lease given;
  std::optional<ipc::completion> failed;
  bool done() const { return given || failed; }
};

// An asynchronous call on its way, be it in the queue or in a worker.
class plugin_pool::pooled_call final : public reply_handler {
 public:
  pooled_call(std::shared_ptr<plugin_pool> pool, std::shared_ptr<call_request> request,
              std::unique_ptr<reply_handler> handler)
      : pool_(std::move(pool)), request_(std::move(request)), handler_(std::move(handler)) {}

  void complete(reply&& result) override {
    const bool goes = pool_->goes_on(*request_, result, *worker, so_far_);
    if (const lease had = std::exchange(worker, nullptr)) pool_->release(had);
    if (!goes) return finish(std::move(result));
    const auto pool = pool_;
    pool->submit(std::make_unique<pooled_call>(std::move(*this)), true);
  }
  void finish(reply&& result) {
    count_end(*request_, result);
    handler_->complete(std::move(result));
  }
  const std::shared_ptr<call_request>& request() const { return request_; }

  lease worker;

 private:
  std::shared_ptr<plugin_pool> pool_;
  std::shared_ptr<call_request> request_;
  std::unique_ptr<reply_handler> handler_;
  attempts so_far_;
};

// What a call that waits adds to the bytes that do.
class plugin_pool::queued_share {
 public:
  queued_share(std::atomic<std::size_t>& total, const call_request& of) : total_(&total), bytes_(bytes_of(of)) {
    total += bytes_;
  }
  queued_share(queued_share&& other) noexcept : total_(std::exchange(other.total_, nullptr)), bytes_(other.bytes_) {}
  ~queued_share() {
    if (total_) *total_ -= bytes_;
  }
  // Those in blobs have a limit of their own.
  static std::size_t bytes_of(const call_request& request) { return request.arguments.params.view().size(); }

 private:
  std::atomic<std::size_t>* total_;
  std::size_t bytes_;
};

struct plugin_pool::waiting {
  struct stopper {
    std::weak_ptr<plugin_pool> pool;
    std::uint64_t ticket;
    void operator()() const {
      if (const auto alive = pool.lock()) alive->abandon_waiting(ticket);
    }
  };
  const call_request* request;
  std::uint64_t ticket;
  sync_waiter* sync;
  std::unique_ptr<pooled_call> async;
  std::unique_ptr<std::stop_callback<stopper>> stop;
  queued_share share;
};

}  // namespace bulkhead
