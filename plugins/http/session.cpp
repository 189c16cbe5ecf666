// See session.hpp.
#include "session.hpp"

#include <boost/beast/http/field.hpp>
#include <boost/beast/http/status.hpp>

#include <csignal>

#include <poll.h>
#include <sys/socket.h>

namespace http_plugin {
namespace {

namespace beast_http = boost::beast::http;

constexpr std::size_t read_size = 8192, chunk_size = std::size_t{64} << 10;
constexpr int pieces_at_once = 16;
constexpr std::uint32_t header_limit = 16384;
constexpr std::uint64_t body_limit = 65536;
constexpr std::chrono::seconds linger_limit{2};

bool wants_more(const boost::system::error_code& code) { return code == beast_http::error::need_more; }

}  // namespace

session::session(server& owner, boost::asio::io_context& io, bulkhead::served_connection connection)
    : owner_(owner), connection_(std::move(connection)), socket_(io) {}

void session::start() {
  boost::system::error_code failed;
  socket_.assign(connection_.fd(), failed);
  if (failed) return end();
  wait(socket_.wait_read, &session::on_readable);
}

void session::wait(boost::asio::posix::stream_descriptor::wait_type what, void (session::*then)()) {
  socket_.async_wait(what, [self = shared_from_this(), then](const boost::system::error_code& failed) {
    if (failed || self->state_ == state::over) return;
    (self.get()->*then)();
  });
}

// From here on what the client sends is this worker's to answer.
void session::on_readable() {
  if (state_ == state::lingering) return discard();
  connection_.busy();
  if (state_ == state::idle) {
    since_ = clock::now();
    state_ = state::reading;
  }
  const auto space = in_.prepare(read_size);
  const ssize_t n = ::recv(connection_.fd(), space.data(), space.size(), MSG_DONTWAIT);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) {
    if (in_.size() == 0 && !parser_) {
      state_ = state::idle;
      connection_.idle();
    }
    return wait(socket_.wait_read, &session::on_readable);
  }
  if (n <= 0) return end();
  in_.commit(static_cast<std::size_t>(n));
  parse();
}

// Requests that have come together are answered together.
void session::parse() {
  do {
    if (!parser_) {
      parser_.emplace();
      parser_->header_limit(header_limit);
      parser_->body_limit(body_limit);
      parser_->eager(true);
    }
    boost::system::error_code failed;
    in_.consume(in_.size() > 0 ? parser_->put(in_.data(), failed) : 0);
    if (wants_more(failed) || (!failed && !parser_->is_done()))
      return out_.empty() ? wait(socket_.wait_read, &session::on_readable) : write();
    if (failed) {
      keep_alive_ = false;
      if (failed == beast_http::error::body_limit) plain(413);
      else if (failed == beast_http::error::header_limit) plain(431);
      else plain(400, failed.message());
      return write();
    }
    answer();
    parser_.reset();
  } while (keep_alive_ && body_at_ == body_end_ && in_.size() > 0 && out_.size() < chunk_size);
  write();
}

void session::answer() {
  auto& request = parser_->get();
  ++requests_;
  owner_.count_request();
  keep_alive_ = request.keep_alive() && owner_.phase() != server::phase::closing;
  const bool head = request.method() == beast_http::verb::head;
  const std::string target(request.target());
  if (request.method() != beast_http::verb::get && !head) {
    keep_alive_ = false;
    plain(405, {}, "Allow: GET, HEAD\r\n");
  } else if (target == "/status") {
    const std::string& text = owner_.status();
    respond(200, "application/json", text.size(), "Cache-Control: no-store\r\n");
    if (!head) out_ += text;
  } else if (owner_.options().faults && target == "/crash") {
    std::raise(SIGSEGV);
  } else if (owner_.options().faults && target == "/hang") {
    for (volatile bool on = true; on;) {
    }
  } else if (owner_.options().faults && target == "/leave") {
    owner_.say_leaving();
    plain(200);
  } else if (answer_published(target, head)) {
  } else if (owner_.files()) {
    answer_file(target, head);
  } else {
    plain(404);
  }
}

// What is there for a target, and which headers say which version of it this is.
struct session::content {
  descriptor file{};
  std::shared_ptr<const bulkhead::snapshot> value{};
  std::uint64_t size = 0;
  std::string_view type{};
  std::string headers{};
  bool unchanged = false;  // the client has it already
};

bool session::answer_published(const std::string& target, bool head) {
  if (!owner_.options().published) return false;
  const auto path = decoded_path(target);
  auto value = path ? owner_.published(*path) : nullptr;
  if (!value) return false;
  const std::string tag = '"' + std::to_string(value->version()) + '"';
  const std::size_t size = value->view().size();
  send_content({.value = std::move(value),
                .size = size,
                .type = type_of(*path),
                .headers = "ETag: " + tag + "\r\nCache-Control: no-cache\r\n",
                .unchanged = parser_->get()[beast_http::field::if_none_match] == tag},
               head);
  return true;
}

void session::answer_file(const std::string& target, bool head) {
  found_file found = owner_.files()->find(target);
  if (found.status == 301) return plain(301, {}, "Location: " + target.substr(0, target.find_first_of("?#")) + "/\r\n");
  if (found.status != 200) return plain(found.status);
  const std::string modified = http_date(found.modified);
  send_content({.file = std::move(found.file),
                .size = found.size,
                .type = found.type,
                .headers = "Last-Modified: " + modified + "\r\n",
                .unchanged = parser_->get()[beast_http::field::if_modified_since] == modified},
               head);
}

