// For tests of a plugin: loads it in one line, into a sandboxed worker or into the test itself, and brings about what is
// rare otherwise. Works with any test framework; link bulkhead::host.
//
//   bulkhead::test::plugin stats("stats.so");
//   CHECK(stats->call<double>("mean", std::vector<double>{1, 2, 6}) == 3);
//   CHECK(stats.misuses().empty());
//
//   bulkhead::test::plugin slow("stats.so", bulkhead::test::in_process().slow_host(1ms).cancel_at(3));
#pragma once

#include <bulkhead/host.hpp>

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace bulkhead::test {

// How a plugin is loaded, and what goes wrong for it. A plain value; each function gives back the same object.
class options {
 public:
  // In the test's own process: a debugger and a sanitizer see it, and a crash ends the test. Otherwise in a worker.
  options& in_process() { return load_.isolation = isolation::none, *this; }
  // Each use that a call makes of its host (log, progress, cancelled, calls to the application, items of streams, ...)
  // takes so much longer.
  options& slow_host(std::chrono::microseconds by) { return slow_ = by, *this; }
  // Each call finds itself cancelled at its N-th use of the host, from 1, and ever after. The caller has not cancelled it:
  // what it gets is what the plugin answers.
  options& cancel_at(unsigned step) { return cancel_at_ = step, *this; }
  // Lends the plugin a function of the application; `failing` has it fail.
  template <class F>
  options& lend(const std::string& name, F function) {
    load_.functions.add(name, faulty(name, std::move(function), static_cast<parameters_of<F>*>(nullptr)));
    return *this;
  }
  // That function fails from its `from`-th call on, `count` times.
  options& failing(const std::string& name, unsigned from = 1, unsigned count = ~0u) {
    std::lock_guard held(faults_->mutex);
    faults_->of[name] = {from, count};
    return *this;
  }
  // A function of the host's own fails from its `from`-th use on: "create_blob" (there is no memory), "emit" (nobody hears
  // it), "call_host" (the host is overloaded) or "take_handle" (there is no such descriptor).
  options& failing_host(const std::string& function, unsigned from = 1) {
    failing_ += ",fail=" + function + "@" + std::to_string(from);
    return *this;
  }
  // All else: deadline, memory limit, policy, environment, ... The policy is strict unless it is set here.
  options& with(const std::function<void(load_options&)>& change) { return change(load_), *this; }

 private:
  friend class plugin;
  template <class F>
  using parameters_of = typename typed::function_traits<F>::parameters;
  struct fault {
    unsigned from = 0, count = 0;
    unsigned calls = 0;
  };
  struct fault_book {
    std::mutex mutex;
    std::map<std::string, fault> of;
    void step(const std::string& name) {
      std::lock_guard held(mutex);
      const auto found = of.find(name);
      if (found == of.end()) return;
      const unsigned call = ++found->second.calls;
      if (call >= found->second.from && call - found->second.from < found->second.count)
        throw std::runtime_error("'" + name + "' fails because the test wants it to");
    }
  };
  template <class F, class... P>
  auto faulty(const std::string& name, F function, std::tuple<P...>*) const {
    return [name, function = std::move(function), faults = faults_](P... arguments) mutable {
      faults->step(name);
      return function(std::forward<P>(arguments)...);
    };
  }

  load_options load_{};
  unsigned cancel_at_ = 0;
  std::chrono::microseconds slow_{0};
  std::string failing_;
  std::shared_ptr<fault_book> faults_ = std::make_shared<fault_book>();
};

// How a plugin is loaded in a test: in a worker, sandboxed as in an application.
inline options isolated() { return {}; }
// The same, in the test's own process: for debuggers and sanitizers.
inline options in_process() { return options{}.in_process(); }

// A loaded plugin with a host of its own. Any thread, but for what it says otherwise.
class plugin {
 public:
  // `file` as it is if it exists, else beside the test's program and in ../plugins from there. Throws call_error when it
  // can't be loaded, std::invalid_argument when it is not found.
  explicit plugin(const std::string& file, const options& with = {}) : faults_(with.faults_) {
    host_options for_host;
    for_host.on_log = [seen = seen_](const log_record& line) {
      std::lock_guard held(seen->mutex);
      if (line.text.starts_with("misuse: ")) seen->misuses.push_back(line.text.substr(8));
      else if (!line.text.starts_with("instrument: ")) seen->log.push_back(line.text);
    };
    load_options load = with.load_;
    load.environment.push_back("BULKHEAD_INSTRUMENT=cancel_at=" + std::to_string(with.cancel_at_) +
                               ",slow_us=" + std::to_string(with.slow_.count()) + with.failing_);
    host_ = std::make_unique<host>(for_host);
    loaded_ = host_->load(found(file), load);
  }
  ~plugin() { end(); }
  plugin(const plugin&) = delete;
  plugin& operator=(const plugin&) = delete;

  // What can be done with any plugin: call, try_call, open, with, describe, on_event, reload, ...
  const bulkhead::plugin* operator->() const { return &loaded_; }
  // The same.
  const bulkhead::plugin& operator*() const { return loaded_; }

  // Unloads the plugin, destroy() included, and gives the rules of bulkhead/plugin.h that it broke: answers given twice,
  // uses of a call that is over, threads that outlive it, values that are none. Blocks for some seconds at most. Not while
  // other threads call.
  std::vector<std::string> misuses() {
    end();
    std::lock_guard held(seen_->mutex);
    return seen_->misuses;
  }
  // What it has logged so far; all of it once misuses() was asked.
  std::vector<std::string> log() const {
    std::lock_guard held(seen_->mutex);
    return seen_->log;
  }

 private:
  struct seen {
    std::mutex mutex;
    std::vector<std::string> misuses, log;
  };

  static std::filesystem::path found(const std::string& file) {
    std::error_code ignored;
    const auto program = std::filesystem::read_symlink("/proc/self/exe", ignored).parent_path();
    std::string searched;
    for (const auto& each : {std::filesystem::path(file), program / file, program / "../plugins" / file}) {
      if (std::filesystem::exists(each, ignored)) return std::filesystem::canonical(each);
      searched += "\n  " + each.string();
    }
    throw std::invalid_argument("there is no plugin " + file + "; searched:" + searched);
  }

  void end() {
    if (!host_) return;
    loaded_.unload();
    host_.reset();  // whatever it has logged has come then
  }

  std::shared_ptr<options::fault_book> faults_;
  std::shared_ptr<seen> seen_ = std::make_shared<seen>();
  std::unique_ptr<host> host_;
  bulkhead::plugin loaded_;
};

// Makes a call once for each step at which it can be cancelled: `call(plugin, step)` makes it, with a plugin of its own,
// and says whether it got done in spite of that. Gives the number of steps, or throws std::runtime_error when it does not
// get done within `limit` steps.
template <class Call>
unsigned cancelled_at_each_step(const std::string& file, options with, Call call, unsigned limit = 1000) {
  for (unsigned step = 1; step <= limit; ++step) {
    plugin under(file, with.cancel_at(step));
    if (call(under, step)) return step - 1;
  }
  throw std::runtime_error("it is not done within " + std::to_string(limit) + " steps");
}

}  // namespace bulkhead::test
