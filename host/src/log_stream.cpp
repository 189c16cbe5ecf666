// See log_stream.hpp.
#include "log_stream.hpp"

#include <algorithm>

namespace bulkhead {

void log_stream::feed(std::string_view bytes, ipc::time_point now) {
  std::lock_guard held(mutex_);
  while (!bytes.empty()) {
    const std::size_t newline = bytes.find('\n');
    const std::string_view piece = bytes.substr(0, newline);
    if (!cut_) {
      partial_.append(piece.substr(0, line_limit + 1 - std::min(partial_.size(), line_limit + 1)));
      if (partial_.size() > line_limit) {
        line(log_level::info, partial_, now);  // cut by sanitised(), with dots
        partial_.clear();
        cut_ = true;
      }
    }
    if (newline == std::string_view::npos) return;
    if (!cut_) line(log_level::info, partial_, now);
    partial_.clear();
    cut_ = false;
    bytes.remove_prefix(newline + 1);
  }
}

void log_stream::finish(ipc::time_point now) {
  std::lock_guard held(mutex_);
  if (!partial_.empty()) line(log_level::info, partial_, now);
  partial_.clear();
  // No line will come that could tell of what was dropped.
  constexpr const char* lost = "the last lines of its output were too many and were dropped";
  if (dropped_ > 0 && sink_) sink_(log_level::warning, lost, std::exchange(dropped_, 0));
}

void log_stream::record(log_level level, std::string_view text, ipc::time_point now) {
  std::lock_guard held(mutex_);
  // A newline in the text must not make one record pass for several, so that each line becomes a record.
  for (;;) {
    const std::size_t newline = text.find('\n');
    line(level, text.substr(0, newline), now);
    if (newline == std::string_view::npos || newline + 1 == text.size()) return;
    text.remove_prefix(newline + 1);
    if (dropped_ == 0) continue;
    // The allowance is used up: the rest goes the same way, and is not worth more than counting.
    const auto rest = static_cast<std::uint64_t>(std::count(text.begin(), text.end(), '\n') + (text.back() != '\n'));
    dropped_ += rest;
    dropped_total_ += rest;
    return;
  }
}

void log_stream::line(log_level level, std::string_view text, ipc::time_point now) {
  if (text.ends_with('\r') && text.size() <= line_limit) text.remove_suffix(1);  // CRLF; an overlong line is cut anyway
  std::string clean = ipc::sanitised(text, line_limit);
  tail_size_ += clean.size() + 1;
  tail_.push_back(clean);
  while (tail_size_ > tail_limit && tail_.size() > 1) {
    tail_size_ -= tail_.front().size() + 1;
    tail_.pop_front();
  }
  const double elapsed = std::chrono::duration<double>(now - refilled_).count();
  allowance_ = std::min(static_cast<double>(bytes_per_second), allowance_ + elapsed * bytes_per_second);
  refilled_ = now;
  const auto cost = static_cast<double>(clean.size() + 1);
  if (cost > allowance_) {
    ++dropped_;
    ++dropped_total_;
    return;
  }
  allowance_ -= cost;
  if (sink_) sink_(level, std::move(clean), std::exchange(dropped_, 0));
}

std::string log_stream::tail() const {
  std::lock_guard held(mutex_);
  std::string text;
  for (const std::string& line : tail_) text += line + "\n";
  return text;
}

std::uint64_t log_stream::dropped() const {
  std::lock_guard held(mutex_);
  return dropped_total_;
}

}  // namespace bulkhead
