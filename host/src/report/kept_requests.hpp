// Copies of the requests that a worker is at work on, for the report of its death. A request stays while its call is in
// progress, and after the caller has given up, since the worker may hang in it still: then until newer ones need the room.
#pragma once

#include <cstdint>
#include <map>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace bulkhead {

class kept_requests {
 public:
  struct request {
    std::string method;
    std::vector<std::uint8_t> arguments;  // one MessagePack array
  };

  // `limit`: of all arguments together, in bytes; what alone is larger is not kept. 0: nothing is.
  explicit kept_requests(std::size_t limit) : limit_(limit) {}

  bool wanted() const { return limit_ > 0; }
  void keep(std::uint32_t call, std::string_view method, std::span<const std::uint8_t> arguments) {
    if (arguments.size() > limit_) return;
    std::lock_guard held(mutex_);
    while (size_ + arguments.size() > limit_) erase(requests_.find(oldest_.begin()->second));
    oldest_[next_] = call;
    requests_[call] = {next_++, {std::string(method), {arguments.begin(), arguments.end()}}};
    size_ += arguments.size();
  }
  void forget(std::uint32_t call) {
    std::lock_guard held(mutex_);
    if (const auto found = requests_.find(call); found != requests_.end()) erase(found);
  }
  // No method: there is no such request.
  request find(std::uint32_t call) const {
    std::lock_guard held(mutex_);
    const auto found = requests_.find(call);
    return found == requests_.end() ? request{} : found->second.what;
  }

 private:
  struct entry {
    std::uint64_t number;
    request what;
  };
  void erase(std::map<std::uint32_t, entry>::iterator at) {
    size_ -= at->second.what.arguments.size();
    oldest_.erase(at->second.number);
    requests_.erase(at);
  }

  const std::size_t limit_;
  mutable std::mutex mutex_;
  std::map<std::uint32_t, entry> requests_;
  std::map<std::uint64_t, std::uint32_t> oldest_;
  std::uint64_t next_ = 0;
  std::size_t size_ = 0;
};

}  // namespace bulkhead
