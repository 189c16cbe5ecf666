// How far the job is, on stderr: one line that is redrawn on a terminal, and a line now and then elsewhere.
#pragma once

#include <chrono>
#include <mutex>
#include <string>

namespace thumbnailer {

class progress {
 public:
  explicit progress(std::size_t files);
  ~progress() { clear(); }

  // One more file is done. Any thread.
  void file_done(bool failed);
  // Something else is going on: "measuring".
  void note(const std::string& text);
  void clear();

 private:
  void show(const std::string& line);

  const std::size_t files_;
  const bool terminal_;
  std::mutex mutex_;
  std::size_t done_ = 0, failed_ = 0;
  std::chrono::steady_clock::time_point shown_{};
  bool drawn_ = false;
};

}  // namespace thumbnailer
