// See node_cluster.hpp. The wire is that of Node's lib/internal/cluster: a worker asks for a socket (queryServer) and gets
// it, or under round robin a promise of connections (newconn), each of which it answers for; it is passed the next one
// then. All state is under one mutex; what the application is told is told without it.
#include "closer.hpp"
#include "process/node_listener.hpp"
#include "process/node_wire.hpp"
#include "supervision/restart_window.hpp"
#include "usable_cpus.hpp"
#include <bulkhead/node_cluster.hpp>

#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>

#include <algorithm>
#include <csignal>
#include <deque>
#include <map>
#include <set>

#include <sys/socket.h>

namespace bulkhead {
namespace {

using json = nlohmann::json;
using boost::asio::posix::stream_descriptor;

constexpr std::size_t servers_limit = 256;
constexpr std::chrono::milliseconds short_of_descriptors{100}, full_for{10}, kept_for_least{100};
constexpr auto soon = restart_backoff{}.healthy_after;

json internal(const char* act) { return {{"cmd", "NODE_CLUSTER"}, {"act", act}}; }

std::string text_in(const json& message, const char* name) {
  const auto found = message.find(name);
  return found != message.end() && found->is_string() ? found->get<std::string>() : "";
}

std::optional<std::int64_t> number_in(const json& message, const char* name) {
  const auto found = message.find(name);
  if (found == message.end() || !found->is_number_integer()) return std::nullopt;
  return found->get<std::int64_t>();
}

// Its last close may block, and the launcher's thread must not.
void drop(closer& by, passed_handle handle) {
  if (handle) by.take(node::descriptor_of(std::move(handle)));
}

// False when it may not: it has become another user.
bool kill_all_of(const child& process) {
  try {
    process.kill_tree(SIGKILL);
    return true;
  } catch (const boost::system::system_error&) {
    return false;
  }
}

}  // namespace

class node_cluster::core : public std::enable_shared_from_this<core> {
 public:
  core(launcher& with, std::string script, node_cluster_options options)
      : launch_(with), script_(std::move(script)), options_(std::move(options)), restarts_(options_.intensity) {
    if (options_.may_listen) return;
    // A worker that is another user could have this one's files made, and so be given what that may.
    const process_options& as = options_.process;
    options_.may_listen = [any = !as.policy, paths = !as.uid && !as.gid](const std::string& address, std::uint16_t) {
      return any && (paths || !address.starts_with('/'));
    };
  }

  void begin() {
    std::lock_guard held(mutex_);
    for (unsigned i = 0; i < count_; ++i) start_worker();
  }

  bool send(unsigned number, const json& message, passed_handle handle) {
    std::lock_guard held(mutex_);
    const auto found = workers_.find(number);
    if (found == workers_.end()) return false;
    try {
      return found->second.process.send(message, std::move(handle));
    } catch (const boost::system::system_error&) {  // its channel is closed
      return false;
    }
  }

  void reload() {
    std::lock_guard held(mutex_);
    std::vector<unsigned> old;
    for (const auto& [number, each] : workers_)
      if (!each.leaving && !each.succeeded) old.push_back(number);
    for (const unsigned number : old) {
      const unsigned fresh = start_worker();
      workers_.at(number).succeeded = true;
      workers_.at(fresh).succeeds = number;
    }
  }

  void stop() {
    std::vector<child> left;
    {
      std::lock_guard held(mutex_);
      stopping_ = true;
      for (auto& [number, each] : workers_) {
        leave(number, each);
        left.push_back(each.process);
      }
    }
    const auto until = std::chrono::steady_clock::now() + options_.patience;
    std::erase_if(left, [&](const child& each) {
      const auto patience = std::max(std::chrono::nanoseconds(0), until - std::chrono::steady_clock::now());
      return each.wait_for(patience) || !kill_all_of(each);
    });
    for (const child& each : left) each.wait();
    std::lock_guard held(mutex_);
    servers_.clear();
  }

  node_cluster_stats stats() {
    std::lock_guard held(mutex_);
    node_cluster_stats out = counts_;
    for (const auto& [number, each] : workers_)
      out.workers.push_back({number, each.process.pid(), each.listening, each.leaving});
    return out;
  }

