// See metrics_page.hpp. Clients get little: 16 at a time, 8 KiB of request, 10 s for each.
#include "metrics_page.hpp"

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/basic_stream.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/http.hpp>

#include <atomic>
#include <filesystem>
#include <optional>
#include <stdexcept>

#include <sys/stat.h>
#include <unistd.h>

namespace bulkhead::daemon {

class metrics_page::door {
 public:
  virtual ~door() = default;
  virtual void close() = 0;
};

namespace {

namespace asio = boost::asio;
namespace http = boost::beast::http;
using boost::system::error_code;

constexpr unsigned most_clients = 16;
constexpr std::size_t header_limit = 8192;
constexpr std::chrono::seconds patience{10};
constexpr std::chrono::milliseconds accept_pause{100};

using maker = std::shared_ptr<const std::function<std::string()>>;

http::response<http::string_body> answer_to(const http::request<http::empty_body>& request, const maker& text) {
  http::response<http::string_body> out(http::status::ok, request.version());
  out.set(http::field::content_type, "text/plain; version=0.0.4; charset=utf-8");
  const auto path = request.target().substr(0, request.target().find('?'));
  if (request.method() != http::verb::get && request.method() != http::verb::head) {
    out.result(http::status::method_not_allowed);
    out.set(http::field::allow, "GET, HEAD");
    out.body() = "only GET and HEAD\n";
  } else if (path != "/metrics") {
    out.result(http::status::not_found);
    out.body() = "the metrics are at /metrics\n";
  } else {
    out.body() = (*text)();
  }
  out.keep_alive(request.keep_alive());
  out.prepare_payload();
  if (request.method() == http::verb::head) out.body().clear();
  return out;
}

template <class Protocol>
class visit : public std::enable_shared_from_this<visit<Protocol>> {
 public:
  visit(typename Protocol::socket socket, maker text, std::shared_ptr<std::atomic<unsigned>> count)
      : stream_(std::move(socket)), text_(std::move(text)), count_(std::move(count)) {
    ++*count_;
  }
  ~visit() { --*count_; }
  void read() {
    parser_.emplace();
    parser_->header_limit(header_limit);
    stream_.expires_after(patience);
    http::async_read(stream_, buffer_, *parser_, [self = this->shared_from_this()](error_code failure, std::size_t) {
      if (!failure) self->write();
    });
  }

 private:
  void write() {
    response_ = answer_to(parser_->get(), text_);
    stream_.expires_after(patience);
    http::async_write(stream_, response_, [self = this->shared_from_this()](error_code failure, std::size_t) {
      if (!failure && self->response_.keep_alive()) self->read();
    });
  }

  boost::beast::basic_stream<Protocol> stream_;
  const maker text_;
  const std::shared_ptr<std::atomic<unsigned>> count_;
  boost::beast::flat_buffer buffer_{header_limit};
  std::optional<http::request_parser<http::empty_body>> parser_;
  http::response<http::string_body> response_;
};

template <class Protocol>
class door_of final : public metrics_page::door, public std::enable_shared_from_this<door_of<Protocol>> {
 public:
  door_of(asio::io_context& io, const typename Protocol::endpoint& at, maker text)
      : acceptor_(io, at.protocol()), pause_(io), text_(std::move(text)) {
    if constexpr (std::is_same_v<Protocol, asio::ip::tcp>) acceptor_.set_option(asio::socket_base::reuse_address(true));
    acceptor_.bind(at);
    if constexpr (!std::is_same_v<Protocol, asio::ip::tcp>)
      if (::chmod(at.path().c_str(), 0600) != 0) throw std::runtime_error("can't set the mode of its socket");
    acceptor_.listen();
  }
  void accept() {
    acceptor_.async_accept([self = this->shared_from_this()](error_code failure, typename Protocol::socket socket) {
      if (failure == asio::error::operation_aborted) return;
      if (failure) {  // out of descriptors: trying again at once would spin
        self->pause_.expires_after(accept_pause);
        return self->pause_.async_wait([self](error_code over) {
          if (!over) self->accept();
        });
      }
      if (*self->count_ < most_clients)
        std::make_shared<visit<Protocol>>(std::move(socket), self->text_, self->count_)->read();
      self->accept();
    });
  }
  void close() override {
    error_code ignored;
    acceptor_.close(ignored);
    pause_.cancel();
  }
  auto endpoint() const { return acceptor_.local_endpoint(); }

 private:
  typename Protocol::acceptor acceptor_;
  asio::steady_timer pause_;
  const maker text_;
  const std::shared_ptr<std::atomic<unsigned>> count_ = std::make_shared<std::atomic<unsigned>>(0);
};

}  // namespace

metrics_page::metrics_page(asio::io_context& io, const std::string& address, std::function<std::string()> text)
    : address_(address) {
  const auto made = std::make_shared<const std::function<std::string()>>(std::move(text));
  try {
    if (address.starts_with("unix:")) {
      const std::string path = address.substr(5);
      std::filesystem::create_directories(std::filesystem::path(path).parent_path());
      if (std::filesystem::is_socket(path)) ::unlink(path.c_str());  // of a daemon before this one
      auto door = std::make_shared<door_of<asio::local::stream_protocol>>(io, path, made);
      door->accept();
      door_ = std::move(door);
    } else {
      const auto port = static_cast<unsigned short>(std::stoi(address.substr(address.find(':') + 1)));
      auto door = std::make_shared<door_of<asio::ip::tcp>>(
          io, asio::ip::tcp::endpoint(asio::ip::address_v4::loopback(), port), made);
      address_ = "127.0.0.1:" + std::to_string(door->endpoint().port());
      door->accept();
      door_ = std::move(door);
    }
  } catch (const std::exception& e) {
    throw std::runtime_error("metrics: can't serve them at " + address + ": " + e.what());
  }
}

metrics_page::~metrics_page() {
  door_->close();
  if (address_.starts_with("unix:")) ::unlink(address_.c_str() + 5);
}

}  // namespace bulkhead::daemon
