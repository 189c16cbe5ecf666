// See job.hpp. One thread per worker takes the next file and calls; a call is all that isolation asks of an embedder.
#include "job.hpp"

#include <algorithm>
#include <atomic>
#include <fstream>
#include <mutex>
#include <thread>

namespace thumbnailer {
namespace {

std::string extension_of(const std::filesystem::path& file) {
  std::string extension = file.extension().string();
  std::transform(extension.begin(), extension.end(), extension.begin(), [](unsigned char c) { return std::tolower(c); });
  return extension;
}

bool is_netpbm(const std::filesystem::path& file) {
  const std::string extension = extension_of(file);
  return extension == ".ppm" || extension == ".pgm" || extension == ".pnm";
}

bool is_image(const std::filesystem::path& file) {
  const std::string extension = extension_of(file);
  return is_netpbm(file) || extension == ".jpg" || extension == ".jpeg" || extension == ".png" || extension == ".webp";
}

bulkhead::bytes read_file(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  if (!in) throw std::runtime_error("the file can't be read");
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

}  // namespace

std::vector<std::filesystem::path> find_images(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> files;
  const auto skip = std::filesystem::directory_options::skip_permission_denied;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder, skip))
    if (entry.is_regular_file() && is_image(entry.path())) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

job::job(const options& options)
    : options_(options), host_({.on_lifecycle = [crashes = crashes_](const bulkhead::lifecycle_event& event) {
        if (event.report && event.report->reason != bulkhead::exit_reason::shut_down) ++*crashes;
      }}) {
  const bulkhead::load_options load = {.instances = options_.workers,
                                       .memory_limit = std::size_t{512} << 20,
                                       .deadline = options_.deadline,
                                       .isolation = options_.isolation};
  const unsigned copies = options_.isolation == bulkhead::isolation::none ? options_.workers : 1;
  for (unsigned i = 0; i < copies; ++i) {
    image_.push_back(host_.load(options_.plugins / "image.so", load));
    fragile_.push_back(host_.load(options_.plugins / "fragile.so", load));
  }
}

std::vector<result> job::run(const std::vector<std::filesystem::path>& files, const std::function<void(const result&)>& on_done) {
  std::vector<result> results(files.size());
  std::atomic<std::size_t> next{0};
  std::mutex reporting;
  auto work = [&](unsigned thread) {
    const bulkhead::plugin image = image_[thread % image_.size()], fragile = fragile_[thread % fragile_.size()];
    for (std::size_t i = next++; i < files.size(); i = next++) {
      result& result = results[i];
      result.file = files[i];
      try {
        const bulkhead::bytes data = read_file(files[i]);
        result.file_size = data.size();
        bulkhead::reply reply;
        if (is_netpbm(files[i])) {
          result.method = "fragile.decode";
          reply = fragile.try_call("decode", data);
          if (reply) {
            const auto [width, height, rgb] = reply.as<std::tuple<unsigned, unsigned, bulkhead::bytes>>();
            result.method = "image.thumbnail_rgb";
            reply = image.try_call("thumbnail_rgb", width, height, rgb, options_.max_side);
          }
        } else {
          result.method = "image.thumbnail";
          reply = image.try_call("thumbnail", data, options_.max_side);
        }
        result.outcome = reply.outcome();
        result.message = reply.message();
        result.report = reply.report();
        if (reply) result.thumbnail = reply.as<bulkhead::bytes>();
      } catch (const std::exception& e) {
        result.outcome = bulkhead::outcome::plugin_error;
        result.message = e.what();
      }
      const std::lock_guard held(reporting);
      on_done(result);
    }
  };
  std::vector<std::jthread> threads;
  for (unsigned i = 0; i < options_.workers; ++i) threads.emplace_back(work, i);
  threads.clear();
  return results;
}

}  // namespace thumbnailer
