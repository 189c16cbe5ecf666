// What the sandbox of a child denies, as its process server reports it.
#include "process/child_core.hpp"
#include "sandbox/violation_text.hpp"

namespace bulkhead {
namespace {

constexpr std::size_t report_buffer = 8192, violations_kept = 1000;

}  // namespace

void child_core::watch_reports(unique_fd reports) {
  reports_.emplace(strand_, reports.get());
  reports.release();
  reports_->non_blocking(true);
  report_bytes_.resize(report_buffer);
  boost::asio::post(strand_, [self = shared_from_this()] { self->read_reports(); });
}

// From the process server, which cuts and limits them; what a child made it name is hostile all the same.
void child_core::read_reports() {
  if (!reports_) return;
  for (;;) {
    boost::system::error_code code;
    const std::size_t count = reports_->read_some(boost::asio::buffer(report_bytes_), code);
    if (code == boost::asio::error::would_block) break;
    if (code) return reports_.reset();
    for (std::size_t i = 0; i < count; ++i) {
      if (report_bytes_[i] != '\n') {
        if (report_line_.size() < report_buffer) report_line_.push_back(report_bytes_[i]);
        continue;
      }
      std::lock_guard held(mutex_);
      if (auto what = sandbox::parse_report(report_line_); what && violations_.size() < violations_kept)
        violations_.push_back(std::move(*what));
      report_line_.clear();
    }
  }
  reports_->async_wait(boost::asio::posix::stream_descriptor::wait_read,
                       [weak = weak_from_this()](boost::system::error_code code) {
                         if (const auto self = weak.lock(); self && !code) self->read_reports();
                       });
}

std::vector<violation> child_core::violations() {
  std::lock_guard held(mutex_);
  return violations_;
}

}  // namespace bulkhead
