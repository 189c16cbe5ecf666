// One connection: reads requests, writes answers, says at every moment whether the host could give it to another worker.
#pragma once

#include "server.hpp"

#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>

namespace http_plugin {

class session : public std::enable_shared_from_this<session> {
 public:
  using clock = std::chrono::steady_clock;

  session(server& owner, boost::asio::io_context& io, bulkhead::served_connection connection);
  void start();
  bool idle() const { return state_ == state::idle; }
  bool used() const { return requests_ > 0; }  // it has had a request already
  bool readable() const;
  void give_back();
  void end();
  // Ends it when it has been idle, or has made no progress, for too long.
  void check_time(clock::time_point now);

 private:
  enum class state { idle, reading, writing, lingering, over };
  using parser = boost::beast::http::request_parser<boost::beast::http::string_body>;

  void wait(boost::asio::posix::stream_descriptor::wait_type what, void (session::*then)());
  void on_readable();
  void parse();
  void answer();
  struct content;
  bool answer_published(const std::string& target, bool head);
  void answer_file(const std::string& target, bool head);
  void send_content(content&& what, bool head);
  void plain(unsigned status, std::string_view text = {}, std::string_view more_headers = {});
  void respond(unsigned status, std::string_view type, std::uint64_t length, std::string_view more_headers = {});
  void write();
  bool refill();
  void answered();
  void linger();
  void discard();

  server& owner_;
  bulkhead::served_connection connection_;
  boost::asio::posix::stream_descriptor socket_;  // the same descriptor; released before that is closed
  boost::beast::flat_buffer in_;
  std::optional<parser> parser_;
  std::string out_;
  std::size_t written_ = 0;
  // What is being sent, if it is not in out_: of a file or a published value, from one place to another.
  descriptor file_;
  std::shared_ptr<const bulkhead::snapshot> value_;
  std::uint64_t body_at_ = 0, body_end_ = 0;
  state state_ = state::idle;
  bool keep_alive_ = true;
  std::uint64_t requests_ = 0;
  clock::time_point since_ = clock::now();  // of the state, or of the last progress
};

}  // namespace http_plugin
