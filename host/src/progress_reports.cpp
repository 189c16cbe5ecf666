// See progress_reports.hpp.
#include "progress_reports.hpp"

namespace bulkhead {

void progress_reports::add(ipc::byte_span value) {
  std::vector<std::uint8_t> copy(value.begin(), value.end());
  lock held(mutex_);
  if (!closed_) values_.push_back(std::move(copy));
}

void progress_reports::deliver() {
  lock held(mutex_);
  if (!telling_) tell_all(held);  // else who tells takes the new ones, too
}

void progress_reports::close() {
  lock held(mutex_);
  closed_ = true;
}

void progress_reports::end() {
  lock held(mutex_);
  closed_ = true;
  told_.wait(held, [this] { return !telling_; });
  tell_all(held);
}

void progress_reports::tell_all(lock& held) {
  telling_ = true;
  while (!values_.empty()) {
    const std::vector<std::uint8_t> next = std::move(values_.front());
    values_.pop_front();
    held.unlock();
    core_->run(plugin_, [&] { to_(ipc::unpack(next).get()); });
    held.lock();
  }
  telling_ = false;
  told_.notify_all();
}

}  // namespace bulkhead
