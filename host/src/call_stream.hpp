// The host's end of a call's stream, from open() to the end of the call, whichever workers the call is given to before
// its first item has moved. The call itself goes its usual way; here is what the two have in common: the reply, the
// deadline, and the request to stop.
#pragma once

#include "host_core.hpp"
#include "instance.hpp"
#include <bulkhead/ipc/stream.hpp>

namespace bulkhead {

class BULKHEAD_PRIVATE call_stream final : public ipc::stream, public std::enable_shared_from_this<call_stream> {
 public:
  // `help`: who waits may have to do the reactor's work.
  call_stream(std::shared_ptr<host_core> core, bool help, std::size_t window, ipc::time_point deadline);
  // Cancels when the application's own token says so.
  void heed(std::stop_token stop);
  std::stop_token token() const { return stop_.get_token(); }

  // How the call ends: so, unless the stream has told of another end by now. From here on it tells of none.
  outcome settle(outcome how);
  // The call has ended, and how is settled.
  void finish(reply&& result);
  void cancel();
  // Blocks until the call is over, taking and dropping what still comes.
  reply wait_finished();
  bool finishing() const { return finishing_; }
  // Of a call that is over.
  reply final_reply();

  // Ends a stream with the call.
  class handler final : public reply_handler {
   public:
    explicit handler(std::shared_ptr<call_stream> stream) : stream_(std::move(stream)) {}
    void complete(reply&& result) override { stream_->finish(std::move(result)); }

   private:
    std::shared_ptr<call_stream> stream_;
  };

 private:
  void wait(lock& held, std::uint64_t seen) override;
  void expire() override;
  bool end_early(outcome how, std::string why);

  // What a stop brings about may let go of the stream on the same thread, or on one that does not wait for it.
  struct canceller {
    std::weak_ptr<call_stream> stream;
    void operator()() const {
      if (const auto alive = stream.lock()) alive->cancel();
    }
  };

  const std::shared_ptr<host_core> core_;
  const bool help_;
  std::atomic<bool> finishing_{false};
  std::stop_source stop_;
  std::optional<reply> reply_;  // with the stream's lock
  bool settled_ = false;        // the same
  std::optional<std::stop_callback<canceller>> on_stop_;
};

}  // namespace bulkhead
