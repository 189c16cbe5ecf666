// A worker's stdout and stderr as log records: split into lines, cut, sanitised, limited in rate, and read at a bounded
// pace, so that a flood costs the worker its time and not the host's.
#pragma once

#include <bulkhead/host.hpp>

#include <deque>
#include <mutex>

namespace bulkhead {

// Pure: bytes and times in, records out. Thread-safe.
class log_stream {
 public:
  static constexpr std::size_t line_limit = 4096;            // bytes
  static constexpr std::size_t bytes_per_second = 64 << 10;  // of text handed on; also the burst
  static constexpr std::size_t tail_limit = 4096;            // bytes kept for a crash report

  using sink = std::function<void(log_level, std::string text, std::uint64_t dropped)>;
  explicit log_stream(sink sink) : sink_(std::move(sink)) {}

  // Raw output; lines may come in pieces.
  void feed(std::string_view bytes, ipc::time_point now);
  // The end of the output: hands on a last line without a newline, and how many lines were dropped since the last one.
  void finish(ipc::time_point now);
  // A record of its own; one for each line of `text`.
  void record(log_level level, std::string_view text, ipc::time_point now);

  std::string tail() const;
  std::uint64_t dropped() const;

 private:
  void line(log_level level, std::string_view text, ipc::time_point now);

  mutable std::mutex mutex_;
  sink sink_;
  std::string partial_;
  bool cut_ = false;  // the rest of an overlong line is being skipped
  double allowance_ = static_cast<double>(bytes_per_second);
  ipc::time_point refilled_{};
  std::uint64_t dropped_ = 0, dropped_total_ = 0;
  std::deque<std::string> tail_;
  std::size_t tail_size_ = 0;
};

}  // namespace bulkhead
