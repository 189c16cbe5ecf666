// What plugins ask for in their manifests, by the hash of their file: read once, by a probe. A file that a probe died of
// stays refused. Probes of different files wait for each other no more than for anything else.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

namespace bulkhead::sandbox {

class manifest_requests {
 public:
  using requests = std::vector<std::string>;

  // `probe` is asked for what is not known yet; if it throws died_of_it, so does this, then and ever after.
  struct died_of_it : std::runtime_error {
    using std::runtime_error::runtime_error;
  };
  requests of(const std::string& sha256, const std::function<requests()>& probe) {
    const auto known = find(sha256);
    std::lock_guard held(known->mutex);
    if (known->refused) throw died_of_it(*known->refused);
    if (known->asked) return *known->asked;
    try {
      known->asked = probe();
    } catch (const died_of_it& e) {
      known->refused = e.what();
      throw;
    }
    return *known->asked;
  }

 private:
  struct file {
    std::mutex mutex;  // held while it is probed
    std::optional<requests> asked;
    std::optional<std::string> refused;
    std::uint64_t used = 0;
  };
  static constexpr std::size_t most_files = 1024;  // those not asked for longest are forgotten: another probe will tell

  std::shared_ptr<file> find(const std::string& sha256) {
    std::lock_guard held(mutex_);
    auto found = files_.find(sha256);
    if (found == files_.end()) found = files_.emplace(sha256, std::make_shared<file>()).first;
    const auto out = found->second;
    out->used = ++uses_;
    if (files_.size() > most_files)
      files_.erase(std::min_element(files_.begin(), files_.end(),
                                    [](const auto& a, const auto& b) { return a.second->used < b.second->used; }));
    return out;
  }

  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<file>> files_;
  std::uint64_t uses_ = 0;
};

}  // namespace bulkhead::sandbox
