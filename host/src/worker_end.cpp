// How a worker comes to an end, and what is made of it: one report, and an outcome for each call that it leaves. See
// worker_process.hpp.
#include "report/black_box_copy.hpp"
#include "sandbox/violation_text.hpp"
#include "worker_process.hpp"

#include <csignal>

#include <poll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

namespace bulkhead {
namespace {

constexpr std::chrono::milliseconds look_again{100};  // at whether it was abandoned meanwhile

bool readable_within(int fd, ipc::time_point deadline) {
  for (;;) {
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - ipc::clock::now()).count();
    pollfd poll{fd, POLLIN, 0};
    const int n = ::poll(&poll, 1, static_cast<int>(std::clamp<std::int64_t>(left, 0, 1000)));
    if (n > 0) return true;
    if (n == 0 && left <= 0) return false;
  }
}

// Of the call that a worker died for, by its own signal handler's last word.
std::string arguments_of(const std::string& system_call, std::string_view log_tail) {
  const std::size_t last = log_tail.rfind(sandbox::violation_mark);
  if (last == std::string_view::npos) return "";
  const auto denied = sandbox::parse_violation(log_tail.substr(last, log_tail.find('\n', last) - last));
  return denied && denied->result == "killed" && denied->system_call == system_call ? denied->arguments : "";
}

}  // namespace

void worker_process::kill(exit_reason reason, const std::string& why) {
  {
    std::lock_guard held(mutex_);
    const bool first = condemned_ == exit_reason::unknown;
    if (first) condemned_ = reason;
    if (pidfd_) ::syscall(SYS_pidfd_send_signal, pidfd_.get(), SIGKILL, nullptr, 0);
    if (first && !why.empty()) why_ = why;
  }
}

// For a caller's own thread: waits for the process to end, helping it along, and settles. True when that is done.
bool worker_process::await_exit(ipc::time_point deadline) {
  const ipc::time_point patience = std::min(deadline, ipc::clock::now() + exit_after_close);
  if (!has_ended(patience)) {
    if (ipc::clock::now() >= deadline) return false;
    kill(exit_reason::closed);
    while (!has_ended(std::min(deadline, ipc::clock::now() + look_again)))
      if (abandoned_ || ipc::clock::now() >= deadline) return false;
  }
  settle();
  std::unique_lock held(mutex_);
  const auto done = [this] { return is_settled_; };
  if (deadline == ipc::never) settled_.wait(held, done);
  else settled_.wait_until(held, deadline, done);
  return is_settled_;
}

// Waits until then for its end to be told: by the kernel, or of a program by its parent, the fork server.
bool worker_process::has_ended(ipc::time_point deadline) {
  if (end_pipe_) {
    if (!readable_within(end_pipe_.get(), deadline)) return false;
    int told = 0;
    ::ioctl(end_pipe_.get(), FIONREAD, &told);
    if (told > 0) return true;  // else the fork server has died, and nobody will tell
  }
  return readable_within(pidfd_.get(), deadline);
}

void worker_process::abandon() {
  // The word of its end may have been lost, where there was no memory or watch for it.
  if (has_ended(ipc::clock::now())) return settle();
  abandoned_ = true;
  const std::string what = "plugin " + settings_->name + ": the worker was killed, and does not end";
  channel_.fail_all([&](const ipc::channel::open_call& call) {
    return ipc::completion::failed(call.written ? outcome::worker_lost : outcome::not_sent, what);
  });
  channel_.shutdown();  // whoever reads it looks up
}

void worker_process::settle() {
  // All that it sent before it died counts. If another thread is reading, on_closed() sees to it that this goes on.
  exited_ = true;
  channel_.shutdown();
  for (int i = 0; i < 64 && !channel_.closed(); ++i) channel_.poll();
  {
    std::lock_guard held(mutex_);
    if (!channel_.closed() || settling_) return;
    settling_ = true;
  }
  const black_box_copy box(black_box_.get());
  read_log(true);
  read_reports(true);
  auto report = std::make_shared<const crash_report>(make_report(box));
  bool rejected = false;
  {
    std::lock_guard held(mutex_);
    report_ = report;
    rejected = no_plugin_;
    if (report->reason != exit_reason::hung) fatal_call_.reset();
    if (box.in_call && report->reason != exit_reason::hung && report->reason != exit_reason::shut_down)
      fatal_call_ = box.call;
  }
  dead_ = true;
  const bool calls_pending =
      channel_.fail_all([&](const ipc::channel::open_call& call) { return verdict(call, *report, box.begun); });
  // No caller waits for these two, but whoever is told of the end may shut the host down: by then its report is taken, and
  // what it has started and left behind has ended.
  if (!settings_->internal && !rejected) core_->crashes.take(core_, report);
  cgroup_.reset();
  {
    std::lock_guard held(mutex_);
    is_settled_ = true;
  }
  if (const auto owner = owner_.lock()) owner->on_exited(id_, {report, rejected, calls_pending});
  // Nobody waits for what it held, and a successor may have its calls by now.
  blobs_->end();
  stop_watching();
  settled_.notify_all();
}

