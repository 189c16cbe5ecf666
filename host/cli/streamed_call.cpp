// See streamed_call.hpp. Results are printed by the caller's thread; lines are read by another, which waits for the end of
// the call beside them: a terminal may never say that there is no more.
#include "streamed_call.hpp"

#include "values/arguments.hpp"
#include "values/from_msgpack.hpp"

#include <fmt/format.h>

#include <exception>
#include <thread>

#include <poll.h>
#include <sys/eventfd.h>

namespace bulkhead::cli {
namespace {

constexpr std::size_t read_chunk = std::size_t{64} << 10;

void print_item(const std::vector<std::uint8_t>& packed, bool as_json) {
  const msgpack::object_handle item = ipc::unpack(packed);
  if (as_json) fmt::print("{}\n", compact({{"item", from_msgpack(item.get(), bytes_as::base64)}}));
  else fmt::print("{}\n", compact(from_msgpack(item.get(), bytes_as::summary)));
  std::fflush(stdout);  // whoever reads them wants them as they come
}

template <class Call>
class line_sender {
 public:
  line_sender(Call& to, type item)
      : to_(to), item_(std::move(item)), over_(checked(::eventfd(0, EFD_CLOEXEC), "eventfd")), thread_([this] {
          try {
            send_all();
          } catch (const std::exception&) {
            problem_ = std::current_exception();
            to_.cancel();
          }
        }) {}
  ~line_sender() { end(); }
  line_sender(const line_sender&) = delete;

  void end() {
    if (!thread_.joinable()) return;
    ::eventfd_write(over_.get(), 1);
    thread_.join();
  }
  void rethrow() const {
    if (problem_) std::rethrow_exception(problem_);
  }

 private:
  void send_all() {
    std::string lines;
    char chunk[read_chunk];
    for (;;) {
      pollfd fds[] = {{0, POLLIN, 0}, {over_.get(), POLLIN, 0}};
      if (::poll(fds, 2, -1) < 0) continue;
      if (fds[1].revents) return;
      const ssize_t got = ::read(0, chunk, sizeof chunk);
      if (got < 0) throw_errno("the standard input can't be read");
      lines.append(chunk, static_cast<std::size_t>(got));
      if (got == 0 && !lines.empty()) lines += '\n';  // a last line without an end
      std::size_t from = 0;
      for (std::size_t at; (at = lines.find('\n', from)) != std::string::npos; from = at + 1)
        if (!to_.send_packed(make_item(item_, lines.substr(from, at - from), ++number_))) return;
      lines.erase(0, from);
      if (got == 0) return to_.close();
    }
  }

  Call& to_;
  const type item_;
  const unique_fd over_;
  std::size_t number_ = 0;
  std::exception_ptr problem_;
  std::thread thread_;
};

template <class Call>
reply pass_lines(Call& call, const call_line& line) {
  std::optional<line_sender<Call>> sender;
  if (line.form.streamed_arguments) sender.emplace(call, *line.form.streamed_arguments);
  try {
    while (const auto item = call.next_packed()) print_item(*item, line.as_json);
  } catch (const call_error&) {
    // finish() has it, too.
  }
  if (sender) sender->end();
  reply done = call.finish();
  if (sender) sender->rethrow();
  return done;
}

}  // namespace

reply call_streamed(streaming_call call, const call_line& line) { return pass_lines(call, line); }
reply call_streamed(daemon_stream& call, const call_line& line) { return pass_lines(call, line); }

}  // namespace bulkhead::cli
