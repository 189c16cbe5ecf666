// One worker's server: an event loop over the connections that the host passes or that it accepts itself, until the host
// says that it is to end.
#pragma once

#include "site.hpp"
#include <bulkhead/sdk/serve.hpp>

#include <chrono>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <utility>  // before Asio, under g++ 12
#ifdef __cpp_impl_coroutine
#include <coroutine>
#endif
#include <boost/asio/io_context.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/steady_timer.hpp>

namespace http_plugin {

class session;

struct settings {
  // Throws bulkhead::error for settings that are not known or can't be.
  explicit settings(const std::map<std::string, std::string>& given);

  std::string root;                      // empty: no files
  std::optional<std::string> published;  // a path's value is published under this and the path without its '/'
  std::string pid;
  bool faults = false;  // /crash, /hang and /leave do what they say
  std::chrono::seconds keep_alive{75}, patience{30};
};

class server {
 public:
  server(const bulkhead::host_api& host, bulkhead::serve_link& link, const settings& with);
  ~server();
  // Returns when the host wants no more of it.
  void run();

  // For sessions.
  enum class phase {
    serving,
    returning,  // connections go back to the host as soon as they are idle
    closing,    // connections end after their next answer
  };
  enum phase phase() const { return phase_; }
  void count_request() { link_.count_request(); }
  void say_leaving() { host_.leave("asked to"); }
  const std::string& status();  // JSON
  const std::string& date();
  const std::optional<site>& files() const { return site_; }
  // What the application has published for this path, kept for as long as somebody sends it; null when there is nothing.
  std::shared_ptr<const bulkhead::snapshot> published(const std::string& path);
  const settings& options() const { return settings_; }
  void ended(session& which);

 private:
  void watch_control();
  void on_control();
  void watch_listener();
  void accept(int limit);
  void add(bulkhead::served_connection connection);
  // The new phase, and how long idle connections may stay in it.
  void leave(enum phase how, std::chrono::milliseconds patience);
  void tick();
  void stop_if_done();

  boost::asio::io_context io_{1};
  const bulkhead::host_api host_;
  bulkhead::serve_link& link_;
  const settings settings_;
  std::optional<site> site_;
  boost::asio::posix::stream_descriptor control_, listener_;
  boost::asio::steady_timer timer_;
  std::set<std::shared_ptr<session>> sessions_;
  enum phase phase_ = phase::serving;
  std::chrono::steady_clock::time_point close_idle_at_ = std::chrono::steady_clock::time_point::max();
  bool accepts_ = false, listening_ = false;
  std::map<std::string, std::shared_ptr<const bulkhead::snapshot>> published_;  // by path, until there is news
  std::string status_, date_;
  std::time_t date_of_ = 0;
};

}  // namespace http_plugin
