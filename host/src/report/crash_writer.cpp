// See crash_writer.hpp.
#include "report/crash_writer.hpp"

#include "host_core.hpp"
#include "report/symbolize.hpp"
#include "signals_blocked.hpp"

namespace bulkhead {
namespace {

constexpr std::size_t waiting_limit = 32;
constexpr std::chrono::seconds patience{3};  // once the host shuts down

}  // namespace

void crash_writer::take(const std::shared_ptr<host_core>& core, std::shared_ptr<const crash_report> report) {
  if (directory_.empty() || report->reason == exit_reason::shut_down) return;
  std::lock_guard held(mutex_);
  if (finished_) return;
  if (waiting_.size() >= waiting_limit) {
    ++lost_;
    return;
  }
  waiting_.push_back(std::move(report));
  try {
    const signals_blocked guard;
    if (!thread_.joinable()) thread_ = std::thread([this, weak = std::weak_ptr(core)] { run(weak); });
  } catch (const std::system_error&) {  // no thread is to be had; the next crash tries again
    waiting_.pop_back();
    ++lost_;
  }
  changed_.notify_all();
}

void crash_writer::finish() {
  {
    std::lock_guard held(mutex_);
    finished_ = true;
    hurry_ = std::chrono::steady_clock::now() + patience;
    changed_.notify_all();
  }
  if (thread_.joinable()) thread_.join();
}

void crash_writer::run(const std::weak_ptr<host_core>& weak) {
  std::unique_lock held(mutex_);
  for (;;) {
    changed_.wait(held, [this] { return finished_ || !waiting_.empty(); });
    if (waiting_.empty()) return;
    const auto core = weak.lock();
    if (!core) return;
    const auto report = std::move(waiting_.front());
    waiting_.pop_front();
    const std::size_t lost = std::exchange(lost_, 0);
    const bool in_time = std::chrono::steady_clock::now() < hurry_;
    held.unlock();
    if (lost)
      core->log({log_level::error, report->plugin, -1,
                 std::to_string(lost) + " crashes have no report in " + directory_.string() + ": they came too fast",
                 0});
    crash_report full = *report;
    if (in_time) symbolize(core, full);
    try {
      write_crash_report(directory_, full, limit_);
    } catch (const std::exception& e) {
      core->log({log_level::error, full.plugin, full.pid,
                 std::string("its crash report could not be written: ") + e.what(), 0});
    }
    held.lock();
  }
}

}  // namespace bulkhead
