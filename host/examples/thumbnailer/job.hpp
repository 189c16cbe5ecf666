// The job: thumbnails of many files by plugins, each file one call or two. What a file is made of decides the plugin:
// Netpbm files go through the fragile decoder first, everything else straight to the image plugin.
#pragma once

#include <bulkhead/host.hpp>

#include <filesystem>
#include <string>
#include <vector>

namespace thumbnailer {

struct options {
  std::filesystem::path plugins;      // the folder with image.so and fragile.so
  unsigned workers = 1;
  unsigned max_side = 256;
  std::chrono::milliseconds deadline{10'000};
  bulkhead::isolation isolation = bulkhead::isolation::process;
};

struct result {
  std::filesystem::path file;
  std::uintmax_t file_size = 0;
  bulkhead::outcome outcome = bulkhead::outcome::ok;
  bulkhead::bytes thumbnail;          // a JPEG, when ok
  std::string method;                 // of the plugin that failed
  std::string message;
  std::shared_ptr<const bulkhead::crash_report> report;
};

// All image files below a folder, sorted.
std::vector<std::filesystem::path> find_images(const std::filesystem::path& folder);

// Loads the plugins once; run() may be called again and again.
class job {
 public:
  explicit job(const options& options);

  // Results in the order of `files`. `on_done` is called after each file, one at a time.
  std::vector<result> run(const std::vector<std::filesystem::path>& files, const std::function<void(const result&)>& on_done);

  // Workers that died so far.
  unsigned crashes() const { return *crashes_; }

 private:

  const options options_;
  std::shared_ptr<std::atomic<unsigned>> crashes_ = std::make_shared<std::atomic<unsigned>>(0);
  bulkhead::host host_;
  std::vector<bulkhead::plugin> image_, fragile_;  // one of each, or one per thread when they run in this process
};

}  // namespace thumbnailer
