// See progress.hpp.
#include "progress.hpp"

#include <fmt/format.h>

#include <unistd.h>

namespace thumbnailer {
namespace {

constexpr auto redraw_interval = std::chrono::milliseconds(50);
constexpr auto line_interval = std::chrono::seconds(2);
constexpr std::size_t bar_width = 32;

}  // namespace

progress::progress(std::size_t files) : files_(files), terminal_(::isatty(STDERR_FILENO) == 1) {}

void progress::file_done(bool failed) {
  const std::lock_guard held(mutex_);
  ++done_;
  failed_ += failed;
  const auto now = std::chrono::steady_clock::now();
  if (shown_ == std::chrono::steady_clock::time_point{} && !terminal_) shown_ = now;  // the first line can wait
  if (now - shown_ < (terminal_ ? std::chrono::steady_clock::duration(redraw_interval) : line_interval) &&
      done_ < files_)
    return;
  if (!terminal_ && done_ == files_) return;  // the summary says it
  shown_ = now;
  const std::string failures = failed_ > 0 ? fmt::format(", {} failed", failed_) : "";
  if (terminal_) {
    const std::size_t filled = done_ * bar_width / files_;
    std::string bar;
    for (std::size_t i = 0; i < bar_width; ++i) bar += i < filled ? "█" : "░";
    show(fmt::format("{} {} of {} files{}", bar, done_, files_, failures));
  } else {
    fmt::print(stderr, "{} of {} files{}\n", done_, files_, failures);
  }
}

void progress::note(const std::string& text) {
  const std::lock_guard held(mutex_);
  if (terminal_) show(text + " ...");
}

void progress::show(const std::string& line) {
  fmt::print(stderr, "\r{}\x1b[K", line);
  drawn_ = true;
}

void progress::clear() {
  const std::lock_guard held(mutex_);
  if (drawn_) fmt::print(stderr, "\r\x1b[K");
  drawn_ = false;
}

}  // namespace thumbnailer