 private:
  struct handoff {
    std::string key;
    unique_fd connection;  // a duplicate, until the worker says that it has taken it
  };
  struct worker {
    child process{};
    bool listening = false, leaving = false, succeeded = false;
    supervision::time_point started{}, listening_since{};
    unsigned succeeds = 0;  // the one that leaves when this one listens
    std::uint64_t last_sent = 0;
    std::map<std::int64_t, handoff> handoffs{};
  };
  struct server {
    node::listener socket;
    json data;
    std::set<unsigned> users{};
    std::deque<unsigned> free{};               // round robin: workers that have taken what they were passed
    std::deque<unique_fd> waiting{};           // connections that a worker did not take
    std::optional<stream_descriptor> watch{};  // round robin
    std::optional<boost::asio::steady_timer> again{}, unused{};
    bool watching = false;
  };
  using calls = std::vector<std::function<void()>>;  // of the application's handlers
  using fallback = std::function<void(core&)>;       // called with the lock

  // Without the lock. What one throws costs no other.
  void tell(const calls& those) {
    for (const auto& each : those) try {
        each();
      } catch (...) {
        pass_on(std::current_exception());
      }
  }

  // To where goes what other handlers throw.
  void pass_on(std::exception_ptr what) {
    boost::asio::post(launch_.executor(), [what] { std::rethrow_exception(what); });
  }

  unsigned start_worker() {
    const unsigned number = ++last_worker_;
    process_options options = options_.process;
    options.add_env.push_back("NODE_UNIQUE_ID=" + std::to_string(number));
    options.events = {};
    options.events.on_internal = [weak = weak_from_this(), closer = closer_, number](const json& message,
                                                                                     passed_handle handle) {
      drop(*closer, std::move(handle));
      if (const auto self = weak.lock()) self->on_internal(number, message);
    };
    options.events.on_message = [weak = weak_from_this(), closer = closer_, number](const json& message,
                                                                                    passed_handle handle) {
      const auto self = weak.lock();
      if (self && self->options_.on_message) self->options_.on_message(number, message, std::move(handle));
      else drop(*closer, std::move(handle));
    };
    options.events.on_exit = [weak = weak_from_this(), number](const exit_status& status) {
      if (const auto self = weak.lock()) self->on_exit(number, status);
    };
    child made = launch_.fork(script_, options_.arguments, std::move(options));
    worker& added = workers_[number];
    added.process = std::move(made);
    added.started = std::chrono::steady_clock::now();
    return number;
  }

  void restart(calls& later) {
    if (stopping_ || counts_.gave_up) return;
    if (!restarts_.admit(std::chrono::steady_clock::now())) return give_up(later, "workers have ended too often");
    try {
      start_worker();
      ++counts_.restarts;
    } catch (const std::exception& e) {
      give_up(later, e.what());
    }
  }

  void give_up(calls& later, const std::string& why) {
    counts_.gave_up = true;
    if (options_.on_gave_up) later.emplace_back([this, why] { options_.on_gave_up(why); });
  }

  // `not_taken`: the handle did not get there, and neither did the message.
  void say(worker& to, json message, passed_handle handle = {}, fallback not_taken = nullptr) {
    message["seq"] = ++to.last_sent;
    detail::completion<boost::system::error_code> done;
    if (not_taken)
      done = detail::erase<boost::system::error_code>(
          [weak = weak_from_this(), not_taken = std::move(not_taken)](boost::system::error_code code) {
            const auto self = weak.lock();
            if (!self || !code) return;
            std::lock_guard held(self->mutex_);
            not_taken(*self);
          },
          launch_.executor());
    try {
      to.process.channel().send_internal(message, std::move(handle), std::move(done));
    } catch (const boost::system::system_error&) {  // it has gone, and its end is told
    }
  }

  void on_internal(unsigned number, const json& message) {
    if (text_in(message, "cmd") != "NODE_CLUSTER") return;
    const std::string act = text_in(message, "act");
    const auto ack = number_in(message, "ack");
    if (!ack && act == "queryServer") return query_server(number, message);
    calls later;
    {
      std::lock_guard held(mutex_);
      const auto found = workers_.find(number);
      if (found == workers_.end()) return;
      if (ack) answered(number, found->second, *ack, message);
      else take(number, found->second, act, message, later);
    }
    tell(later);
  }

