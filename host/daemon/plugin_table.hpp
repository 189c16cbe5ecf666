// The plugins that a daemon serves, by name. Calls find theirs here and never wait; what takes time (loading, reloading,
// stopping) is done by one thread, beside them.
#pragma once

#include "config/config.hpp"
#include "log_book.hpp"
#include <bulkhead/metrics.hpp>

#include <condition_variable>
#include <set>
#include <shared_mutex>

namespace bulkhead::daemon {

class plugin_table {
 public:
  struct row {
    std::string name;
    std::string group;   // empty: none
    std::string state;   // as plugin_status has it; or "failed", "stopped"
    std::string reason;  // why calls fail, if they do
    std::string file;
    plugin_metrics metrics;
    std::vector<worker_info> workers;
    std::vector<method_info> methods;
  };

  plugin_table(host& host, log_book& log) : host_(host), log_(log) {}

  // `method` is "plugin.method". Never blocks. Any thread. `onward` and what it gives back: as in service::call().
  std::shared_ptr<ipc::stream> call(std::string_view method, packed_arguments arguments, const call_options& options,
                                    std::unique_ptr<reply_handler> handler, std::shared_ptr<ipc::stream::link> onward);
  std::vector<row> rows() const;
  // Takes each lock that a call takes: returns unless something hangs.
  void check_alive() const;
  // Calls are refused from now on.
  void refuse_calls(const std::string& why);

  // --- these block; one thread at a time ---
  // Loads what is new in `wanted`, replaces what has changed, and drains what is there no more. A plugin that can't be
  // loaded does not keep the others from it: its old version goes on, or calls on it fail. The same with a group, as a
  // whole: it is loaded beside its old version, and takes its place when all of it is there. How many failed.
  std::size_t become(const config& wanted);
  // Fresh workers, of the file as it is now; for the whole group if that is what keeps it from running. Throws call_error.
  void restart(const std::string& name);
  // Its calls may end for `drain`; later ones fail until restart().
  void stop(const std::string& name, std::chrono::nanoseconds drain);
  // Waits until no call is open, of any plugin. False: some still were at `deadline`.
  bool wait_idle(ipc::time_point deadline);

 private:
  struct entry;
  struct unit;
  struct open_calls;
  class counting;
  using pointer = std::shared_ptr<entry>;

  pointer find(const std::string& name) const;
  void put(const std::string& name, pointer now);
  std::vector<pointer> all() const;
  std::vector<pointer> load(const std::shared_ptr<const unit>& next);
  void reload(const pointer& old, const std::shared_ptr<const unit>& next, const plugin_config& with);
  void replace(const std::shared_ptr<const unit>& next, const std::vector<pointer>& gone,
               std::chrono::nanoseconds drain);
  void update(const std::shared_ptr<const unit>& next, const std::vector<pointer>& gone,
              const std::set<std::string>& kept, std::chrono::nanoseconds drain);
  bool serves(const unit& of) const;
  static void retire(std::vector<pointer> old, std::chrono::nanoseconds drain);

  host& host_;
  log_book& log_;
  mutable std::shared_mutex mutex_;
  std::map<std::string, pointer> entries_;
  std::string refusing_;
  std::uint64_t loaded_ = 0;
};

}  // namespace bulkhead::daemon
