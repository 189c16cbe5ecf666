// The plugins that a daemon serves, by name. Calls find theirs here and never wait; what takes time (loading, reloading,
// stopping) is done by one thread, beside them.
#pragma once

#include "config/config.hpp"
#include "log_book.hpp"
#include <bulkhead/metrics.hpp>

#include <condition_variable>
#include <shared_mutex>

namespace bulkhead::daemon {

class plugin_table {
 public:
  struct row {
    std::string name;
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
  // loaded does not keep the others from it: its old version goes on, or calls on it fail. How many failed.
  std::size_t become(const std::map<std::string, plugin_config>& wanted, std::chrono::nanoseconds drain);
  // Fresh workers, of the file as it is now. Throws call_error.
  void restart(const std::string& name);
  // Its calls may end for `drain`; later ones fail until restart().
  void stop(const std::string& name, std::chrono::nanoseconds drain);
  // Waits until no call is open, of any plugin. False: some still were at `deadline`.
  bool wait_idle(ipc::time_point deadline);

 private:
  struct entry;
  struct open_calls;
  class counting;
  using pointer = std::shared_ptr<entry>;

  pointer load(const plugin_config& from);
  pointer find(const std::string& name) const;
  void put(const std::string& name, pointer now);
  static void retire(const pointer& old, std::chrono::nanoseconds drain);
  void replace(const pointer& old, const plugin_config& with, std::chrono::nanoseconds drain);

  host& host_;
  log_book& log_;
  mutable std::shared_mutex mutex_;
  std::map<std::string, pointer> entries_;
  std::string refusing_;
};

}  // namespace bulkhead::daemon