  void take(unsigned number, worker& from, const std::string& act, const json& message, calls& later) {
    if (act == "listening") {
      if (!std::exchange(from.listening, true)) from.listening_since = std::chrono::steady_clock::now();
      if (const auto old = workers_.find(std::exchange(from.succeeds, 0)); old != workers_.end())
        leave(old->first, old->second);
      if (options_.on_listening)
        later.emplace_back(
            [this, number, address = text_in(message, "address"),
             port = static_cast<std::uint16_t>(std::max<std::int64_t>(0, number_in(message, "port").value_or(0)))] {
              options_.on_listening(number, address, port);
            });
    } else if (act == "close") {
      const auto at = servers_.find(text_in(message, "key"));
      if (at != servers_.end() && forget_user(at->second, number)) drop_unused(at->first, at->second);
    } else if (act == "exitedAfterDisconnect") {  // it leaves on its own; it waits for the answer
      if (const auto seq = number_in(message, "seq")) say(from, {{"cmd", "NODE_CLUSTER"}, {"ack", *seq}});
      if (!leaves(number, from)) return;
      // One that had never listened counts as failed, once it has ended.
      if (!from.listening || from.succeeded || stopping_ || counts_.gave_up || workers_.size() >= 2 * count_) return;
      from.succeeded = true;
      // One that leaves soon counts, too: else workers could come and go without end.
      if (std::chrono::steady_clock::now() - from.listening_since < soon) return restart(later);
      try {
        start_worker();
      } catch (const std::exception&) {
        from.succeeded = false;  // tried again when it has gone
      }
    }
  }

  void on_exit(unsigned number, const exit_status& status) {
    calls later;
    {
      std::lock_guard held(mutex_);
      const auto found = workers_.find(number);
      if (found == workers_.end()) return;
      worker gone = std::move(found->second);
      workers_.erase(found);
      for (auto& [key, each] : servers_) forget_user(each, number);
      for (auto& [seq, each] : gone.handoffs) take_back(std::move(each));
      if (options_.on_exit) later.emplace_back([this, number, status] { options_.on_exit(number, status); });
      if (gone.succeeds != 0 && workers_.contains(gone.succeeds)) workers_.at(gone.succeeds).succeeded = false;
      else if (!gone.succeeded) restart(later);
      if (counts_.gave_up && workers_.empty()) servers_.clear();  // nobody will ever serve there
    }
    tell(later);
  }

  void leave(unsigned number, worker& from) {
    if (leaves(number, from)) say(from, internal("disconnect"));
  }

  // False if that was known.
  bool leaves(unsigned number, worker& from) {
    if (std::exchange(from.leaving, true)) return false;
    for (auto& [key, each] : servers_) std::erase(each.free, number);
    end_in_time(from);
    return true;
  }

  void end_in_time(const worker& from) {
    auto timer = std::make_shared<boost::asio::steady_timer>(launch_.executor(), options_.patience);
    timer->async_wait([timer, process = from.process](boost::system::error_code code) {
      if (!code) kill_all_of(process);
    });
    from.process.async_wait([timer](boost::system::error_code, exit_status) { timer->cancel(); });
  }

  // --- sockets --------------------------------------------------------------------------------------------------------

  void query_server(unsigned number, const json& message) {
    if (!number_in(message, "seq")) return;
    const auto wanted = node::listening_request::from(message);
    std::unique_lock held(mutex_);
    const bool known = servers_.contains(wanted.key);
    held.unlock();
    const bool may = known || may_listen(wanted);
    held.lock();
    const auto found = workers_.find(number);
    // One that was told to leave while it started would wait for connections on a channel that it has closed.
    if (found != workers_.end() && !found->second.leaving) give_server(number, found->second, message, wanted, may);
  }

  // Without the lock: the application's word.
  bool may_listen(const node::listening_request& wanted) {
    try {
      return options_.may_listen(wanted.address, wanted.port);
    } catch (...) {
      pass_on(std::current_exception());
      return false;
    }
  }

