// exec() and exec_file(): a child whose output is read into memory, up to a limit, until it has ended.
#include "process/launcher_core.hpp"

#include <boost/asio/bind_executor.hpp>
#include <boost/asio/buffer.hpp>
#include <boost/asio/write.hpp>

#include <array>

#include <poll.h>

namespace bulkhead {
namespace {

class category final : public boost::system::error_category {
  const char* name() const noexcept override { return "bulkhead process"; }
  std::string message(int value) const override {
    switch (static_cast<process_error>(value)) {
      case process_error::failed: return "the process failed";
      case process_error::timed_out: return "the process ran longer than its timeout and was killed";
      case process_error::output_limit: return "the process wrote more than max_output and was killed";
      case process_error::aborted: return "the process was killed because a stop was requested";
    }
    return "unknown";
  }
};

using done_handler = detail::completion<boost::system::error_code, exec_result>;

class collector : public std::enable_shared_from_this<collector> {
 public:
  collector(const boost::asio::any_io_executor& executor, exec_options options, done_handler done)
      : strand_(executor), options_(std::move(options)), done_(std::move(done)) {}

  // With pipes and events of this object's own.
  process_options prepare() {
    process_options out = options_.process;
    if (out.streams.empty()) out.streams.assign(3, stdio::pipe());
    for (std::size_t i = 0; i < 3; ++i)
      if (i >= out.streams.size() || out.streams[i].what != stdio::kind::pipe)
        throw std::invalid_argument("exec: process_options::streams must begin with three pipes, or be empty");
    out.streams[0] = options_.input.empty() ? stdio::null() : stdio::pipe();
    out.streams[1] = out.streams[2] = stdio::pipe();
    out.events.on_exit = [self = shared_from_this(), tell = out.events.on_exit](const exit_status& status) {
      boost::asio::post(self->strand_, [self, status] { self->on_exit(status); });
      if (tell) tell(status);
    };
    out.events.on_close = [self = shared_from_this(), tell = out.events.on_close](const exit_status& status) {
      boost::asio::post(self->strand_, [self] { self->finish(); });
      if (tell) tell(status);
    };
    return out;
  }

  void begin(const child& made, std::shared_ptr<child_core> core) {
    boost::asio::post(strand_, [self = shared_from_this(), made, core = std::move(core)] {
      self->child_ = made;
      self->core_ = core;
      core->on_given_up([self] {
        boost::asio::post(self->strand_, [self] {
          if (self->core_) self->on_exit(self->result_.status);
        });
      });
      self->read(self->outputs_[0] = &made.out(), self->result_.out, self->buffers_[0]);
      self->read(self->outputs_[1] = &made.err(), self->result_.err, self->buffers_[1]);
      if (!self->options_.input.empty())
        boost::asio::async_write(
            made.in(), boost::asio::buffer(self->options_.input),
            boost::asio::bind_executor(self->strand_, [self](boost::system::error_code, std::size_t) {
              if (self->child_) self->child_.in().close();  // it need not have read all
            }));
      if (self->exited_ || core->let_go) self->on_exit(self->result_.status);
      if (self->close_came_) self->finish();
    });
  }

  void fail(boost::system::error_code code) { std::exchange(done_, nullptr)->complete(code, {}); }

 private:
  using buffer = std::array<char, 65536>;

  void read(child_stream* from, std::string& into, buffer& bytes) {
    from->async_read_some(boost::asio::buffer(bytes),
                          boost::asio::bind_executor(strand_, [self = shared_from_this(), from, &into, &bytes](
                                                                  boost::system::error_code code, std::size_t count) {
                            if (!self->child_) return;  // it has been handed over already
                            if (count) self->take(into, bytes, count);
                            if (!code && !self->over_) self->read(from, into, bytes);
                          }));
  }

  void take(std::string& into, const buffer& bytes, std::size_t count) {
    const std::size_t room = options_.max_output - into.size();
    into.append(bytes.data(), std::min(room, count));
    if (count > room && !std::exchange(over_, true)) core_->give_up(core_->over_limit);
  }

