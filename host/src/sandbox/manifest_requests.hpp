// What plugins ask for in their manifests, by the hash of their file: read once, by a probe. A file that a probe died of
// stays refused.
#pragma once

#include <functional>
#include <map>
#include <mutex>
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
    std::lock_guard held(mutex_);
    if (const auto found = refused_.find(sha256); found != refused_.end()) throw died_of_it(found->second);
    if (const auto found = known_.find(sha256); found != known_.end()) return found->second;
    try {
      return known_[sha256] = probe();
    } catch (const died_of_it& e) {
      known_.erase(sha256);
      refused_[sha256] = e.what();
      throw;
    } catch (...) {
      known_.erase(sha256);
      throw;
    }
  }

 private:
  std::mutex mutex_;
  std::map<std::string, requests> known_;
  std::map<std::string, std::string> refused_;
};

}  // namespace bulkhead::sandbox