  void give_server(unsigned number, worker& from, const json& message, const node::listening_request& wanted,
                   bool may) {
    json reply = {
        {"cmd", "NODE_CLUSTER"}, {"ack", message.at("seq")}, {"errno", 0}, {"key", wanted.key}, {"data", nullptr}};
    // What TLS servers agree on (keys of session tickets): the first worker's. One that is refused has its own back, or it
    // would throw for it.
    if (const auto data = message.find("data"); data != message.end()) reply["data"] = *data;
    const auto refuse = [&](int error) {
      reply["errno"] = -error;  // libuv's numbers
      say(from, reply);
    };
    auto found = servers_.find(wanted.key);
    if (found == servers_.end()) {
      if (servers_.size() >= servers_limit) return refuse(EMFILE);
      if (!may) return refuse(EACCES);
      server made;
      if (const int error = made.socket.open(wanted)) return refuse(error);
      found = servers_.emplace(wanted.key, std::move(made)).first;
    }
    server& at = found->second;
    if (at.data.is_null()) at.data = reply["data"];
    reply["data"] = at.data;
    if (wanted.datagrams || options_.schedule == schedule::shared) {
      try {
        say(from, reply, passed_handle::copy_of(at.socket.fd()),
            [number, reply](core& self) { self.refuse_full(number, reply); });
        at.users.insert(number);
      } catch (const std::system_error& e) {
        drop_unused(found->first, at);
        refuse(e.code().value());
      }
      return;
    }
    at.users.insert(number);
    if (!wanted.by_path) reply["sockname"] = at.socket.name();
    say(from, reply);
    free_for(found->first, at, number);
  }

  // A worker without a descriptor for its socket.
  void refuse_full(unsigned number, json reply) {
    const auto at = servers_.find(text_in(reply, "key"));
    if (at != servers_.end() && forget_user(at->second, number)) drop_unused(at->first, at->second);
    reply["errno"] = -EMFILE;
    if (const auto found = workers_.find(number); found != workers_.end()) say(found->second, std::move(reply));
  }

  // False if it was none.
  bool forget_user(server& at, unsigned number) {
    std::erase(at.free, number);
    return at.users.erase(number) > 0;
  }

  // A worker that leaves closes everything first, and says why when it has ended its connections. Until then, and until
  // its successor listens, nobody is refused.
  void drop_unused(const std::string& key, server& at) {
    if (!at.users.empty()) return;
    at.unused.emplace(launch_.executor(), std::max<std::chrono::nanoseconds>(options_.patience, kept_for_least));
    at.unused->async_wait(afterwards(key, [key](core& self, server& still) {
      if (self.awaits_workers()) self.drop_unused(key, still);
      else if (still.users.empty()) self.servers_.erase(key);
    }));
  }

  bool awaits_workers() const {
    const auto now = std::chrono::steady_clock::now();
    return std::any_of(workers_.begin(), workers_.end(), [&](const auto& entry) {
      const worker& each = entry.second;
      return each.leaving || (!each.listening && now - each.started < soon);
    });
  }

  void free_for(const std::string& key, server& at, unsigned number) {
    const auto found = workers_.find(number);
    if (found == workers_.end() || found->second.leaving || !at.users.contains(number)) return;
    if (!found->second.process.connected()) return;
    if (std::find(at.free.begin(), at.free.end(), number) == at.free.end()) at.free.push_back(number);
    pass(key, at);
  }

