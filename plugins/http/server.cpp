// See server.hpp.
#include "server.hpp"

#include "session.hpp"

#include <charconv>

#include <sys/socket.h>

namespace http_plugin {
namespace {

constexpr std::chrono::milliseconds tick_interval{500}, ending_tick{50};
constexpr std::chrono::milliseconds newcomers{500};  // at the end: until those who have just come send their request
constexpr std::size_t most_looked_up = 1024;         // paths, which clients may make up
constexpr int accepted_at_once = 4;                  // the others may be free as well

std::chrono::seconds seconds(const std::string& name, const std::string& text) {
  unsigned value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value == 0)
    throw bulkhead::error("the setting " + name + " is a number of seconds, not '" + text + "'");
  return std::chrono::seconds(value);
}

}  // namespace

settings::settings(const std::map<std::string, std::string>& given) {
  for (const auto& [name, value] : given) {
    if (name == "root") root = value;
    else if (name == "published") published = value;
    else if (name == "pid") pid = value;
    else if (name == "faults") faults = value == "yes";
    else if (name == "keep_alive") keep_alive = seconds(name, value);
    else if (name == "patience") patience = seconds(name, value);
    else
      throw bulkhead::error("there is no setting '" + name +
                            "'; there are root, published, keep_alive, patience and "
                            "faults");
  }
}

server::server(const bulkhead::host_api& host, bulkhead::serve_link& link, const settings& with)
    : host_(host), link_(link), settings_(with), control_(io_), listener_(io_), timer_(io_) {
  if (!settings_.root.empty()) site_.emplace(settings_.root);
  control_.assign(link_.fd());
}

server::~server() {
  if (control_.is_open()) control_.release();  // the link's own
  for (const auto& each : std::set(sessions_)) each->end();
}

void server::run() {
  watch_control();
  link_.serving();
  tick();
  io_.run();
}

void server::watch_control() {
  control_.async_wait(control_.wait_read, [this](const boost::system::error_code& failed) {
    if (!failed) on_control();
  });
}

void server::on_control() {
  using kind = bulkhead::serve_link::event::kind;
  while (auto event = link_.next()) {
    switch (event->what) {
      case kind::connection: add(std::move(event->connection)); break;
      case kind::listener:
        listener_.assign(event->listener.release());
        accepts_ = true;
        watch_listener();
        break;
      case kind::drain:
        leave(accepts_ ? phase::closing : phase::returning, std::chrono::milliseconds(event->limit_ms) * 4 / 5);
        break;
      case kind::end:
        leave(phase::closing, std::min(newcomers, std::chrono::milliseconds(event->limit_ms)));
        for (const auto& each : std::set(sessions_))
          if (each->idle() && each->used() && !each->readable()) each->end();
        break;
      case kind::published: published_.clear(); break;
      case kind::host_gone: return io_.stop();
    }
  }
  watch_control();
}

void server::watch_listener() {
  if (listening_ || !listener_.is_open() || sessions_.size() >= link_.most_connections()) return;
  listening_ = true;
  listener_.async_wait(listener_.wait_read, [this](const boost::system::error_code& failed) {
    listening_ = false;
    if (failed) return;
    accept(accepted_at_once);
    watch_listener();
  });
}

void server::accept(int limit) {
  while (limit-- > 0 && sessions_.size() < link_.most_connections()) {
    const int fd = ::accept4(listener_.native_handle(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd < 0) return;
    if (auto made = link_.accepted(fd)) add(std::move(*made));
  }
}

void server::add(bulkhead::served_connection connection) {
  const auto added = std::make_shared<session>(*this, io_, std::move(connection));
  sessions_.insert(added);
  if (phase_ == phase::returning) added->give_back();
  else added->start();
}

void server::leave(enum phase how, std::chrono::milliseconds patience) {
  phase_ = how;
  if (listener_.is_open()) {
    accept(static_cast<int>(link_.most_connections()));  // what is in the backlog, if nobody else comes for it
    listener_.close();
  }
  close_idle_at_ = std::chrono::steady_clock::now() + patience;
  for (const auto& each : std::set(sessions_))
    if (how == phase::returning && each->idle()) each->give_back();
  stop_if_done();
  timer_.cancel();
}

void server::tick() {
  const auto now = std::chrono::steady_clock::now();
  const bool ending = phase_ == phase::closing;
  for (const auto& each : std::set(sessions_)) {
    each->check_time(now);
    if (ending && each->idle() && now >= close_idle_at_) each->end();
  }
  stop_if_done();
  timer_.expires_after(phase_ == phase::serving ? tick_interval : ending_tick);
  timer_.async_wait([this](const boost::system::error_code&) { tick(); });
}

void server::ended(session& which) {
  sessions_.erase(which.shared_from_this());
  stop_if_done();
  if (phase_ == phase::serving) watch_listener();
}

void server::stop_if_done() {
  if (phase_ != phase::serving && sessions_.empty()) io_.stop();
}

std::shared_ptr<const bulkhead::snapshot> server::published(const std::string& path) {
  if (!settings_.published) return nullptr;
  if (const auto found = published_.find(path); found != published_.end()) return found->second;
  auto value = std::make_shared<const bulkhead::snapshot>(host_.published(*settings_.published + path.substr(1)));
  if (!*value) value.reset();
  if (published_.size() >= most_looked_up) published_.clear();
  return published_[path] = std::move(value);
}

const std::string& server::status() {
  status_ = "{\"pid\":" + (settings_.pid.empty() ? "0" : settings_.pid) +
            ",\"requests\":" + std::to_string(link_.requests()) +
            ",\"connections\":" + std::to_string(sessions_.size()) + "}\n";
  return status_;
}

const std::string& server::date() {
  const std::time_t now = std::time(nullptr);
  if (now != date_of_) {
    date_of_ = now;
    date_ = http_date(now);
  }
  return date_;
}

}  // namespace http_plugin