  void on_exit(const exit_status& status) {
    result_.status = status;
    exited_ = true;
    if (!core_) return;  // begin() is yet to come
    // Killed on purpose: what it has left behind may hold its pipes for ever. What is in them is all there is to come.
    if (!over_ && !core_->timed_out && !core_->stop_requested && !core_->let_go) return;
    for (std::size_t i = 0; i < 2; ++i) {
      std::string& into = i ? result_.err : result_.out;
      for (;;) {
        pollfd ready{outputs_[i]->is_open() ? outputs_[i]->native_handle() : -1, POLLIN, 0};
        if (over_ || ::poll(&ready, 1, 0) <= 0 || !(ready.revents & POLLIN)) break;
        boost::system::error_code code;
        const std::size_t count = outputs_[i]->read_some(boost::asio::buffer(buffers_[i]), code);
        if (code || count == 0) break;
        take(into, buffers_[i], count);
      }
    }
    finish();
  }

  void finish() {
    close_came_ = true;
    if (!core_ || !done_) return;
    boost::system::error_code code;
    if (over_) code = process_error::output_limit;
    else if (core_->timed_out) code = process_error::timed_out;
    else if (core_->stop_requested || (core_->let_go && !result_.status)) code = process_error::aborted;
    else if (!result_.status) code = process_error::failed;
    result_.violations = core_->violations();
    core_->on_given_up(nullptr);
    core_->abandon();
    child_ = {};
    core_.reset();
    auto done = std::move(done_);
    done->complete(code, std::move(result_));
  }

  const boost::asio::strand<boost::asio::any_io_executor> strand_;
  const exec_options options_;
  done_handler done_;
  child child_;
  std::shared_ptr<child_core> core_;
  std::array<child_stream*, 2> outputs_{};
  std::array<buffer, 2> buffers_;
  exec_result result_;
  bool over_ = false, exited_ = false, close_came_ = false;
};

}  // namespace

const boost::system::error_category& process_category() noexcept {
  static const category instance;
  return instance;
}

launcher::outcome launcher::exec_file(const std::string& file, const std::vector<std::string>& arguments,
                                      exec_options options) {
  // A loop of its own: it needs nobody to run another.
  const auto io = std::make_shared<boost::asio::io_context>(1);
  outcome out;
  const auto store = [&](boost::system::error_code code, exec_result result) {
    static_cast<exec_result&>(out) = std::move(result);
    out.error = code;
  };
  const auto collecting =
      std::make_shared<collector>(io->get_executor(), std::move(options),
                                  detail::erase<boost::system::error_code, exec_result>(store, io->get_executor()));
  std::shared_ptr<child_core> running;
  std::exception_ptr thrown;
  try {
    const child made = core_->spawn(file, arguments, collecting->prepare(), io->get_executor(), io);
    running = launcher_core::core_of(made);
    collecting->begin(made, running);
  } catch (...) {
    thrown = std::current_exception();
    collecting->fail({});
  }
  // What a handler throws is the caller's, but not before the child has ended.
  for (bool ended = false; !ended;) try {
      io->run();
      ended = true;
    } catch (...) {
      if (!thrown) thrown = std::current_exception();
      if (!running) continue;
      running->stop_requested = true;
      running->kill_quietly();
    }
  if (thrown) std::rethrow_exception(thrown);
  return out;
}

launcher::outcome launcher::exec(const std::string& command, exec_options options) {
  return exec_file("/bin/sh", {"-c", command}, std::move(options));
}

void launcher::start_exec(const std::string& file, const std::vector<std::string>& arguments, exec_options options,
                          detail::completion<boost::system::error_code, exec_result> done) {
  const auto collecting = std::make_shared<collector>(core_->executor(), std::move(options), std::move(done));
  process_options prepared;
  try {
    prepared = collecting->prepare();
  } catch (const std::invalid_argument&) {
    return collecting->fail(boost::asio::error::invalid_argument);
  }
  core_->start_spawn(file, arguments, std::move(prepared),
                     detail::erase<boost::system::error_code, child>(
                         [collecting](boost::system::error_code code, const child& made) {
                           if (code) collecting->fail(code);
                           else collecting->begin(made, launcher_core::core_of(made));
                         },
                         core_->executor()));
}

}  // namespace bulkhead
