// Writes crash reports to files, on a thread of its own that starts with the first crash: neither the callers of a
// crashed worker nor its replacement wait for the symbols and the disk.
#pragma once

#include <bulkhead/crash_report.hpp>

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

namespace bulkhead {

class host_core;

class crash_writer {
 public:
  // No directory: nothing is written.
  crash_writer(std::filesystem::path directory, std::size_t limit) : directory_(std::move(directory)), limit_(limit) {}

  // Any thread; does not block. Reports of workers that were shut down are passed over.
  void take(const std::shared_ptr<host_core>& core, std::shared_ptr<const crash_report> report);
  // Writes what is left, without symbols when that takes long, and ends the thread. Not from that thread.
  void finish();

 private:
  void run(const std::weak_ptr<host_core>& core);

  const std::filesystem::path directory_;
  const std::size_t limit_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::shared_ptr<const crash_report>> waiting_;
  std::size_t lost_ = 0;
  bool finished_ = false;
  std::chrono::steady_clock::time_point hurry_ = std::chrono::steady_clock::time_point::max();
  std::thread thread_;
};

}  // namespace bulkhead