void session::send_content(content&& what, bool head) {
  what.headers += "Accept-Ranges: bytes\r\n";
  if (what.unchanged) return respond(304, {}, 0, what.headers);
  const auto& request = parser_->get();
  byte_range part{0, what.size};
  auto kind = range_result::whole;
  if (request.count(beast_http::field::if_range) == 0) {
    const auto asked = request[beast_http::field::range];
    kind = parse_range({asked.data(), asked.size()}, what.size, part);
  }
  const std::string of = "/" + std::to_string(what.size) + "\r\n";
  if (kind == range_result::unsatisfiable) return plain(416, {}, "Content-Range: bytes */" + of.substr(1));
  if (kind == range_result::part)
    what.headers += "Content-Range: bytes " + std::to_string(part.begin) + "-" + std::to_string(part.end - 1) + of;
  respond(kind == range_result::part ? 206 : 200, what.type, part.end - part.begin, what.headers);
  if (head) return;
  file_ = std::move(what.file);
  value_ = std::move(what.value);
  body_at_ = part.begin;
  body_end_ = part.end;
  refill();
}

// An answer for people, in one line.
void session::plain(unsigned status, std::string_view text, std::string_view more_headers) {
  std::string body = std::to_string(status) + " ";
  const auto reason = beast_http::obsolete_reason(static_cast<beast_http::status>(status));
  body.append(reason.data(), reason.size());
  if (!text.empty()) body.append(": ").append(text);
  body += "\n";
  respond(status, "text/plain; charset=utf-8", body.size(), more_headers);
  if (!parser_ || parser_->get().method() != beast_http::verb::head) out_ += body;
}

void session::respond(unsigned status, std::string_view type, std::uint64_t length, std::string_view more_headers) {
  const auto reason = beast_http::obsolete_reason(static_cast<beast_http::status>(status));
  out_.append("HTTP/1.1 ").append(std::to_string(status)).append(" ").append(reason.data(), reason.size());
  out_.append("\r\nServer: bulkhead\r\nDate: ").append(owner_.date()).append("\r\n");
  if (!type.empty()) out_.append("Content-Type: ").append(type).append("\r\n");
  if (status != 304) out_.append("Content-Length: ").append(std::to_string(length)).append("\r\n");
  out_.append(more_headers);
  if (!keep_alive_) out_.append("Connection: close\r\n");
  else if (parser_ && parser_->get().version() < 11) out_.append("Connection: keep-alive\r\n");
  out_.append("\r\n");
}

// Appends the next piece of the body. False when a file has become shorter than it was.
bool session::refill() {
  const auto wanted = static_cast<std::size_t>(std::min<std::uint64_t>(chunk_size, body_end_ - body_at_));
  if (value_) {
    const auto piece = value_->view().subspan(body_at_, wanted);
    out_.append(piece.begin(), piece.end());
    body_at_ += wanted;
    return true;
  }
  const std::size_t before = out_.size();
  out_.resize(before + wanted);
  const ssize_t n = wanted == 0 ? 0 : ::pread(file_.get(), out_.data() + before, wanted, static_cast<off_t>(body_at_));
  out_.resize(before + static_cast<std::size_t>(std::max<ssize_t>(n, 0)));
  if (n <= 0) return wanted == 0;
  body_at_ += static_cast<std::uint64_t>(n);
  return true;
}

void session::write() {
  state_ = state::writing;
  for (int pieces = 0;; ++pieces) {
    if (pieces == pieces_at_once) return wait(socket_.wait_write, &session::write);  // others have a turn
    if (written_ == out_.size()) {
      out_.clear();
      written_ = 0;
      if (body_at_ == body_end_) return answered();
      if (!refill()) return end();
    }
    const ssize_t n =
        ::send(connection_.fd(), out_.data() + written_, out_.size() - written_, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return wait(socket_.wait_write, &session::write);
    if (n < 0) return end();
    written_ += static_cast<std::size_t>(n);
    since_ = clock::now();
  }
}

void session::answered() {
  file_ = descriptor();
  value_.reset();
  if (!keep_alive_) return linger();
  if (in_.size() > 0 || parser_) {  // the next request has begun
    state_ = state::reading;
    return parse();
  }
  state_ = state::idle;
  connection_.idle();
  if (owner_.phase() == server::phase::returning) return give_back();
  wait(socket_.wait_read, &session::on_readable);
}

// Closing while the client still sends would reset the connection under the answer: first the client has to close, too.
void session::linger() {
  state_ = state::lingering;
  connection_.idle();  // there is nothing left to lose
  since_ = clock::now();
  ::shutdown(connection_.fd(), SHUT_WR);
  discard();
}

void session::discard() {
  char scrap[4096];
  for (int turns = 0; turns < 16; ++turns) {
    const ssize_t n = ::recv(connection_.fd(), scrap, sizeof scrap, MSG_DONTWAIT);
    if (n > 0) continue;
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return wait(socket_.wait_read, &session::on_readable);
    break;
  }
  end();
}

bool session::readable() const {
  pollfd one{connection_.fd(), POLLIN, 0};
  return ::poll(&one, 1, 0) > 0;
}

void session::give_back() {
  state_ = state::over;
  socket_.release();
  connection_.give_back();
  owner_.ended(*this);
}

void session::end() {
  if (state_ == state::over) return;
  state_ = state::over;
  if (socket_.is_open()) socket_.release();
  connection_.end();
  owner_.ended(*this);
}

void session::check_time(clock::time_point now) {
  const auto& options = owner_.options();
  const std::chrono::seconds limit = state_ == state::idle        ? options.keep_alive
                                     : state_ == state::lingering ? linger_limit
                                                                  : options.patience;
  if (now - since_ >= limit) end();
}

}  // namespace http_plugin