struct worker_process::ending_status {
  bool known = false, exited = false;
  int status = 0;  // or the signal
  std::chrono::microseconds cpu_time{0};
  std::uint64_t peak_memory = 0;
};

worker_process::ending_status worker_process::status_of_end() {
  ending_status out;
  if (end_pipe_) {
    fork_server::end how;
    if (::read(end_pipe_.get(), &how, sizeof how) != static_cast<ssize_t>(sizeof how)) return out;
    out.known = true;
    out.exited = WIFEXITED(how.status);
    out.status = out.exited ? WEXITSTATUS(how.status) : WTERMSIG(how.status);
    out.cpu_time = std::chrono::microseconds(how.cpu_us);
    out.peak_memory = static_cast<std::uint64_t>(how.max_resident);
    return out;
  }
  siginfo_t info{};
  rusage used{};  // which the C library's waitid() leaves out
  out.known =
      ::syscall(SYS_waitid, P_PIDFD, pidfd_.get(), &info, WEXITED | __WALL | WNOHANG, &used) == 0 && info.si_pid;
  out.exited = info.si_code == CLD_EXITED;
  out.status = info.si_status;
  for (const timeval& each : {used.ru_utime, used.ru_stime})
    out.cpu_time += std::chrono::seconds(each.tv_sec) + std::chrono::microseconds(each.tv_usec);
  out.peak_memory = static_cast<std::uint64_t>(used.ru_maxrss) << 10;
  return out;
}

crash_report worker_process::make_report(const black_box_copy& box) {
  crash_report report;
  report.plugin = settings_->name;
  report.file = settings_->file;
  report.sha256 = settings_->sha256;
  report.policy = settings_->rules.text_without_environment();
  report.time = std::chrono::system_clock::now();
  report.pid = pid_;
  report.phase = settings_->argv.empty() ? box.reached : ready_ ? phase::ready : phase::hello;
  if (box.in_call) {
    report.phase = phase::call;
    report.method = box.method;
    if (auto kept = kept_.find(box.call); !kept.method.empty()) {
      report.method = std::move(kept.method);
      report.request = std::move(kept.arguments);
    }
  }
  report.log_tail = log_->tail();
  const auto [known, exited, status, cpu_time, peak_memory] = status_of_end();
  is_reaped_ = known;
  report.cpu_time = cpu_time;
  report.peak_memory = peak_memory;
  const bool killed_by_kill = known && !exited && status == SIGKILL;

  std::lock_guard held(mutex_);
  report.message = !why_.empty() ? why_ : box.message;
  if (box.recorded && !(condemned_ == exit_reason::protocol)) {
    report.reason = box.out_of_memory ? exit_reason::out_of_memory : exit_reason::signalled;
    report.signal = box.signal;
    report.signal_code = box.code;
    report.fault_address = box.fault_address;
    report.stack = box.stack.frames;
    report.frames_omitted = box.stack.omitted;
    report.instruction_pointer = box.stack.instruction_pointer;
    report.stack_pointer = box.stack.stack_pointer;
    report.image = image_;
    for (stack_frame& each : report.stack) {
      if (each.origin == code_origin::plugin) each.module = settings_->file;
      if (each.origin == code_origin::worker) each.module = core_->forks.program();
    }
  } else if (condemned_ != exit_reason::unknown && (killed_by_kill || !known || condemned_ == exit_reason::protocol)) {
    report.reason = condemned_;
    report.signal = SIGKILL;
  } else if (!known) {
    report.reason = exit_reason::unknown;
  } else if (exited) {
    report.reason = leaving_ && status == 0 ? exit_reason::shut_down : exit_reason::exited;
    report.exit_code = status;
  } else {
    report.reason = exit_reason::signalled;
    report.signal = status;
  }
  if (report.signal == SIGKILL && report.reason == exit_reason::signalled && cgroup_ && cgroup_->ran_out_of_memory())
    report.reason = exit_reason::out_of_memory;
  if (report.reason == exit_reason::signalled && report.signal == SIGSYS) report.reason = exit_reason::violation;
  if (report.reason == exit_reason::violation && box.recorded && box.code > 0) {
    report.system_call = sandbox::system_call_name(box.system_call_arch, box.system_call);
    report.system_call_number = box.system_call;
    report.system_call_arguments = arguments_of(report.system_call, report.log_tail);
  } else if (report.reason == exit_reason::violation) {
    report.system_call = killed_for_.system_call;
    report.system_call_number = killed_for_.system_call_number;
    report.system_call_arguments = killed_for_.arguments;
  }
  return report;
}

ipc::completion worker_process::verdict(const ipc::channel::open_call& call, const crash_report& report,
                                        std::uint64_t begun) const {
  const std::string what = "plugin " + settings_->name + ": the worker " + report.summary();
  if (report.reason == exit_reason::protocol) return ipc::completion::failed(outcome::protocol, what);
  if (!ready_) return ipc::completion::failed(outcome::unavailable, what);
  // The worker counts the calls it takes up, in the order in which they were sent. A call past that count has not begun.
  if (!call.written || (settings_->argv.empty() && call.sequence > begun))
    return ipc::completion::failed(outcome::not_sent, what);
  return ipc::completion::failed(outcome::worker_lost, what);
}

}  // namespace bulkhead
