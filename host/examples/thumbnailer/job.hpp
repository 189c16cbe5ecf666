// The job: a thumbnail of each file, made by plugins. A fixed number of seats works through the files, one file at a
// time each, so however many files there are, only so many are in memory. No thread waits for a worker: a seat goes on
// when the completion handler of its call runs, on the host's handler threads.
#pragma once

#include "files.hpp"
#include <bulkhead/host.hpp>

#include <atomic>
#include <condition_variable>
#include <functional>
#include <mutex>

namespace thumbnailer {

// The plugins that make a thumbnail. Whether they run in workers or in this process makes no difference here.
struct toolset {
  bulkhead::plugin image;
  bulkhead::plugin fragile;  // needed for Netpbm files only
};

struct result {
  bulkhead::outcome outcome = bulkhead::outcome::ok;
  std::string method;   // the last one called: "image.thumbnail"; empty when the file did not get that far
  std::string message;  // why it failed; text from a plugin, sanitised
  std::shared_ptr<const bulkhead::crash_report> report;  // when a worker died of this file
  unsigned width = 0, height = 0;                        // of the image, as the plugin says; 0: not known
};

class job {
 public:
  struct options {
    unsigned max_side = 256;
    bool ask_dimensions = true;  // one more call for each file
    // Longer ones go by shared memory, of which a plugin has so much for its calls.
    std::size_t file_limit = bulkhead::blob_options{}.memory;
    // Called once for each file, from several threads at once, with its place in `files` and its thumbnail. Must not
    // throw.
    std::function<void(std::size_t, const result&, bulkhead::bytes_view)> on_done;
  };

  // One seat for each of `seats`; `files` must outlive the job.
  job(const std::vector<image_file>& files, std::vector<toolset> seats, options options);

  // Does all files; returns how many failed. Once.
  std::size_t run();

 private:
  struct seat {
    toolset tools;
    std::size_t index = 0;
    int attempts = 0;
    bulkhead::bytes file{}, thumbnail{};
    result made{};
  };
  // What to do when a call has succeeded. True when it has started another one for the same file.
  using step = bool (job::*)(seat&, const bulkhead::reply&);

  void take_next(seat& seat);
  bool begin(seat& seat);
  bool decoded(seat& seat, const bulkhead::reply& reply);
  bool scaled(seat& seat, const bulkhead::reply& reply);
  bool measured(seat& seat, const bulkhead::reply& reply);
  template <class... A>
  bool call(seat& seat, const bulkhead::plugin& plugin, const std::string& plugin_name, const char* method, step then,
            const std::tuple<A...>& arguments);
  bool go_on(seat& seat, const bulkhead::reply& reply, step then);
  bool fail(seat& seat, bulkhead::outcome outcome, std::string message);

  const std::vector<image_file>& files_;
  const options options_;
  std::vector<seat> seats_;
  std::atomic<std::size_t> next_{0}, failed_{0};
  std::mutex mutex_;
  std::condition_variable done_;
  std::size_t busy_ = 0;  // seats that have not done all there is
};

}  // namespace thumbnailer