  // Connections to workers that are free, as long as there are both. Nothing is accepted before a worker is free.
  void pass(const std::string& key, server& at) {
    while (!at.free.empty()) {
      unique_fd connection;
      if (!at.waiting.empty()) {
        connection = std::move(at.waiting.front());
        at.waiting.pop_front();
      } else {
        connection.reset(::accept4(at.socket.fd(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
        if (!connection && (errno == ECONNABORTED || errno == EINTR)) continue;
        if (!connection && errno != EAGAIN) return pass_later(key, at);
        if (!connection) return watch(key, at);
      }
      const unsigned number = at.free.front();
      worker& to = workers_.at(number);
      try {
        passed_handle copy = passed_handle::copy_of(connection.get());
        at.free.pop_front();
        json message = internal("newconn");
        message["key"] = key;
        const auto seq = static_cast<std::int64_t>(to.last_sent + 1);
        to.handoffs[seq] = {key, std::move(connection)};
        say(to, std::move(message), std::move(copy), [number, seq](core& self) {  // it has no descriptor free
          if (const auto found = self.workers_.find(number); found != self.workers_.end())
            self.not_accepted(number, found->second, seq);
        });
      } catch (const std::system_error&) {  // no descriptor for a duplicate
        at.waiting.push_front(std::move(connection));
        return pass_later(key, at);
      }
    }
  }

  void watch(const std::string& key, server& at) {
    if (at.watching) return;
    if (!at.watch) try {
        unique_fd copy = at.socket.duplicate();
        at.watch.emplace(launch_.executor(), copy.get());
        copy.release();
      } catch (const std::exception&) {  // no descriptor for a duplicate
        return pass_later(key, at);
      }
    at.watching = true;
    at.watch->async_wait(stream_descriptor::wait_read, again(key));
  }

  void pass_later(const std::string& key, server& at) {
    if (std::exchange(at.watching, true)) return;
    at.again.emplace(launch_.executor(), short_of_descriptors);
    at.again->async_wait(again(key));
  }

  std::function<void(boost::system::error_code)> again(const std::string& key) {
    return afterwards(key, [key](core& self, server& at) {
      at.watching = false;
      self.pass(key, at);
    });
  }

  // After a wait: what is to be done with the server, if it is still there.
  template <class F>
  std::function<void(boost::system::error_code)> afterwards(const std::string& key, F what) {
    return [weak = weak_from_this(), key, what](boost::system::error_code code) {
      const auto self = weak.lock();
      if (!self || code) return;
      std::lock_guard held(self->mutex_);
      if (const auto found = self->servers_.find(key); found != self->servers_.end()) what(*self, found->second);
    };
  }

  void answered(unsigned number, worker& from, std::int64_t ack, const json& message) {
    const auto accepted = message.find("accepted");
    if (accepted == message.end() || *accepted != true) return not_accepted(number, from, ack);
    const auto done = from.handoffs.extract(ack);
    if (!done) return;
    ++counts_.passed;
    if (const auto at = servers_.find(done.mapped().key); at != servers_.end()) free_for(at->first, at->second, number);
  }

  void not_accepted(unsigned number, worker& from, std::int64_t seq) {
    auto back = from.handoffs.extract(seq);
    if (!back) return;
    free_later(back.mapped().key, number);
    take_back(std::move(back.mapped()));
  }

  // A worker that did not take a connection has closed this server, of which it tells; or has as many as it can for now.
  void free_later(const std::string& key, unsigned number) {
    auto timer = std::make_shared<boost::asio::steady_timer>(launch_.executor(), full_for);
    timer->async_wait(
        afterwards(key, [timer, key, number](core& self, server& at) { self.free_for(key, at, number); }));
  }

  void take_back(handoff what) {
    const auto at = servers_.find(what.key);
    if (at == servers_.end()) return;
    ++counts_.redistributed;
    at->second.waiting.push_back(std::move(what.connection));
    pass(at->first, at->second);
  }

  launcher& launch_;
  const std::shared_ptr<closer> closer_ = std::make_shared<closer>();
  const std::string script_;
  node_cluster_options options_;
  const unsigned count_ = options_.workers > 0 ? options_.workers : usable_cpus();
  std::mutex mutex_;
  supervision::restart_window restarts_;
  std::map<unsigned, worker> workers_;
  std::map<std::string, server> servers_;
  node_cluster_stats counts_;
  unsigned last_worker_ = 0;
  bool stopping_ = false;
};

node_cluster::node_cluster(launcher& with, const std::string& script, node_cluster_options options) {
  if (options.process.detached) throw std::invalid_argument("node_cluster: its workers can't be detached");
  core_ = std::make_shared<core>(with, script, std::move(options));
  try {
    core_->begin();
  } catch (...) {
    core_->stop();
    throw;
  }
}

node_cluster::~node_cluster() { stop(); }

bool node_cluster::send(unsigned worker, const json& message, passed_handle handle) {
  return core_->send(worker, message, std::move(handle));
}
void node_cluster::reload() { core_->reload(); }
void node_cluster::stop() { core_->stop(); }
node_cluster_stats node_cluster::stats() const { return core_->stats(); }

}  // namespace bulkhead
